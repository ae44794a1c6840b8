"""What fusing gives: kernels that store no S, and a layer of Llama 3."""

from dataclasses import replace
from typing import Any

from attnmem.catalog import accelerator, model
from attnmem.formulas import standard_steps
from attnmem.lessons.roofline.steps import CARD, CEILINGS, H100, W, forward, known
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
    parts = ideal_parts(w)
    return Table(
        [
            {
                "program": program.__name__,
                "peak (MB)": trace(program, w).peak_bytes / 1e6,
                "read (MB)": read(program, w) / 1e6,
                "written (MB)": written(program, w) / 1e6,
                "time (µs)": 1e6 * seconds(program, w),
                "least for products": parts["products"] / seconds(program, w),
                "least for exponentials": parts["exponentials"] / seconds(program, w),
            }
            for program in (standard_attention, *FUSED)
        ],
        dict.fromkeys(("peak (MB)", "read (MB)", "written (MB)", "time (µs)"), ",.0f")
        | dict.fromkeys(("least for products", "least for exponentials"), ".0%"),
    )


def read(program: Program, w: Workload) -> int:
    """The bytes that a recorded forward pass reads, as counted."""
    return sum(step.read or 0 for step in H100.timed(program, w).steps)


def written(program: Program, w: Workload) -> int:
    """The bytes that a recorded forward pass writes, as counted."""
    return sum(step.written or 0 for step in H100.timed(program, w).steps)


def seconds(program: Program, w: Workload) -> float:
    """How long a recorded forward pass takes as a whole."""
    return known(H100.timed(program, w).whole).seconds


def table_of_layer(w: Workload, like: Workload) -> Table:
    """The least time of each step of ``w``, and the time it would take with the shares of ``like``.

    ``like`` is recorded.
    """
    rows = []
    for step, same in zip(standard_steps(w), forward(like), strict=True):
        roof, least = measured_roof(step, CEILINGS)
        rows.append(
            {
                "step": step.name,
                "moves (GB)": step.bytes_moved / 1e9,
                "roof": roof,
                "least time (ms)": 1e3 * least,
                f"share with {like.heads} heads": same.share,
                "expected (ms)": 1e3 * least / same.share,
            }
        )
    return Table(
        rows,
        dict.fromkeys(("moves (GB)", "least time (ms)", "expected (ms)"), ".2f")
        | {f"share with {like.heads} heads": ".0%"},
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


def least_seconds(w: Workload) -> list[float]:
    """The least time of each step of standard attention, by measured ceilings."""
    return [measured_roof(step, CEILINGS)[1] for step in standard_steps(w)]


def expected_seconds(w: Workload, like: Workload) -> list[float]:
    """The time of each step, if it reaches the share of its roof that it reaches in ``like``."""
    return [t / same.share for t, same in zip(least_seconds(w), forward(like), strict=True)]


def products_per_clock(name: str) -> float:
    """The FLOPs of products that a multiprocessor of a card computes in each clock."""
    card = accelerator(name)
    clocks = known(card.multiprocessors) * known(card.clock_ghz) * 1e9
    return known(card.peak_flops(matrix=True)) / clocks


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    fastest = min(seconds(program, W) for program in FUSED)
    parts = ideal_parts(W)
    expected = expected_seconds(LLAMA, LIKE)
    _, scale, softmax, _ = expected
    unfused, ideal = sum(least_seconds(LLAMA)), max(ideal_parts(LLAMA).values())
    moved = read(standard_attention, W) + written(standard_attention, W)
    return {
        "three_x_mb": 3 * W.head_bytes / 1e6,
        "beyond_three": max(read(program, W) for program in FUSED) / (3 * W.head_bytes) - 1,
        "one_x_mb": W.head_bytes / 1e6,
        "least_moved": moved / (4 * W.head_bytes),
        "fastest": seconds(standard_attention, W) / fastest,
        "fastest_us": 1e6 * fastest,
        "floor_us": 1e6 * parts["traffic"],
        "fastest_products": parts["products"] / fastest,
        "fastest_exponentials": parts["exponentials"] / fastest,
        "llama_n": LLAMA.seq_len,
        "llama_heads": LLAMA.heads,
        "llama_layers": MODEL.layers,
        "llama_expected_ms": 1e3 * sum(expected),
        "llama_least_ms": 1e3 * unfused,
        "llama_softmax": softmax / sum(expected),
        "llama_pointwise_ms": 1e3 * (sum(expected) - softmax + scale),
        "llama_fused_ms": 1e3 * ideal,
        "llama_gain": unfused / ideal,
        "llama_gain_real": sum(expected) / ideal,
        "llama_all_s": MODEL.layers * sum(expected),
        "llama_all_fused_ms": 1e3 * MODEL.layers * ideal,
        "h100_per_clock": products_per_clock("H100 SXM"),  # in exercise 7
    }


def claims() -> dict[str, bool]:
    """What the text says of these numbers: sentence -> whether it holds."""
    x = W.head_bytes
    fastest = min(seconds(program, W) for program in FUSED)
    parts, llama = ideal_parts(W), ideal_parts(LLAMA)
    short = replace(W, seq_len=4096)
    received = {p: sum(s.received or 0 for s in H100.timed(p, short).steps) for p in FUSED}
    peak = H100.measurement(standard_attention, W).peak_bytes
    roofs = [measured_roof(step, CEILINGS)[0] for step in standard_steps(LLAMA)]
    softmax = [step for step in forward(LIKE) if step.name == "softmax"]
    return {
        "they read 3X and little more": all(
            3 * x <= read(program, W) < 1.02 * 3 * x for program in FUSED
        ),
        "more than half of O is still in the cache": all(
            written(program, W) < x / 2 for program in FUSED
        ),
        "all are faster than standard attention": all(
            seconds(program, W) < seconds(standard_attention, W) for program in FUSED
        ),
        "memory limits them no longer": parts["traffic"] < 0.1 * fastest,
        "products and exponentials together would be longer than the kernel took": (
            max(parts["products"], parts["exponentials"])
            < fastest
            < parts["products"] + parts["exponentials"]
        ),
        "the record has the same N and d with 12 heads in f16": len(forward(LIKE)) == 4,
        "memory is the roof of all four steps": roofs == ["memory"] * 4,
        "though softmax's kernel keeps it far below": softmax[0].share < 0.5,
        "for an ideal kernel the matrix units are the limit": max(llama.values())
        == llama["products"],
        "the peak of the run was 2S + 4X, to the byte": peak == 2 * W.score_bytes + 4 * x,
        "cuDNN's kernel receives as much as flash": (
            abs(received[cudnn_sdpa] / received[flash_sdpa] - 1) < 0.001
        ),
        "the memory-efficient one receives 3N/64 times X": (
            abs(received[efficient_sdpa] / (3 * short.seq_len / 64 * short.head_bytes) - 1) < 0.001
        ),
        "an H200 computes as many products in each clock, and a B200 twice as many": (
            abs(products_per_clock("B200") / products_per_clock("H100 SXM") - 2) < 0.001
            and abs(products_per_clock("H200 SXM") / products_per_clock("H100 SXM") - 1) < 0.001
        ),
    }
