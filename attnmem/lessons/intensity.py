"""The page on arithmetic intensity: its tables, its numbers, its claims."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import floor
from typing import Any

import torch

from attnmem import figures
from attnmem.catalog import ACCELERATORS, Accelerator, accelerator, model
from attnmem.formulas import standard_steps
from attnmem.lessons.table import Table
from attnmem.roofline import attainable_seconds, bound, limits, ridge_point
from attnmem.workload import Workload

LENGTHS = (512, 1024, 2048, 4096, 8192)
LONG = Workload(batch=1, heads=12, seq_len=LENGTHS[-1], head_dim=64, dtype=torch.float16)
SHOWN = tuple(accelerator(name) for name in ("RTX 3090", "A100 80 GB SXM4", "H100 SXM"))
_, A100, H100 = SHOWN
LLAMA, GPT = model("Llama 3 8B"), model("GPT-2 medium")
BATCH = 16


def table_of_intensities(w: Workload, lengths: Sequence[int]) -> Table:
    """The FLOPs per byte of each step of standard attention, a row for each length."""
    return Table(
        [
            {"N": n}
            | {f"{s.name} (FLOP/B)": s.intensity for s in standard_steps(replace(w, seq_len=n))}
            for n in lengths
        ],
        {f"{s.name} (FLOP/B)": ".2f" for s in standard_steps(w)},
    )


def table_of_work(w: Workload) -> Table:
    """The FLOPs and bytes of each step of standard attention."""
    return Table(
        [
            {
                "step": step.name,
                "GFLOPs": step.flops / 1e9,
                "read (MB)": step.bytes_read / 1e6,
                "written (MB)": step.bytes_written / 1e6,
                "FLOP/B": step.intensity,
            }
            for step in standard_steps(w)
        ],
        {"GFLOPs": ",.3f", "read (MB)": ",.1f", "written (MB)": ",.1f", "FLOP/B": ".2f"},
    )


def table_of_balance_points(cards: Sequence[Accelerator]) -> Table:
    """Bandwidth, rates and balance points of each card, as its data sheet has them."""
    return Table(
        [
            {
                "card": card.name,
                "GB/s": card.bandwidth_gb_s,
                "matrix TFLOP/s": card.matrix_tflops,
                "vector TFLOP/s": card.vector_tflops,
                "balance, matrix (FLOP/B)": ridge_point(card, matrix=True),
                "balance, vector (FLOP/B)": ridge_point(card, matrix=False)
                if card.vector_tflops
                else None,
            }
            for card in cards
        ],
        {
            "GB/s": "g",
            "matrix TFLOP/s": "g",
            "balance, matrix (FLOP/B)": ".1f",
            "balance, vector (FLOP/B)": ".0f",
        },
    )


def table_of_bounds(w: Workload, head_dims: Sequence[int], cards: Sequence[Accelerator]) -> Table:
    """What limits QKᵀ on each card, a column for each head dimension."""
    products = [standard_steps(replace(w, head_dim=d))[0] for d in head_dims]
    return Table(
        [
            {"card": card.name}
            | {f"d = {d}": bound(qk, card) for d, qk in zip(head_dims, products, strict=True)}
            for card in cards
        ]
    )


def table_of_shares(w: Workload, card: Accelerator) -> Table:
    """What limits each step on one card, its least time, and its shares of all time and FLOPs."""
    steps = standard_steps(w)
    flops = sum(step.flops for step in steps)
    return Table(
        [
            {
                "step": step.name,
                "limited by": bound(step, card),
                "least time (ms)": 1e3 * attainable_seconds(step, card),
                "share of the least time": attainable_seconds(step, card) / least_seconds(w, card),
                "share of the FLOPs": step.flops / flops,
            }
            for step in steps
        ],
        {
            "least time (ms)": ".2f",
            "share of the least time": ".0%",
            "share of the FLOPs": ".1%",
        },
    )


def table_of_verdicts(cases: Mapping[str, Workload], cards: Sequence[Accelerator]) -> Table:
    """What limits the steps of each layer on each card, and whether S fits into the cache."""
    return Table(
        [
            {
                "layer": name,
                "card": card.name,
                "QKᵀ, PV (FLOP/B)": standard_steps(w)[0].intensity,
                "balance (FLOP/B)": ridge_point(card, matrix=True),
                "all steps": ", ".join(sorted({bound(step, card) for step in standard_steps(w)})),
                "S (MB)": w.score_bytes / 1e6,
                "L2 (MB)": card.l2_bytes and card.l2_bytes / 1e6,
            }
            for name, w in cases.items()
            for card in cards
        ],
        {
            "QKᵀ, PV (FLOP/B)": ".0f",
            "balance (FLOP/B)": ".0f",
            "S (MB)": ",.1f",
            "L2 (MB)": ".1f",
        },
    )


def table_of_least_times(cases: Mapping[str, Workload], cards: Sequence[Accelerator]) -> Table:
    """The least time of each step of each layer on each card, beside the products' arithmetic."""
    rows = [
        {"layer": name, "card": card.name}
        | {f"{s.name} (ms)": 1e3 * attainable_seconds(s, card) for s in standard_steps(w)}
        | {
            "sum (ms)": 1e3 * least_seconds(w, card),
            "arithmetic of products (ms)": 1e3 * product_seconds(w, card),
            "sum / arithmetic": waiting(w, card),
        }
        for name, w in cases.items()
        for card in cards
    ]
    return Table(rows, dict.fromkeys(rows[0], ".2f") | {"sum / arithmetic": ".1f"})


