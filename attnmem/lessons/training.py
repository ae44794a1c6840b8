"""The page on training: its tables, what its text looks up, and what it says."""

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
from attnmem.lessons.shared import SHORT, measured, total
from attnmem.lessons.table import Table
from attnmem.measurement import records
from attnmem.measurement.device import provenance
from attnmem.measurement.memory import measure
from attnmem.prediction.allocator import LARGE, segment_size
from attnmem.prediction.trace import Trace, trace
from attnmem.programs import (
    Program,
    cudnn_sdpa,
    dropout_attention,
    efficient_sdpa,
    flash_sdpa,
    math_sdpa,
    standard_attention,
)
from attnmem.workload import Workload

LENGTHS, LONG = (512, 1024, 2048), (4096, 8192, 16384)
LAYERS = (1, 2, 4, 8)
STACKED = replace(SHORT, seq_len=4096)  # one of such layers
LONGER = replace(SHORT, seq_len=8192)
FILLED = replace(SHORT, seq_len=5120)  # what Q, K, V and O leave of their segments is too small
REST = segment_size(FILLED.head_bytes) % FILLED.head_bytes
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
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layers: int, way: str = "keep P"
) -> torch.Tensor:
    """Layers one after the other: the output of one is the query of the next."""
    for _ in range(layers):
        q = WAYS[way](q, k, v)
    return q


def table_of_peaks(w: Workload, lengths: Sequence[int]) -> Table:
    """Peaks of inference and of training on a GPU, and what training keeps."""
    rows = []
    pairs = zip(measured(w, lengths), measured(w, lengths, training=True), strict=True)
    for inference, m in pairs:
        ratio, kept = m.peak_bytes / inference.peak_bytes, m.saved_bytes / m.workload.score_bytes
        peaks = inference.peak_bytes / 1e6, m.peak_bytes / 1e6
        rows.append((m.workload.seq_len, *peaks, ratio, m.saved_bytes / 1e6, kept))
    return Table(
        {"N": "", "inference (MB)": ",.2f", "training (MB)": ",.2f", "ratio": ".3f"}
        | {"kept for backward (MB)": ",.2f", "kept / S": "g"},
        rows,
    )


def table_of_reserved(w: Workload, lengths: Sequence[int]) -> Table:
    """What is alive and what the allocator reserves at the peak of training, in units of S."""
    rows = []
    for m in measured(w, lengths, training=True):
        t, s = trace(standard_attention, m.workload, training=True), m.workload.score_bytes
        reserved = "out of memory" if m.out_of_memory else m.peak_reserved_bytes / s
        rows.append((m.workload.seq_len, t.peak_bytes / s, t.peak_reserved_bytes / s, reserved))
    return Table(
        {"N": "", "alive at the peak (S)": ".2f"}
        | {"reserved, predicted (S)": ".2f", "reserved, measured (S)": ".2f"},
        rows,
    )


def table_of_layers(stack: Stack, w: Workload, layers: Sequence[int]) -> Table:
    """Peaks of stacks of layers in units of S, measured now on the CPU and traced for CUDA."""
    rows = []
    for count in layers:
        program = partial(stack, layers=count)
        peaks = (  # on a CPU there is nothing to warm up
            measure(program, w, device="cpu", warm_up=False).peak_bytes,
            measure(program, w, training=True, device="cpu", warm_up=False).peak_bytes,
            total(w, count + 2, count + 5),
            trace(program, w, training=True).peak_bytes,
        )
        rows.append((count, *(peak / w.score_bytes for peak in peaks)))
    return Table(
        {
            "layers L": "",
            "inference, CPU (S)": ".3f",
            "training, CPU (S)": ".3f",
            "(L + 2) S + (L + 5) X": ".3f",
            "training, CUDA, traced (S)": ".3f",
        },
        rows,
    )


