"""The page on training: its tables, its numbers, its claims."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from attnmem import figures
from attnmem.catalog import Accelerator, accelerator, model
from attnmem.formulas import SCALE_BYTES, alive_at_peak
from attnmem.lessons.table import Table
from attnmem.measurement import records
from attnmem.measurement.device import provenance
from attnmem.measurement.memory import Measurement, measure
from attnmem.prediction.allocator import LARGE
from attnmem.prediction.trace import Trace, trace
from attnmem.programs import Program, dropout_attention, standard_attention
from attnmem.workload import Workload

W = Workload(batch=1, heads=12, seq_len=512, head_dim=64, dtype=torch.float16)
LENGTHS, LONG = (512, 1024, 2048), (4096, 8192, 16384)
LAYERS = (1, 2, 4, 8)
RTX3090, A100 = accelerator("RTX 3090"), accelerator("A100 80 GB SXM4")
GPT = model("GPT-2 medium")
EIGHT = GPT.workload(batch=8)

#: A program that also takes ``layers``, how many layers it has.
Stack = Callable[..., torch.Tensor]


def one_layer(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The output of standard attention."""
    return standard_attention(q, k, v)[0]


WAYS: dict[str, Program] = {
    "keep P": one_layer,
    "with dropout": dropout_attention,
    "recompute P": partial(checkpoint, one_layer, use_reentrant=False),
}


def stack(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layers: int, layer: Program = one_layer
) -> torch.Tensor:
    """Layers one after the other: the output of one is the query of the next."""
    for _ in range(layers):
        q = layer(q, k, v)
    return q


def total(w: Workload, scores: int, heads: int) -> int:
    """So many S and so many X, in bytes."""
    return scores * w.score_bytes + heads * w.head_bytes


def measured(w: Workload, lengths: Sequence[int], *, training: bool = True) -> list[Measurement]:
    """Runs of standard attention on a GPU, one for each length."""
    return [records.measured(standard_attention, replace(w, seq_len=n), training) for n in lengths]


def table_of_peaks(w: Workload, lengths: Sequence[int]) -> Table:
    """Peaks of inference and of training on a GPU, and what training keeps."""
    pairs = zip(measured(w, lengths, training=False), measured(w, lengths), strict=True)
    return Table(
        [
            {
                "N": inference.workload.seq_len,
                "inference (MB)": inference.peak_bytes / 1e6,
                "training (MB)": training.peak_bytes / 1e6,
                "ratio": training.peak_bytes / inference.peak_bytes,
                "kept for backward (MB)": training.saved_bytes / 1e6,
                "kept / S": training.saved_bytes / training.workload.score_bytes,
            }
            for inference, training in pairs
        ],
        {
            "inference (MB)": ",.2f",
            "training (MB)": ",.2f",
            "ratio": ".3f",
            "kept for backward (MB)": ",.2f",
            "kept / S": "g",
        },
    )


def table_of_differences(runs: Sequence[Measurement], scores: int) -> Table:
    """Measured peaks of training, and so many S and 6X."""
    formula = f"{scores}S + 6X (B)"
    rows: list[dict[str, object]] = []
    for m in runs:
        predicted = total(m.workload, scores, 6)
        rows.append(
            {
                "N": m.workload.seq_len,
                "measured (B)": m.peak_bytes,
                formula: predicted,
                "difference": m.peak_bytes - predicted,
            }
        )
    return Table(rows, {"measured (B)": ",", formula: ",", "difference": "{:,} B"})


def table_of_reserved(w: Workload, lengths: Sequence[int]) -> Table:
    """What is alive and what the allocator reserves at the peak of training, in units of S."""
    rows: list[dict[str, object]] = []
    for m in measured(w, lengths):
        t, s = trace(standard_attention, m.workload, training=True), m.workload.score_bytes
        reserved = "out of memory" if m.out_of_memory else m.peak_reserved_bytes / s
        rows.append(
            {
                "N": m.workload.seq_len,
                "alive at the peak (S)": t.peak_bytes / s,
                "reserved, predicted (S)": t.peak_reserved_bytes / s,
                "reserved, measured (S)": reserved,
            }
        )
    return Table(rows, dict.fromkeys(rows[0], ".2f") | {"N": ""})