def table_of_sources(cards: Sequence[Accelerator]) -> Table:
    """Where the figures of each card come from."""
    return Table(
        [
            {"card": card.name, "source": card.source, "read": card.read, "note": card.note}
            for card in cards
        ]
    )


def table_of_other_figures(cards: Sequence[Accelerator]) -> Table:
    """The TF32 rate and the L2 cache of each card."""
    return Table(
        [
            {"card": card.name, "TF32 TFLOP/s": card.tf32_tflops, "L2 (MiB)": card.l2_mib}
            for card in cards
        ]
    )


def least_seconds(w: Workload, card: Accelerator) -> float:
    """What the steps of standard attention take at least, one after the other."""
    return sum(attainable_seconds(step, card) for step in standard_steps(w))


def product_seconds(w: Workload, card: Accelerator) -> float:
    """What the matrix units need for both products if no byte has to move."""
    return sum(limits(step, card)["compute"] for step in standard_steps(w) if step.matrix)


def waiting(w: Workload, card: Accelerator) -> float:
    """The least time in units of the products' arithmetic."""
    return least_seconds(w, card) / product_seconds(w, card)


def limited_by_arithmetic(head_dim: int) -> int:
    """On how many cards arithmetic limits QKᵀ of long sequences."""
    qk, *_ = standard_steps(replace(LONG, head_dim=head_dim))
    return sum(bound(qk, card) == "compute" for card in ACCELERATORS)


def vector_points() -> list[float]:
    """The balance points of the vector units, of all cards that have a vector rate."""
    return [ridge_point(card, matrix=False) for card in ACCELERATORS if card.vector_tflops]


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    qk, scale, softmax, pv = standard_steps(LONG)
    pointwise_seconds = sum(attainable_seconds(step, H100) for step in (scale, softmax))
    flops = sum(step.flops for step in (qk, scale, softmax, pv))
    exp_seconds = limits(softmax, H100)["special functions"]
    points = [ridge_point(card, matrix=True) for card in ACCELERATORS]
    shared = LLAMA.heads // LLAMA.kv_heads
    return {
        "scale_intensity": scale.intensity,
        "softmax_intensity": softmax.intensity,
        "lowest": min(points),
        "highest": max(points),
        "lowest_vector": floor(min(vector_points())),
        "curves": figures.intensities(LONG, LENGTHS, [64, 128, 256], SHOWN),
        "cards": len(ACCELERATORS),
        "compute_64": limited_by_arithmetic(64),
        "compute_128": limited_by_arithmetic(128),
        "compute_256": limited_by_arithmetic(256),
        "pointwise_flops": (scale.flops + softmax.flops) / flops,
        "pointwise_time": pointwise_seconds / least_seconds(LONG, H100),
        "wait": waiting(LONG, H100),
        "special_tera": softmax.special / exp_seconds / 1e12,
        "exp_ms": 1e3 * exp_seconds,
        "products_ms": 1e3 * product_seconds(LONG, H100),
        "h100_l2": H100.l2_mib,
        "s_512_mb": replace(LONG, seq_len=512).score_bytes / 1e6,
        "s_1024_mb": replace(LONG, seq_len=1024).score_bytes / 1e6,
        "s_2048_mb": replace(LONG, seq_len=2048).score_bytes / 1e6,
        "llama_d": LLAMA.head_dim,
        "llama_n": LLAMA.context,
        "llama_heads": LLAMA.heads,
        "llama_kv_heads": LLAMA.kv_heads,
        "llama_layers": LLAMA.layers,
        "llama_a100_ms": 1e3 * LLAMA.layers * least_seconds(LLAMA.workload(), A100),
        "llama_h100_ms": 1e3 * LLAMA.layers * least_seconds(LLAMA.workload(), H100),
        "gpt_d": GPT.head_dim,
        "gpt_n": GPT.context,
        "gpt_batch": BATCH,
        "more_flops": H100.matrix_tflops / A100.matrix_tflops,
        "more_bandwidth": H100.bandwidth / A100.bandwidth,
        "shared": shared,
        "decoding": 1 / (1 / shared + 1 / LLAMA.head_dim + 1 / LLAMA.context),
        "h100_balance": ridge_point(H100, matrix=True),
    }