def table_of_kernels(w: Workload) -> Table:
    """What each of PyTorch's own kernels needs for one layer, beside standard attention, in MB."""
    rows = []
    for program in (standard_attention, math_sdpa, efficient_sdpa, flash_sdpa, cudnn_sdpa):
        reads, trains = (trace(program, w, training) for training in (False, True))
        sizes = reads.peak_bytes, trains.peak_bytes, trains.saved_bytes
        rows.append((program.__name__, *(size / 1e6 for size in sizes)))
    columns = ("inference (MB)", "training (MB)", "kept for backward (MB)")
    return Table({"program": ""} | dict.fromkeys(columns, ",.2f"), rows)


def table_of_batches() -> Table:
    """What all layers of GPT-2 medium keep and need, and the largest batch on two cards."""
    cards, rows = (RTX3090, A100), []
    for way in WAYS:
        t = _layers_of_gpt(way, EIGHT)
        batches = [_largest_batch(way, card) for card in cards]
        rows.append((way, t.saved_bytes / 1e9, t.peak_bytes / 1e9, *batches))
    return Table(
        {"each layer": "", "kept (GB)": ".2f", "peak (GB)": ".2f"}
        | {f"batch, {card.name}": "" for card in cards},
        rows,
    )


def _layers_of_gpt(way: str, w: Workload) -> Trace:
    return trace(partial(stack, layers=GPT.layers, way=way), w, training=True)


def _reserved(w: Workload, layers: int = 1) -> int:
    return trace(partial(stack, layers=layers), w, training=True).peak_reserved_bytes


@cache
def _largest_batch(way: str, card: Accelerator) -> int:
    def need(batch: int) -> int:
        return _layers_of_gpt(way, replace(EIGHT, batch=batch)).peak_reserved_bytes

    return bisect_right(range(1, 1024), card.memory_bytes, key=need)


@cache
def _eight_layers() -> dict[str, Trace]:
    return {
        way: trace(partial(stack, layers=8, way=way), STACKED, training=True)
        for way in ("keep P", "recompute P")
    }


def _alive() -> dict[str, dict[str, int]]:
    """The tensors at the peak of a layer: in inference, in training, in training on a CPU."""
    w = replace(SHORT, seq_len=2048)
    return {
        "inference": alive_at_peak(w),
        "training, CUDA": alive_at_peak(w, training=True),
        "training, CPU": alive_at_peak(w, training=True, device="cpu"),
    }


