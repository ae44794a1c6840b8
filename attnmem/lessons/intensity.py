"""The page on arithmetic intensity: its tables, what its text looks up, and what it says."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from attnmem import figures
from attnmem.catalog import ACCELERATORS, Accelerator, accelerator, model
from attnmem.catalog.levels import levels
from attnmem.figures.style import Picture
from attnmem.formulas import standard_steps
from attnmem.lessons.shared import SHORT, W, known, total
from attnmem.lessons.table import Table
from attnmem.roofline import attainable_seconds, bound, limits, ridge_point
from attnmem.workload import Workload

LENGTHS = (512, 1024, 2048, 4096, 8192)
HEAD_DIMS = (64, 128, 256)
SHOWN = tuple(accelerator(name) for name in ("RTX 3090", "A100 80 GB SXM4", "H100 SXM"))
_, A100, H100 = SHOWN
LLAMA, GPT = model("Llama 3 8B"), model("GPT-2 medium")
BATCH = 16
# What the data sheet of some cards does not have is not compared.
WITH_VECTOR_RATE = [card for card in ACCELERATORS if card.vector_tflops]


def table_of_intensities(w: Workload, lengths: Sequence[int]) -> Table:
    """The FLOPs per byte of each step of standard attention, a row for each length."""
    return Table(
        {"N": ""} | {f"{step.name} (FLOP/B)": ".2f" for step in standard_steps(w)},
        ((n, *(s.intensity for s in standard_steps(replace(w, seq_len=n)))) for n in lengths),
    )


def table_of_balance_points(cards: Sequence[Accelerator]) -> Table:
    """Bandwidth, rates and balance points of each card, as its data sheet has them."""
    rows = []
    for card in cards:
        rates = card.bandwidth_gb_s, card.matrix_tflops, card.vector_tflops
        vector = ridge_point(card, matrix=False) if card.vector_tflops else None
        rows.append((card.name, *rates, ridge_point(card, matrix=True), vector))
    return Table(
        {"card": "", "GB/s": "g", "matrix TFLOP/s": "g", "vector TFLOP/s": ""}
        | {"balance, matrix (FLOP/B)": ".1f", "balance, vector (FLOP/B)": ".0f"},
        rows,
    )


def table_of_bounds(w: Workload, head_dims: Sequence[int], cards: Sequence[Accelerator]) -> Table:
    """What limits QKᵀ on each card, a column for each head dimension."""
    products = [standard_steps(replace(w, head_dim=d))[0] for d in head_dims]
    return Table(
        {"card": ""} | {f"d = {d}": "" for d in head_dims},
        ((card.name, *(bound(qk, card) for qk in products)) for card in cards),
    )


def table_of_shares(w: Workload, card: Accelerator) -> Table:
    """What limits each step on one card, its least time, and its shares of all time and FLOPs."""
    steps = [(step, attainable_seconds(step, card)) for step in standard_steps(w)]
    seconds, flops = least_seconds(w, card), sum(step.flops for step, _ in steps)
    return Table(
        {
            "step": "",
            "limited by": "",
            "least time (ms)": ".2f",
            "share of the least time": ".0%",
            "share of the FLOPs": ".1%",
        },
        (
            (step.name, bound(step, card), 1e3 * least, least / seconds, step.flops / flops)
            for step, least in steps
        ),
    )


def table_of_least_times(cases: Mapping[str, Workload], cards: Sequence[Accelerator]) -> Table:
    """The least time of each step of each layer on each card, beside the products' arithmetic."""
    rows = []
    for name, w in cases.items():
        for card in cards:
            seconds = [attainable_seconds(step, card) for step in standard_steps(w)]
            seconds += [sum(seconds), product_seconds(w, card)]
            rows.append((name, card.name, *(1e3 * s for s in seconds), waiting(w, card)))
    times = [*(step.name for step in standard_steps(W)), "sum", "arithmetic of products"]
    return Table(
        {"layer": "", "card": ""}
        | {f"{name} (ms)": ".2f" for name in times}
        | {"sum / arithmetic": ".1f"},
        rows,
    )


