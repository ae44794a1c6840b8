"""Measurement: peaks of standard attention, cold starts, and what the allocator makes of sizes."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import torch

from attnmem.catalog import model
from attnmem.formulas import peak_bytes
from attnmem.lessons.table import Table
from attnmem.measurement import records
from attnmem.measurement.device import provenance
from attnmem.measurement.memory import Measurement
from attnmem.prediction.allocator import CachingAllocator, cublas_workspace
from attnmem.prediction.trace import Trace, trace
from attnmem.programs import named_products, standard_attention
from attnmem.timeline import Event
from attnmem.workload import Workload, round_up

HALF = Workload(batch=1, heads=12, seq_len=512, head_dim=64, dtype=torch.float16)
LENGTHS = (512, 1024, 2048, 4096, 131072)
GPT2 = model("GPT-2 medium")
H100 = (9, 0)  # its compute capability
MIB = 2**20


def table_of_peaks(runs: Sequence[Measurement]) -> Table:
    """Measured peaks beside predicted ones. A run that ended for want of memory says so."""
    return Table(
        [
            {
                "N": m.workload.seq_len,
                "inputs (MB)": m.input_bytes / 1e6,
                "predicted peak (MB)": peak_bytes(m.workload) / 1e6,
                "measured peak (MB)": "out of memory" if m.out_of_memory else m.peak_bytes / 1e6,
                "beyond inputs (MB)": (
                    None if m.out_of_memory else (m.peak_bytes - m.input_bytes) / 1e6
                ),
                "difference": None if m.out_of_memory else _difference(m),
            }
            for m in runs
        ],
        dict.fromkeys(
            ("inputs (MB)", "predicted peak (MB)", "measured peak (MB)", "beyond inputs (MB)"),
            ",.2f",
        )
        | {"difference": "{:,} B"},
    )


def table_of_cold_starts(
    cold: Sequence[Measurement], warm: Sequence[Measurement], workspace: int
) -> Table:
    """Peaks without and with a warm-up, and the workspace in bytes that a rule predicts."""
    return _table_of_bytes(
        [
            {
                "N": c.workload.seq_len,
                "cold peak (B)": c.peak_bytes,
                "warm peak (B)": w.peak_bytes,
                "difference (B)": c.peak_bytes - w.peak_bytes,
                "workspace, predicted (B)": workspace,
            }
            for c, w in zip(cold, warm, strict=True)
        ]
    )


def table_of_allocations(traced: Sequence[Event], listed: Sequence[Event]) -> Table:
    """The allocations, not the releases, of a trace and of the allocator's history, in order."""
    return Table(
        [
            {"tensor": t.label, "traced (B)": t.bytes, "allocator (B)": m.bytes}
            for t, m in zip(traced, listed, strict=True)
            if t.bytes > 0
        ],
        {"traced (B)": "+,", "allocator (B)": "+,"},
    )


def table_of_three_peaks(runs: Sequence[Measurement]) -> Table:
    """What each run requested, allocated and reserved at most."""
    return _table_of_bytes(
        [
            {
                "N": m.workload.seq_len,
                "requested (B)": m.peak_bytes,
                "allocated (B)": m.peak_allocated_bytes,
                "difference (B)": m.peak_allocated_bytes - m.peak_bytes,
                "reserved (B)": m.peak_reserved_bytes,
            }
            for m in runs
        ]
    )


def table_of_cpu_peaks(runs: Sequence[Measurement]) -> Table:
    """Peaks measured on a CPU, and how far they are from the formula."""
    return Table(
        [
            {
                "N": m.workload.seq_len,
                "inputs (MB)": m.input_bytes / 1e6,
                "peak (MB)": m.peak_bytes / 1e6,
                "predicted peak (MB)": peak_bytes(m.workload) / 1e6,
                "measured − predicted": _difference(m),
            }
            for m in runs
        ],
        dict.fromkeys(("inputs (MB)", "peak (MB)", "predicted peak (MB)"), ",.2f")
        | {"measured − predicted": "{:,} B"},
    )


def table_of_cold_peaks(traces: Sequence[Trace], cold_peaks: Sequence[int]) -> Table:
    """Peaks warm and cold, in bytes and, without the inputs and O, in units of S."""
    rows = [
        {
            "N": t.workload.seq_len,
            "peak (B)": t.peak_bytes,
            "cold peak (B)": cold,
            "one S (B)": t.workload.score_bytes,
            "(peak − 4X) / S": _in_scores(t.peak_bytes, t.workload),
            "(cold peak − 4X) / S": _in_scores(cold, t.workload),
        }
        for t, cold in zip(traces, cold_peaks, strict=True)
    ]
    return _table_of_bytes(rows, {"(peak − 4X) / S": ".2f", "(cold peak − 4X) / S": ".2f"})


def numbers() -> dict[str, object]:
    """What the page's text looks up: device and sizes, on the GPU, of its worked case."""
    return {
        "origin": records.origin(),
        "cpu": str(provenance("cpu")),
        "newer_mib": cublas_workspace(H100) / MIB,
        "older": cublas_workspace((8, 0)),
        **_gpu_numbers(),
        **_case_numbers(),
    }


def claims() -> dict[str, bool]:
    """The page's sentences that depend on what was measured or computed."""
    return {**_gpu_claims(), **_allocator_claims(), **_case_claims()}