def claims() -> dict[str, bool]:
    """What the text says of these numbers: sentence -> whether it holds."""
    qk, scale, softmax, pv = standard_steps(LONG)
    steps = (qk, scale, softmax, pv)
    matrix_points = [ridge_point(card, matrix=True) for card in ACCELERATORS]
    product = {d: standard_steps(replace(LONG, head_dim=d))[0].intensity for d in (64, 128, 256)}
    rtx3090, a100, h100 = (ridge_point(card, matrix=True) for card in SHOWN)
    llama, gpt = LLAMA.workload(), GPT.workload()
    a_batch = replace(gpt, batch=BATCH)
    pair = (A100, H100)
    found = {bound(s, c) for w in (llama, gpt, a_batch) for s in standard_steps(w) for c in pair}
    f32, *_ = standard_steps(replace(LONG, dtype=torch.float32))
    shrinks = least_seconds(llama, A100) / least_seconds(llama, H100)
    return {
        "PV has the FLOPs and the intensity of QKᵀ": (
            (pv.flops, pv.intensity) == (qk.flops, qk.intensity)
        ),
        "the sum of all bytes is 6S + 4X": (
            sum(step.bytes_moved for step in steps) == 6 * LONG.score_bytes + 4 * LONG.head_bytes
        ),
        "softmax and scaling are far below every balance point of matrix units": (
            10 * max(scale.intensity, softmax.intensity) < min(matrix_points)
        ),
        "and below those of the vector units": (
            max(scale.intensity, softmax.intensity) < min(vector_points())
        ),
        "at d = 64 the product is below all three cards": product[64] < min(rtx3090, a100, h100),
        "at d = 128 it ends above the RTX 3090": rtx3090 < product[128] < min(a100, h100),
        "at d = 256 it ends above two of them": max(rtx3090, a100) < product[256] < h100,
        "products are memory-bound where d is small, and not in general": (
            limited_by_arithmetic(64) < limited_by_arithmetic(128) < limited_by_arithmetic(256)
        ),
        "memory limits scaling and softmax on every card that has a vector rate": all(
            bound(step, card) == "memory"
            for step in (scale, softmax)
            for card in ACCELERATORS
            if card.vector_tflops
        ),
        "all verdicts of the case are the same: memory": found == {"memory"},
        "S of one sequence of GPT-2 medium fits into either L2, that of 16 does not": all(
            card.l2_bytes and gpt.score_bytes < card.l2_bytes < a_batch.score_bytes for card in pair
        ),
        "with 16 sequences the intensity is the same": (
            standard_steps(a_batch)[0].intensity == standard_steps(gpt)[0].intensity
        ),
        "the least time shrinks by the factor of the bandwidths": (
            abs(shrinks - H100.bandwidth / A100.bandwidth) < 1e-9
        ),
        "the matrix units of the H100 wait for a larger part": all(
            waiting(w, A100) < waiting(w, H100) for w in (llama, a_batch)
        ),
        "at N = 256 no d is enough on the A100": a100 > 256 / 2,
        "in f32 the intensity is half, the balance point of the vector units lower by far more": (
            f32.intensity == qk.intensity / 2 and 4 * ridge_point(H100, matrix=False) < h100
        ),
    }
