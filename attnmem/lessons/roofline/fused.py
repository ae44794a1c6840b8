"""What fusing gives: kernels that store no S, and a layer of Llama 3."""

from dataclasses import replace
from functools import cache
from typing import Any

from attnmem.catalog import accelerator, model
from attnmem.catalog.accelerators import SPECIAL_PER_CLOCK
from attnmem.formulas import standard_steps
from attnmem.lessons.roofline.steps import CARD, CEILINGS, H100, H200, forward
from attnmem.lessons.shared import W, at_most, known
from attnmem.lessons.table import Table
from attnmem.programs import Program, cudnn_sdpa, efficient_sdpa, flash_sdpa, standard_attention
from attnmem.roofline import measured_roof
from attnmem.workload import Workload, dtype_name

FUSED = (efficient_sdpa, flash_sdpa, cudnn_sdpa)
MODEL = model("Llama 3 8B")
LLAMA = MODEL.workload()
PRODUCTS = sum(step.flops for step in standard_steps(LLAMA) if step.matrix)
LIKE = replace(W, seq_len=LLAMA.seq_len, head_dim=LLAMA.head_dim)  # recorded


@cache
def recorded(program: Program, w: Workload) -> tuple[int, int, int, float]:
    """Bytes that a forward pass reads, writes and receives, as counted, and its seconds."""
    run = H100.timed(program, w)
    counts = [(step.read or 0, step.written or 0, step.received or 0) for step in run.steps]
    read, written, received = map(sum, zip(*counts, strict=True))
    return read, written, received, known(run.whole).seconds


def table_of_programs(w: Workload) -> Table:
    """What each program moves, as counted, and its time."""
    rows = []
    for program in (standard_attention, *FUSED):
        read, written, _, seconds = recorded(program, w)
        rows.append((program.__name__, (read + written) / 1e6, 1e3 * seconds))
    return Table({"program": "", "moves (MB)": ",.1f", "time (ms)": ".3f"}, rows)


def ideal_parts(w: Workload) -> dict[str, float]:
    """The seconds that each kind of work of a fused kernel takes at least.

    Products at their measured rate, exponentials at the clock of the data sheet: the clock that
    was measured after the products is too low for a bound, since they were faster than it allows.
    """
    reading, writing = CEILINGS.largest["sum"], CEILINGS.largest["fill"]
    flops = sum(step.flops for step in standard_steps(w) if step.matrix)
    return {
        "traffic": 3 * w.head_bytes / reading + w.head_bytes / writing,
        "products": flops / CEILINGS.matmul[dtype_name(w.dtype)],
        "exponentials": w.score_elements / known(CARD.special_rate),
    }


