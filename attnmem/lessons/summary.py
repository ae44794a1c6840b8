"""The summary: its tables, what its text looks up, and what it says."""

from collections.abc import Sequence
from functools import cache
from math import isclose, sqrt
from typing import Any

import torch

from attnmem.catalog import ACCELERATORS, Accelerator, Model, accelerator, model
from attnmem.formulas import SCALE_BYTES, peak_bytes, standard_steps
from attnmem.lessons.intensity import least_seconds, product_seconds
from attnmem.lessons.shared import W, same_events, total
from attnmem.lessons.table import Table
from attnmem.measurement import records
from attnmem.measurement.memory import Measurement
from attnmem.prediction.kernels.fused import CUDNN_PLAN
from attnmem.prediction.trace import Trace, max_seq_len, trace
from attnmem.programs import (
    PROGRAMS,
    Program,
    cudnn_sdpa,
    efficient_sdpa,
    flash_sdpa,
    standard_attention,
)
from attnmem.roofline import bound, ridge_point
from attnmem.workload import Workload

LLAMA, H100 = model("Llama 3 8B"), accelerator("H100 SXM")


def some_queries(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Standard attention of 1024 queries at a time."""
    parts = [standard_attention(block, k, v)[0] for block in torch.split(q, 1024, dim=-2)]
    return torch.cat(parts, dim=-2)


def table_of_ways(programs: Sequence[Program], w: Workload) -> Table:
    """The peak of each program in inference, and what it moves, in units of X."""
    traces = {program.__name__: trace(program, w) for program in programs}
    return Table(
        {"program": "", "peak (X)": ".2f", "moved (X)": ".2f"},
        (
            (name, t.peak_bytes / w.head_bytes, _moved(t) / w.head_bytes)
            for name, t in traces.items()
        ),
    )


def _moved(t: Trace) -> int:
    """The bytes that the forward pass of a run moves."""
    return sum(step.bytes_moved for step in t.steps if step.stage == "forward")


def table_of_answers(m: Model, card: Accelerator) -> Table:
    """What one layer of a model takes at its full context, and its least times on a card."""
    w = m.workload()
    inference, training = (trace(standard_attention, w, training=on) for on in (False, True))
    longest = max_seq_len(standard_attention, w, card.memory_bytes)
    return Table(
        {"what": "", "how": "", "value": ""},
        [
            ("shape of Q", "", str(list(w.shape))),
            ("X", "BHNde", f"{w.head_bytes / 1e9:.3f} GB"),
            ("S", "BHN²e", f"{w.score_bytes / 1e9:.2f} GB"),
            ("peak, inference", "2S + 4X", f"{inference.peak_bytes / 1e9:.2f} GB"),
            ("peak, training", "4S + 6X", f"{training.peak_bytes / 1e9:.2f} GB"),
            ("kept by one layer", "S", f"{training.saved_bytes / 1e9:.2f} GB"),
            ("kept by all layers", "LS", f"{m.layers * training.saved_bytes / 1e9:.1f} GB"),
            ("moved, inference", "6S + 4X", f"{_moved(inference) / 1e9:.2f} GB"),
            ("least time, inference", "sum over steps", f"{1e3 * least_seconds(w, card):.2f} ms"),
            ("least time, fused", "products", f"{1e3 * _fused_seconds(w, card):.2f} ms"),
            ("longest N, inference", "by bisection", f"{longest:,}"),
        ],
    )


def _fused_seconds(w: Workload, card: Accelerator) -> float:
    """What a fused kernel takes at least: it moves 4X, and computes both products."""
    return max(4 * w.head_bytes / card.bandwidth, product_seconds(w, card))


@cache
def _compared() -> list[tuple[Measurement, Trace]]:
    """Each recorded run that was warmed up and ended, beside its prediction."""
    programs = {program.__name__: program for program in PROGRAMS}
    return [
        (m, trace(programs[m.program], m.workload, m.training))
        for path in records.RECORDS
        for m in records.load(path).measurements
        if m.warm_up and not m.out_of_memory
    ]


def _same_sizes(m: Measurement, t: Trace) -> bool:
    sizes = ("peak_bytes", "peak_allocated_bytes", "peak_reserved_bytes", "saved_bytes")
    return all(getattr(m, name) == getattr(t, name) for name in sizes)


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    same = [same_events(m, t) for m, t in _compared() if m.timeline]
    memory_bound = [
        all(bound(step, card) == "memory" for step in standard_steps(W)) for card in ACCELERATORS
    ]
    w = LLAMA.workload()
    return {
        "below": sum(memory_bound),
        "cards": len(ACCELERATORS),
        "lowest": min(ridge_point(card, matrix=True) for card in ACCELERATORS),
        "programs": len(PROGRAMS),
        "records": " and ".join(str(records.load(path).provenance) for path in records.RECORDS),
        "ended": len(_compared()),
        "exact": sum(_same_sizes(m, t) for m, t in _compared()),
        "listed": len(same),
        "same": sum(same),
        "cudnn": CUDNN_PLAN,
        "moved_gb": total(W, 6, 4) / 1e9,
        "peak_gb": peak_bytes(W) / 1e9,
        "ideal_mb": 4 * W.head_bytes / 1e6,
        "factor": total(W, 6, 4) / (4 * W.head_bytes),
        "context": LLAMA.context,
        "layers": LLAMA.layers,
        "layer_peak_gb": trace(standard_attention, w).peak_bytes / 1e9,
        "card_memory_gib": H100.memory_gib,
        "kept_gb": _kept_by_all_layers() / 1e9,
        "faster": least_seconds(w, H100) / _fused_seconds(w, H100),
    }


def _kept_by_all_layers() -> int:
    return LLAMA.layers * trace(standard_attention, LLAMA.workload(), training=True).saved_bytes


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    return _claims_on_formulas() | _claims_on_records() | _claims_on_ways() | _claims_on_llama()


def _claims_on_formulas() -> dict[str, bool]:
    inference = trace(standard_attention, W)
    cuda, cpu = (trace(standard_attention, W, True, device) for device in ("cuda", "cpu"))
    small, large = (max_seq_len(standard_attention, W, n * 2**36) for n in (1, 2))
    return {
        "inference peaks at 2S + 4X": inference.peak_bytes == total(W, 2, 4),
        "training peaks at 4S + 6X on CUDA": cuda.peak_bytes == total(W, 4, 6),
        "at 3S + 6X and one scalar on a CPU": cpu.peak_bytes == total(W, 3, 6) + SCALE_BYTES,
        "of all N×N tensors only P is kept": cuda.saved_bytes == W.score_bytes,
        "twice the memory gives √2 times the length": isclose(large / small, sqrt(2), rel_tol=0.01),
        "a forward pass moves 6S + 4X": _moved(inference) == total(W, 6, 4),
    }


def _claims_on_records() -> dict[str, bool]:
    runs = [m for m, _ in _compared()]
    cudnn = [(m, t) for m, t in _compared() if m.program == cudnn_sdpa.__name__ and m.timeline]
    return {
        "every program was compared": {m.program for m in runs} == {p.__name__ for p in PROGRAMS},
        "in three dtypes": len({m.workload.dtype for m in runs}) == 3,
        "with odd lengths and head dimensions": (
            any(m.workload.seq_len % 2 for m in runs) and any(m.workload.head_dim % 2 for m in runs)
        ),
        "in inference and in training": {m.training for m in runs} == {False, True},
        "cuDNN asks for the same bytes in every run": (
            len(cudnn) > 1 and all(same_events(m, t) for m, t in cudnn)
        ),
    }


def _claims_on_ways() -> dict[str, bool]:
    programs = (standard_attention, some_queries, flash_sdpa, efficient_sdpa)
    standard, blocks, *fused = (trace(program, W) for program in programs)
    return {
        "some queries at a time save memory, but no traffic": (
            blocks.peak_bytes < standard.peak_bytes and _moved(blocks) >= _moved(standard)
        ),
        "a fused kernel saves both": all(
            t.peak_bytes < blocks.peak_bytes and _moved(t) < _moved(standard) for t in fused
        ),
        "the bound is 4X, in memory and in traffic": all(
            min(t.peak_bytes, _moved(t)) >= 4 * W.head_bytes for t in (standard, blocks, *fused)
        ),
    }


def _claims_on_llama() -> dict[str, bool]:
    w = LLAMA.workload()
    reserved = trace(standard_attention, w).peak_reserved_bytes
    return {
        "in inference the layer fits": reserved < H100.memory_bytes,
        "what the layers keep is more than the card has": _kept_by_all_layers() > H100.memory_bytes,
        "nearly all of the least time is traffic of S and P": (
            6 * w.score_bytes / H100.bandwidth > 0.9 * least_seconds(w, H100)
        ),
        "a fused kernel is bounded by the arithmetic of the products": (
            _fused_seconds(w, H100) > 4 * w.head_bytes / H100.bandwidth
        ),
    }