def table_of_layers(stack: Stack, w: Workload, layers: Sequence[int]) -> Table:
    """Peaks of stacks of layers in units of S, measured now on the CPU and traced for CUDA."""
    rows = []
    for count in layers:
        program = partial(stack, layers=count)
        inference = measure(program, w, device="cpu")
        training = measure(program, w, training=True, device="cpu")
        rows.append(
            {
                "layers L": count,
                "inference, CPU (S)": inference.peak_bytes / w.score_bytes,
                "training, CPU (S)": training.peak_bytes / w.score_bytes,
                "(L + 2) S + (L + 5) X": total(w, count + 2, count + 5) / w.score_bytes,
                "training, CUDA, traced (S)": peak_in_scores(program, w),
            }
        )
    return Table(rows, dict.fromkeys(rows[0], ".2f") | {"layers L": ""})


def table_of_recomputation(keep: Stack, again: Stack, w: Workload, layers: Sequence[int]) -> Table:
    """Peaks of stacks of layers that keep P and that compute it again, in units of S."""
    rows = [
        {
            "layers L": count,
            "keep P: peak (S)": peak_in_scores(partial(keep, layers=count), w),
            "recompute P: peak (S)": peak_in_scores(partial(again, layers=count), w),
        }
        for count in layers
    ]
    return Table(rows, dict.fromkeys(rows[0], ".2f") | {"layers L": ""})


def peak_in_scores(program: Program, w: Workload) -> float:
    """The peak of training in units of S, traced for CUDA."""
    return trace(program, w, training=True).peak_bytes / w.score_bytes


def table_of_batches(cards: Sequence[Accelerator]) -> Table:
    """What all layers of GPT-2 medium keep and need, and the largest batch on each card."""
    rows: list[dict[str, object]] = []
    for way in WAYS:
        t = trace(all_layers(way), EIGHT, training=True)
        rows.append(
            {
                "each layer": way,
                "kept (GB)": t.saved_bytes / 1e9,
                "peak (GB)": t.peak_bytes / 1e9,
            }
            | {f"batch, {card.name}": largest_batch(way, card) for card in cards}
        )
    return Table(rows, {"kept (GB)": ".2f", "peak (GB)": ".2f"})


def all_layers(way: str) -> Program:
    """Attention in all layers of GPT-2 medium, each a layer of :data:`WAYS`."""
    return partial(stack, layers=GPT.layers, layer=WAYS[way])


@cache
def largest_batch(way: str, card: Accelerator) -> int:
    """The largest batch of :func:`all_layers` that fits into the memory of ``card``."""

    def need(batch: int) -> int:
        w = replace(EIGHT, batch=batch)
        return trace(all_layers(way), w, training=True).peak_reserved_bytes

    return bisect_right(range(1, 1024), card.memory_bytes, key=need)


@cache
def eight_layers() -> dict[str, Trace]:
    """Eight layers in training that keep P, and eight that compute it again."""
    w = replace(W, seq_len=4096)
    return {
        way: trace(partial(stack, layers=8, layer=WAYS[way]), w, training=True)
        for way in ("keep P", "recompute P")
    }


def alive() -> dict[str, dict[str, int]]:
    """The tensors at the peak of a layer: in inference, in training, in training on a CPU."""
    w = replace(W, seq_len=2048)
    return {
        "inference": alive_at_peak(w),
        "training, CUDA": alive_at_peak(w, training=True),
        "training, CPU": alive_at_peak(w, training=True, device="cpu"),
    }