def table_of_sources(cards: Sequence[Accelerator]) -> Table:
    """Where the figures of each card come from."""
    return Table(
        dict.fromkeys(("card", "source", "read", "note"), ""),
        ((card.name, card.source, card.read, card.note) for card in cards),
    )


def table_of_other_figures(cards: Sequence[Accelerator]) -> Table:
    """The TF32 rate and the L2 cache of each card."""
    return Table(
        {"card": "", "TF32 TFLOP/s": "", "L2 (MiB)": ""},
        ((card.name, card.tf32_tflops, card.l2_mib) for card in cards),
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


def limited_by_arithmetic(w: Workload, cards: Sequence[Accelerator]) -> dict[int, int]:
    """Head dimension -> on how many cards arithmetic limits QKᵀ."""
    products = {d: standard_steps(replace(w, head_dim=d))[0] for d in HEAD_DIMS}
    return {d: sum(bound(qk, card) == "compute" for card in cards) for d, qk in products.items()}


def _balance_points() -> tuple[list[float], list[float]]:
    """Of the matrix units of all cards, and of the vector units where they have a rate."""
    return (
        [ridge_point(card, matrix=True) for card in ACCELERATORS],
        [ridge_point(card, matrix=False) for card in WITH_VECTOR_RATE],
    )


def _roof() -> Picture:
    """The steps of attention where the data sheet of an H100 lets them be."""
    _, scale, softmax, _ = standard_steps(W)
    products = {f"$QK^T$, $d = {d}$": standard_steps(replace(W, head_dim=d))[0] for d in (64, 256)}
    steps = {"scale": scale, "softmax": softmax} | products
    flops, vector = (known(H100.peak_flops(matrix=m)) for m in (True, False))
    return figures.roof(
        figures.Roof(H100.name, H100.bandwidth, flops),
        [
            figures.Point(name, step.intensity, min(step.intensity * H100.bandwidth, flops))
            for name, step in steps.items()
        ],
        figures.Roof("vector units", H100.bandwidth, vector),
    )


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    _, scale, softmax, _ = steps = standard_steps(W)
    pointwise_seconds = sum(attainable_seconds(step, H100) for step in (scale, softmax))
    exp_seconds = limits(softmax, H100)["special functions"]
    could = ridge_point(H100, matrix=False) * scale.bytes_moved / W.score_elements
    matrix_points, vector_points = _balance_points()
    computing = limited_by_arithmetic(W, ACCELERATORS)
    shared = LLAMA.heads // LLAMA.kv_heads
    return {
        "roof": _roof(),
        "levels": figures.hierarchy(levels(H100), "S at N = 8192", W.score_bytes),
        "levels_s_gb": W.score_bytes / 1e9,
        "levels_shared_over": _rate("shared memory") / H100.bandwidth,
        "levels_over_host": H100.bandwidth / _rate("host, by PCIe"),
        "scale_could": could / 2,  # one multiplication takes the slot of a multiply-add, two FLOPs
        "scale_could_flops": could,
        "scale_intensity": scale.intensity,
        "softmax_intensity": softmax.intensity,
        "lowest": min(matrix_points),
        "highest": max(matrix_points),
        "lowest_vector": min(vector_points),
        "curves": figures.intensities(W, LENGTHS, HEAD_DIMS, SHOWN),
        "cards": len(ACCELERATORS),
        **{f"compute_{d}": count for d, count in computing.items()},
        "pointwise_flops": (scale.flops + softmax.flops) / sum(step.flops for step in steps),
        "pointwise_time": pointwise_seconds / least_seconds(W, H100),
        "wait": waiting(W, H100),
        "special_tera": softmax.special / exp_seconds / 1e12,
        "exp_ms": 1e3 * exp_seconds,
        "products_ms": 1e3 * product_seconds(W, H100),
        "h100_l2": known(H100.l2_bytes) / 1e6,
        **{f"s_{n}_mb": replace(SHORT, seq_len=n).score_bytes / 1e6 for n in (512, 1024, 2048)},
        "llama_d": LLAMA.head_dim,
        "llama_n": LLAMA.context,
        "llama_heads": LLAMA.heads,
        "llama_kv_heads": LLAMA.kv_heads,
        "gpt_d": GPT.head_dim,
        "gpt_n": GPT.context,
        "gpt_batch": BATCH,
        "more_flops": H100.matrix_tflops / A100.matrix_tflops,
        "more_bandwidth": H100.bandwidth / A100.bandwidth,
        "shared": shared,
        "decoding": 1 / (1 / shared + 1 / LLAMA.head_dim + 1 / LLAMA.context),
        "h100_balance": ridge_point(H100, matrix=True),
    }


def _rate(name: str) -> float:
    """The bytes per second of a level of the H100."""
    return known(next(x.bytes_per_second for x in levels(H100) if x.name == name))


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    qk, scale, softmax, pv = steps = standard_steps(W)
    pointwise = max(scale.intensity, softmax.intensity)
    matrix_points, vector_points = _balance_points()
    product = {d: standard_steps(replace(W, head_dim=d))[0].intensity for d in HEAD_DIMS}
    rtx3090, a100, h100 = (ridge_point(card, matrix=True) for card in SHOWN)
    computing = list(limited_by_arithmetic(W, ACCELERATORS).values())
    llama, gpt, a_batch = LLAMA.workload(), GPT.workload(), GPT.workload(batch=BATCH)
    pair = (A100, H100)
    found = {bound(s, c) for w in (llama, gpt, a_batch) for s in standard_steps(w) for c in pair}
    registers, shared, l2, hbm, _ = levels(H100)
    f32, *_ = standard_steps(replace(W, dtype=torch.float32))
    shrinks = least_seconds(llama, A100) / least_seconds(llama, H100)
    return {
        "S fits into no level that is nearer than memory": all(
            level.bytes < W.score_bytes for level in levels(H100)[:3] if level.bytes
        ),
        "registers and shared memory hold less than L2, HBM a thousand times as much": (
            max(known(shared.bytes), known(registers.bytes)) < known(l2.bytes)
            and 1000 * known(l2.bytes) < known(hbm.bytes)
        ),
        "PV has FLOPs and intensity of QKᵀ": (pv.flops, pv.intensity) == (qk.flops, qk.intensity),
        "all bytes are 6S + 4X": sum(step.bytes_moved for step in steps) == total(W, 6, 4),
        "left of the bend, scale and softmax stand under the vector roof, too": all(
            step.intensity < ridge_point(H100, matrix=False) for step in (scale, softmax)
        ),
        "softmax and scaling are far below all matrix units": 10 * pointwise < min(matrix_points),
        "and below those of the vector units": pointwise < min(vector_points),
        "at d = 64 the product is below all three cards": product[64] < min(rtx3090, a100, h100),
        "at d = 128 it ends above the RTX 3090": rtx3090 < product[128] < min(a100, h100),
        "at d = 256 it ends above two of them": max(rtx3090, a100) < product[256] < h100,
        "products are memory-bound where d is small": computing[0] < computing[1] < computing[2],
        "memory limits scaling and softmax on every card that has a vector rate": all(
            bound(step, card) == "memory" for step in (scale, softmax) for card in WITH_VECTOR_RATE
        ),
        "all verdicts of the case are the same: memory": found == {"memory"},
        "S of a sequence of GPT-2 medium fits into either L2, that of 16 is ten times it": all(
            card.l2_bytes and 10 * gpt.score_bytes < 10 * card.l2_bytes < a_batch.score_bytes
            for card in pair
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