def products_per_clock(name: str) -> float:
    """The FLOPs of products that a multiprocessor of a card computes in each clock."""
    card = accelerator(name)
    clocks = known(card.multiprocessors) * known(card.clock_ghz) * 1e9
    return known(card.peak_flops(matrix=True)) / clocks


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    read, written, _, seconds = recorded(standard_attention, W)
    reads, writes, _, times = zip(*(recorded(program, W) for program in FUSED), strict=True)
    fastest, parts = min(times), ideal_parts(W)
    least = [measured_roof(step, CEILINGS)[1] for step in standard_steps(LLAMA)]
    steps = [t / same.share for t, same in zip(least, forward(LIKE), strict=True)]
    _, scale, softmax, _ = steps
    unfused, expected, ideal = sum(least), sum(steps), max(ideal_parts(LLAMA).values())
    return {
        "beyond_three": at_most(max(reads) / (3 * W.head_bytes) - 1, 0.001),
        "counted_moved": (read + written) / (reads[-1] + writes[-1]),  # of the fastest
        "fastest": seconds / fastest,
        "fastest_ms": 1e3 * fastest,
        "floor_ms": 1e3 * parts["traffic"],
        "products_ms": 1e3 * parts["products"],
        "exponentials_ms": 1e3 * parts["exponentials"],
        "over_flash": times[1] / fastest,
        "llama_n": LLAMA.seq_len,
        "llama_heads": LLAMA.heads,
        "llama_layers": MODEL.layers,
        "llama_expected_ms": 1e3 * expected,
        "llama_least_ms": 1e3 * unfused,
        "llama_pointwise_ms": 1e3 * (expected - softmax + scale),
        "llama_fused_ms": 1e3 * ideal,
        "llama_tflop": PRODUCTS / 1e12,
        "llama_tflops": CEILINGS.matmul["bfloat16"] / 1e12,
        "llama_saved": (softmax - scale) / expected,
        "llama_saved_fused": 1 - ideal / expected,
        "llama_gain": unfused / ideal,
        "llama_gain_real": expected / ideal,
        "llama_all_s": MODEL.layers * expected,
        "llama_all_fused_ms": 1e3 * MODEL.layers * ideal,
        "h100_per_clock": products_per_clock("H100 SXM"),  # in exercise 7
    }


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    x, short = W.head_bytes, replace(W, seq_len=4096)
    reads, writes, _, times = zip(*(recorded(program, W) for program in FUSED), strict=True)
    on_h200 = [known(H200.timed(program, W).whole).seconds for program in FUSED]
    efficient, flash, cudnn = (recorded(program, short)[2] for program in FUSED)
    traffic, products, exponentials = ideal_parts(W).values()
    llama = ideal_parts(LLAMA)
    h100, h200, b200 = map(products_per_clock, ("H100 SXM", "H200 SXM", "B200"))
    name = H100.timed(cudnn_sdpa, W).steps[-1].kernels[0]
    return {
        "they read 3X and little more": (
            3 * x <= min(reads) and max(reads) / (3 * x) - 1 <= numbers()["beyond_three"] < 0.02
        ),
        "more than half of O is still in the cache": max(writes) < x / 2,
        "all are faster than standard attention": max(times) < recorded(standard_attention, W)[-1],
        "memory limits them no longer": traffic < 0.1 * min(times),
        "none is faster on an H200": all(a <= b for a, b in zip(times, on_h200, strict=True)),
        "cuDNN's kernel is the fastest, and says that it uses wgmma": (
            times[2] == min(times) and "wgmma" in name
        ),
        "products and exponentials together would be longer than the kernel took": (
            max(products, exponentials) < min(times) < products + exponentials
        ),
        "arithmetic is the longest part of it": max(products, exponentials) > 10 * traffic,
        "at one clock a score's exponential takes as long as its products at d = 64": (
            abs(h100 / SPECIAL_PER_CLOCK / (4 * W.head_dim) - 1) < 0.001
        ),
        "the products were faster than the clock after them allows": (
            CEILINGS.matmul["bfloat16"]
            > h100 * known(CARD.multiprocessors) * CEILINGS.clock["bfloat16"]
        ),
        "Llama 3 8B has 32 heads of 128, the record 12": (
            (LLAMA.heads, LLAMA.head_dim, LIKE.heads) == (32, 128, 12) and LIKE.seq_len == W.seq_len
        ),
        "memory is the roof of all four steps, so bytes and times grow with the heads": (
            {measured_roof(step, CEILINGS)[0] for step in standard_steps(LLAMA)} == {"memory"}
        ),
        "for an ideal kernel matrix units are the limit": max(llama.values()) == llama["products"],
        "the peak of the run was 2S + 4X, to the byte": (
            H100.measurement(standard_attention, W).peak_bytes == 2 * W.score_bytes + 4 * x
        ),
        "cuDNN's kernel receives as much as flash": abs(cudnn / flash - 1) < 0.001,
        "the memory-efficient one receives 3N/64 times X": (
            abs(efficient / (3 * short.seq_len / 64 * short.head_bytes) - 1) < 0.001
        ),
        "an H200 computes as many products in each clock, and a B200 twice as many": (
            abs(h200 / h100 - 1) < 0.001 and abs(b200 / h100 - 2) < 0.001
        ),
    }