def kept_by_gpt() -> tuple[int, int]:
    """What the layers of GPT-2 medium keep besides scores, and for scores, in bytes.

    Source: Korthikanti et al. 2022, arXiv 2205.05198, section 4.1.
    """
    return 34 * EIGHT.head_elements * GPT.layers, 5 * EIGHT.score_elements * GPT.layers


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    keep, again = (t.steps for t in eight_layers().values())
    flops = [sum(step.flops for step in steps) for steps in (keep, again)]
    moved = [sum(step.bytes_moved for step in steps) for steps in (keep, again)]
    batch = {way: largest_batch(way, A100) for way in WAYS}
    rest, scores = kept_by_gpt()
    return {
        "origin": records.origin(),
        "cpu": str(provenance("cpu")),
        "bars": figures.stacks(alive()),
        "large_mib": LARGE // 2**20,
        "live": figures.live(eight_layers()),
        "more_flops": flops[1] / flops[0] - 1,
        "more_bytes_moved": moved[1] / moved[0] - 1,
        "gpt_layers": GPT.layers,
        "gpt_heads": GPT.heads,
        "gpt_dim": GPT.head_dim,
        "gpt_context": GPT.context,
        "less_dropout": batch["keep P"] / batch["with dropout"],
        "more_again": batch["recompute P"] / batch["keep P"],
        "share_p": EIGHT.score_bytes / total(EIGHT, 1, 4),
        "kept_all_gb": (rest + scores) / 1e9,
        "kept_rest_gb": rest / 1e9,
        "card_gb": RTX3090.memory_bytes / 1e9,
        "left_gb": (RTX3090.memory_bytes - rest - scores) / 1e9,
        "scores_share": scores / (rest + scores),
    }


def claims() -> dict[str, bool]:
    """What the text says of these numbers: sentence -> whether it holds."""
    inference, training = measured(W, LENGTHS, training=False), measured(W, LENGTHS)
    cpu = measure(standard_attention, replace(W, dtype=torch.float32), training=True, device="cpu")
    u = replace(W, seq_len=4096)
    keep, again = eight_layers().values()
    orange = [list(tensors.values()).count(max(tensors.values())) for tensors in alive().values()]
    dropped = trace(dropout_attention, u, training=True).saved_bytes

    def peak(
        layers: int, *, training: bool = True, device: str = "cuda", way: str = "keep P"
    ) -> int:
        program = partial(stack, layers=layers, layer=WAYS[way])
        return trace(program, u, training=training, device=device).peak_bytes

    return {
        "the ratio is close to 2, and below": all(
            1.8 < t.peak_bytes / i.peak_bytes < 2 for t, i in zip(training, inference, strict=True)
        ),
        "what is kept beyond Q, K, V and O is one tensor of N×N": all(
            m.saved_bytes == m.workload.score_bytes for m in training
        ),
        "the inference peak had two of them": all(
            m.peak_bytes == total(m.workload, 2, 4) for m in inference
        ),
        "two orange blocks in inference, four in training on CUDA, three on a CPU": (
            orange == [2, 4, 3]
        ),
        "4S + 6X are measured on CUDA": all(
            m.peak_bytes == total(m.workload, 4, 6) for m in training
        ),
        "on a CPU the extra bytes are the scale, a number of f64": (
            cpu.peak_bytes == total(cpu.workload, 3, 6) + SCALE_BYTES
        ),
        "5S are reserved once X is 10 MiB or more, and less before": all(
            (m.workload.head_bytes >= LARGE)
            == (m.peak_reserved_bytes >= 5 * m.workload.score_bytes)
            for m in measured(W, LONG)
        ),
        "the peak of L layers is (L + 3) S + (L + 5) X on CUDA": all(
            peak(n) == total(u, n + 3, n + 5) for n in LAYERS
        ),
        "and (L + 2) S + (L + 5) X on a CPU, beside a scale for each layer": all(
            peak(n, device="cpu") == total(u, n + 2, n + 5) + n * SCALE_BYTES for n in LAYERS
        ),
        "inference needs 2S + 5X from the second layer on": all(
            peak(n, training=False) == total(u, 2, 5) for n in LAYERS if n > 1
        ),
        "with dropout, 2 + 1 + 2 bytes are kept for each score in 16 bit": (
            round(dropped / u.score_elements, 2) == 5
        ),
        "with recomputation the peak is 4S + (L + 5) X": all(
            peak(n, way="recompute P") == total(u, 4, n + 5) for n in LAYERS
        ),
        "no spike of recomputation is as high as half of the highest": (
            again.peak_bytes < keep.peak_bytes / 2
        ),
        "all layers of GPT-2 medium peak at (L + 3) S + (L + 5) X": (
            trace(all_layers("keep P"), EIGHT, training=True).peak_bytes
            == total(EIGHT, GPT.layers + 3, GPT.layers + 5)
        ),
        "what its layers keep fits into an RTX 3090": sum(kept_by_gpt()) < RTX3090.memory_bytes,
    }