def _kept_by_gpt() -> tuple[int, int]:
    """What the layers of GPT-2 medium keep besides scores, and for scores, in bytes.

    Source: Korthikanti et al. 2022, arXiv 2205.05198, section 4.1.
    """
    return 34 * EIGHT.head_elements * GPT.layers, 5 * EIGHT.score_elements * GPT.layers


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    keep, again = (t.steps for t in _eight_layers().values())
    flops, more_flops = (sum(step.flops for step in steps) for steps in (keep, again))
    moved, more_moved = (sum(step.bytes_moved for step in steps) for steps in (keep, again))
    batch = {way: _largest_batch(way, A100) for way in WAYS}
    rest, scores = _kept_by_gpt()
    (reads,), (trains,) = measured(SHORT, [2048]), measured(SHORT, [2048], training=True)
    return {
        "reads_mb": reads.peak_bytes / 1e6,
        "trains_mb": trains.peak_bytes / 1e6,
        "more_mb": (trains.peak_bytes - reads.peak_bytes) / 1e6,
        "kept_mb": trains.saved_bytes / 1e6,
        "origin": records.origin(),
        "cpu": str(provenance("cpu")),
        "bars": figures.stacks(_alive()),
        "large_mib": LARGE // 2**20,
        "rest_mib": REST / 2**20,
        "scale_bytes": SCALE_BYTES,
        "live": figures.live(_eight_layers(), STACKED.score_bytes),
        "more_flops": more_flops / flops - 1,
        "more_bytes_moved": more_moved / moved - 1,
        "shorter": ((GPT.layers + 4) / 2) ** 0.5,
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
    """What the text says of its numbers."""
    return _claims_on_one_layer() | _claims_on_stacks()


def _claims_on_one_layer() -> dict[str, bool]:
    inference, training = measured(SHORT, LENGTHS), measured(SHORT, LENGTHS, training=True)
    single = replace(SHORT, dtype=torch.float32)
    cpu = measure(standard_attention, single, training=True, device="cpu")
    dropped = trace(dropout_attention, STACKED, training=True)
    rows = STACKED.heads * STACKED.seq_len
    fused = [trace(x, STACKED, training=True) for x in (efficient_sdpa, flash_sdpa, cudnn_sdpa)]
    orange = [list(sizes.values()).count(max(sizes.values())) for sizes in _alive().values()]
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
        "two orange blocks in inference, four in training, three on a CPU": orange == [2, 4, 3],
        "CUDA measures 4S + 6X": all(m.peak_bytes == total(m.workload, 4, 6) for m in training),
        "that holds from N = 3d/4 on": [
            trace(standard_attention, w, training=True).peak_bytes == total(w, 4, 6)
            for w in (replace(SHORT, seq_len=n) for n in (47, 48))
        ]
        == [False, True],
        "on a CPU the scale comes on top": cpu.peak_bytes == total(single, 3, 6) + SCALE_BYTES,
        "of three lengths, those with X of 10 MiB or more reserve 5S, and the other less": all(
            (m.workload.head_bytes >= LARGE) == (m.peak_reserved_bytes >= total(m.workload, 5, 0))
            for m in measured(SHORT, LONG, training=True)
        ),
        "5S are reserved at N = 5120, too, where X is less than 10 MiB": (
            REST < FILLED.head_bytes < LARGE and _reserved(FILLED) >= total(FILLED, 5, 0)
        ),
        "a fused kernel keeps four bytes a row and a few more, and its peak has no S": all(
            4 * rows <= t.saved_bytes < 4 * rows + 512 and t.peak_bytes < STACKED.score_bytes
            for t in fused
        ),
        "with dropout, 2 + 1 + 2 bytes are kept for each score in 16 bit": (
            round(dropped.saved_bytes / STACKED.score_elements, 2) == 5
        ),
    }


def _claims_on_stacks() -> dict[str, bool]:
    keep, again = _eight_layers().values()

    def peaks(way: str = "keep P", *, training: bool = True, device: str = "cuda") -> list[int]:
        stacks = [partial(stack, layers=n, way=way) for n in LAYERS]
        return [trace(program, STACKED, training, device).peak_bytes for program in stacks]

    return {
        "the peak of L layers is (L + 3) S + (L + 5) X on CUDA": (
            peaks() == [total(STACKED, n + 3, n + 5) for n in LAYERS]
        ),
        "and (L + 2) S + (L + 5) X on a CPU, beside a scale for each layer": (
            peaks(device="cpu") == [total(STACKED, n + 2, n + 5) + n * SCALE_BYTES for n in LAYERS]
        ),
        "inference needs 2S + 5X from the second layer on": (
            set(peaks(training=False)[1:]) == {total(STACKED, 2, 5)}
        ),
        "with recomputation the peak is 4S + (L + 5) X": (
            peaks("recompute P") == [total(STACKED, 4, n + 5) for n in LAYERS]
        ),
        "24 layers reserve about (L + 4) S": (
            round(_reserved(LONGER, GPT.layers) / LONGER.score_bytes) == GPT.layers + 4
        ),
        "no spike of recomputation is as high as half of the highest": (
            again.peak_bytes < keep.peak_bytes / 2
        ),
        "all layers of GPT-2 medium peak at (L + 3) S + (L + 5) X": (
            _layers_of_gpt("keep P", EIGHT).peak_bytes
            == total(EIGHT, GPT.layers + 3, GPT.layers + 5)
        ),
        "what its layers keep fits into an RTX 3090": sum(_kept_by_gpt()) < RTX3090.memory_bytes,
    }