def _gpu_numbers() -> dict[str, float]:
    *done, failed = _runs()
    first, second = done[:2]
    cold = first.peak_bytes + first.workspace_bytes
    training = records.measured(standard_attention, HALF, training=True)
    return {
        "done": len(done),
        "worst": max(abs(_difference(m)) for m in done),
        "oom_n": failed.workload.seq_len,
        "oom_needs_gb": peak_bytes(failed.workload) / 1e9,
        "oom_next_gb": failed.workload.score_bytes / 1e9,
        "oom_had_gb": failed.peak_bytes / 1e9,
        "memory_gb": failed.provenance.memory_bytes / 1e9,
        "first_factor": cold / first.peak_bytes,
        "cold_growth": second.peak_bytes / cold,
        "true_growth": second.peak_bytes / first.peak_bytes,
        "workspace_training": training.workspace_bytes,
    }


def _case_numbers() -> dict[str, float]:
    t = trace(standard_attention, GPT2.workload())
    workspace = t.workspace_bytes(H100)
    driver = t.peak_reserved_bytes + workspace
    short, long = (peak_bytes(GPT2.workload(n)) for n in (256, 512))
    return {
        "gpt2_heads": GPT2.heads,
        "gpt2_d": GPT2.head_dim,
        "gpt2_context": GPT2.context,
        "gpt2_idle_mb": (t.peak_reserved_bytes - t.peak_allocated_bytes) / 1e6,
        "gpt2_workspace_mb": workspace / 1e6,
        "gpt2_driver_mb": driver / 1e6,
        "gpt2_peak_mb": t.peak_bytes / 1e6,
        "gpt2_factor": driver / t.peak_bytes,
        "repair_seen": long / (short + cublas_workspace((8, 0))),
        "repair_true": long / short,
    }


def _gpu_claims() -> dict[str, bool]:
    *done, failed = _runs()
    cold = [records.measured(standard_attention, m.workload, warm_up=False) for m in done]
    extra = [c.peak_bytes - m.peak_bytes for c, m in zip(cold, done, strict=True)]
    got, memory = failed.peak_bytes, failed.provenance.memory_bytes
    training = records.measured(standard_attention, HALF, training=True)
    listed = [event.bytes for event in training.timeline]
    traced = [event.bytes for event in trace(standard_attention, HALF, training=True).timeline]
    single = replace(HALF, dtype=torch.float32)
    on_cpu = trace(standard_attention, single, device="cpu").peak_bytes
    return {
        "theory and device agree to the byte": not any(_difference(m) for m in done),
        "the run of 131072 tokens did not end": failed.out_of_memory,
        "the others did": not any(m.out_of_memory for m in done),
        "it asked for a tensor too many": got < memory < got + failed.workload.score_bytes,
        "the difference is the workspace": extra == [m.workspace_bytes for m in done],
        "training has a second workspace": training.workspace_bytes == 2 * done[0].workspace_bytes,
        "releases agree as well, in size and order": traced == listed,
        "in inference, GPU and CPU need the same": on_cpu == peak_bytes(single),
    }


def _allocator_claims() -> dict[str, bool]:
    powers = [m for m in _runs() if not m.out_of_memory]
    odd = records.measured(standard_attention, replace(HALF, seq_len=777))
    seen = odd.peak_bytes, odd.peak_allocated_bytes, odd.peak_reserved_bytes
    t = trace(standard_attention, odd.workload)
    size = odd.workload.score_bytes
    block, segment = round_up(size, 512), round_up(size, 2 * MIB)
    difference = odd.peak_allocated_bytes - odd.peak_bytes
    alive = accumulate(1 if event.bytes > 0 else -1 for event in t.timeline)
    return {
        "powers of two hide rounding": all(m.peak_allocated_bytes == m.peak_bytes for m in powers),
        "the rest of the segment is less than 1 MiB": 0 < segment - block < MIB,
        "S keeps the rest, P is rounded": difference == (segment - size) + (block - size),
        "P needs no new segment": odd.peak_reserved_bytes == 20 * MIB + segment,
        "the trace arrives at the same three numbers": seen
        == (t.peak_bytes, t.peak_allocated_bytes, t.peak_reserved_bytes),
        "it never holds more than six tensors": max(alive) == 6,
        "the difference is within the bound": 0 <= difference <= 6 * (MIB + 511),
    }


def _case_claims() -> dict[str, bool]:
    w = GPT2.workload()
    x, s = w.head_bytes, w.score_bytes
    t = trace(standard_attention, w)
    workspace = t.workspace_bytes(H100)
    cold = t.peak_bytes + workspace
    idle = t.peak_reserved_bytes - t.peak_allocated_bytes
    alone = CachingAllocator()
    alone.allocate(workspace)
    return {
        "the workspace is as large as one S": workspace == s,
        "the cold peak is 3S + 4X": cold == 3 * s + 4 * x,
        "exactly what named_products needs": cold == trace(named_products, w).peak_bytes,
        "Q, K, V and O leave the rest of one segment unused": idle == 20 * MIB - 4 * x,
        "the workspace fills its segment": alone.reserved == workspace,
    }


def _runs() -> list[Measurement]:
    """The page's runs of inference on a GPU. No GPU has the memory for the last."""
    return [records.measured(standard_attention, replace(HALF, seq_len=n)) for n in LENGTHS]


def _difference(m: Measurement) -> int:
    return m.peak_bytes - peak_bytes(m.workload)


def _in_scores(peak: int, w: Workload) -> float:
    return (peak - 4 * w.head_bytes) / w.score_bytes


def _table_of_bytes(
    rows: Sequence[dict[str, float]], formats: dict[str, str] | None = None
) -> Table:
    """A table of rows whose columns in bytes, called "… (B)", have commas."""
    names = [name for name in rows[0] if name.endswith("(B)")]
    return Table(rows, dict.fromkeys(names, ",") | (formats or {}))
