"""What fusing gives: kernels that store no S, and a layer of Llama 3."""

from dataclasses import replace
from functools import cache
from typing import Any

from attnmem.catalog import accelerator, model
from attnmem.formulas import standard_steps
from attnmem.lessons.roofline.steps import CARD, CEILINGS, H100, forward
from attnmem.lessons.shared import W, known
from attnmem.lessons.table import Table
from attnmem.prediction.trace import trace
from attnmem.programs import Program, cudnn_sdpa, efficient_sdpa, flash_sdpa, standard_attention
from attnmem.roofline import measured_roof
from attnmem.workload import Workload, dtype_name

FUSED = (efficient_sdpa, flash_sdpa, cudnn_sdpa)
MODEL = model("Llama 3 8B")
LLAMA = MODEL.workload()
LIKE = replace(W, seq_len=LLAMA.seq_len, head_dim=LLAMA.head_dim)  # recorded


def table_of_programs(w: Workload) -> Table:
    """Peak, traffic and time of each program, and how much of the time its work takes at least."""
    least = ideal_parts(w)
    rows = []
    for program in (standard_attention, *FUSED):
        read, written, seconds = recorded(program, w)
        peak = trace(program, w).peak_bytes
        shares = least["products"] / seconds, least["exponentials"] / seconds
        rows.append(
            (program.__name__, peak / 1e6, read / 1e6, written / 1e6, 1e6 * seconds, *shares)
        )
    return Table(
        {"program": ""}
        | dict.fromkeys(("peak (MB)", "read (MB)", "written (MB)", "time (µs)"), ",.0f")
        | dict.fromkeys(("least for products", "least for exponentials"), ".0%"),
        rows,
    )


@cache
def recorded(program: Program, w: Workload) -> tuple[int, int, float]:
    """The bytes that a forward pass reads and writes, as counted, and the seconds it takes."""
    run = H100.timed(program, w)
    read = sum(step.read or 0 for step in run.steps)
    written = sum(step.written or 0 for step in run.steps)
    return read, written, known(run.whole).seconds


def table_of_layer(w: Workload, like: Workload) -> Table:
    """The least time of each step of ``w``, and the time it takes with the shares of ``like``."""
    rows = []
    for step, same in zip(standard_steps(w), forward(like), strict=True):
        roof, least = measured_roof(step, CEILINGS)
        times = 1e3 * least, same.share, 1e3 * least / same.share
        rows.append((step.name, step.bytes_moved / 1e9, roof, *times))
    return Table(
        {
            "step": "",
            "moves (GB)": ".2f",
            "roof": "",
            "least time (ms)": ".2f",
            f"share with {like.heads} heads": ".0%",
            "expected (ms)": ".2f",
        },
        rows,
    )


def ideal_parts(w: Workload) -> dict[str, float]:
    """The seconds that each kind of work of a fused kernel takes at least."""
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
    read, written, seconds = recorded(standard_attention, W)
    reads, _, times = zip(*(recorded(program, W) for program in FUSED), strict=True)
    fastest, parts = min(times), ideal_parts(W)
    least = [measured_roof(step, CEILINGS)[1] for step in standard_steps(LLAMA)]
    steps = [t / same.share for t, same in zip(least, forward(LIKE), strict=True)]
    _, scale, softmax, _ = steps
    unfused, expected, ideal = sum(least), sum(steps), max(ideal_parts(LLAMA).values())
    return {
        "three_x_mb": 3 * W.head_bytes / 1e6,
        "beyond_three": max(reads) / (3 * W.head_bytes) - 1,
        "one_x_mb": W.head_bytes / 1e6,
        "least_moved": (read + written) / (4 * W.head_bytes),
        "fastest": seconds / fastest,
        "fastest_us": 1e6 * fastest,
        "floor_us": 1e6 * parts["traffic"],
        "fastest_products": parts["products"] / fastest,
        "fastest_exponentials": parts["exponentials"] / fastest,
        "llama_n": LLAMA.seq_len,
        "llama_heads": LLAMA.heads,
        "llama_layers": MODEL.layers,
        "llama_expected_ms": 1e3 * expected,
        "llama_least_ms": 1e3 * unfused,
        "llama_softmax": softmax / expected,
        "llama_pointwise_ms": 1e3 * (expected - softmax + scale),
        "llama_fused_ms": 1e3 * ideal,
        "llama_gain": unfused / ideal,
        "llama_gain_real": expected / ideal,
        "llama_all_s": MODEL.layers * expected,
        "llama_all_fused_ms": 1e3 * MODEL.layers * ideal,
        "h100_per_clock": products_per_clock("H100 SXM"),  # in exercise 7
    }


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    x = W.head_bytes
    reads, writes, times = zip(*(recorded(program, W) for program in FUSED), strict=True)
    _, _, unfused = recorded(standard_attention, W)
    traffic, products, exponentials = ideal_parts(W).values()
    llama = ideal_parts(LLAMA)
    short = replace(W, seq_len=4096)
    efficient, flash, cudnn = (
        sum(step.received or 0 for step in H100.timed(program, short).steps) for program in FUSED
    )
    peak = H100.measurement(standard_attention, W).peak_bytes
    roofs = {measured_roof(step, CEILINGS)[0] for step in standard_steps(LLAMA)}
    _, _, softmax, _ = forward(LIKE)  # the record has the same N and d with 12 heads in f16
    h100, h200, b200 = map(products_per_clock, ("H100 SXM", "H200 SXM", "B200"))
    return {
        "they read 3X and little more": 3 * x <= min(reads) <= max(reads) < 1.02 * 3 * x,
        "more than half of O is still in the cache": max(writes) < x / 2,
        "all are faster than standard attention": max(times) < unfused,
        "memory limits them no longer": traffic < 0.1 * min(times),
        "products and exponentials together would be longer than the kernel took": (
            max(products, exponentials) < min(times) < products + exponentials
        ),
        "memory is the roof of all four steps": roofs == {"memory"},
        "though softmax's kernel keeps it far below": softmax.share < 0.5,
        "for an ideal kernel matrix units are the limit": max(llama.values()) == llama["products"],
        "the peak of the run was 2S + 4X, to the byte": peak == 2 * W.score_bytes + 4 * x,
        "cuDNN's kernel receives as much as flash": abs(cudnn / flash - 1) < 0.001,
        "the memory-efficient one receives 3N/64 times X": (
            abs(efficient / (3 * short.seq_len / 64 * short.head_bytes) - 1) < 0.001
        ),
        "an H200 computes as many products in each clock, and a B200 twice as many": (
            abs(h200 / h100 - 1) < 0.001 and abs(b200 / h100 - 2) < 0.001
        ),
    }
