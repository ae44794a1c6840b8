"""Where attention is memory-bound, and where it is not."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from attnmem.catalog import ACCELERATORS
from attnmem.formulas import standard_steps
from attnmem.lessons.roofline.steps import CEILINGS, HEAD_DIMS, LONG, W, at, forward
from attnmem.lessons.table import Table
from attnmem.roofline import NEAR, bound
from attnmem.workload import Workload

WIDE = replace(W, head_dim=256)
FULL = replace(W, dtype=torch.float32)
CARDS = [card for card in ACCELERATORS if card.vector_tflops]


def table_of_limits(w: Workload) -> Table:
    """What limits each step, where the sentence holds and where it does not."""
    cases = {
        "N = 16384, d = 64, f16": replace(w, seq_len=16384),
        "N = 8192, d = 64, f16": w,
        "d = 256": replace(w, head_dim=256),
        "f32": replace(w, dtype=torch.float32),
        "N = 512": replace(w, seq_len=512),
    }
    return Table(
        [{"case": case} | {s.name: s.limit for s in forward(u)} for case, u in cases.items()]
    )


def table_of_products_in_32_bit(w: Workload, head_dims: Sequence[int]) -> Table:
    """What limits QKᵀ in 32 bit on each card whose data sheet has a vector rate."""
    full = replace(w, dtype=torch.float32)
    products = {d: standard_steps(replace(full, head_dim=d))[0] for d in head_dims}
    return Table(
        [
            {"card": card.name} | {f"d = {d}": bound(qk, card) for d, qk in products.items()}
            for card in CARDS
        ]
    )


def limited_by_arithmetic(head_dim: int) -> int:
    """On how many of these cards arithmetic limits QKᵀ in 32 bit."""
    qk, *_ = standard_steps(replace(FULL, head_dim=head_dim))
    return sum(bound(qk, card) == "compute" for card in CARDS)


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    wide, *_ = standard_steps(WIDE)
    full, *_ = forward(FULL)
    return {
        "wide": wide.intensity,
        "balance_fill": CEILINGS.matmul["float16"] / CEILINGS.largest["fill"],
        "balance_sum": CEILINGS.matmul["float16"] / CEILINGS.largest["sum"],
        "qk_f32": full.share,
        **{f"fp32_{d}": limited_by_arithmetic(d) for d in HEAD_DIMS},
        "cards": len(CARDS),
    }


def claims() -> dict[str, bool]:
    """What the text says of these numbers: sentence -> whether it holds."""
    found = numbers()
    wide_qk, wide_scale, _, wide_pv = forward(WIDE)
    full_qk, full_scale, _, full_pv = forward(FULL)
    return {
        "the first row is where attention is memory-bound": (
            {step.limit for step in forward(LONG)} == {"memory"}
        ),
        "the second nearly": [s.limit for s in forward(W)]
        == ["memory", "memory", "kernel", "memory"],
        "at d = 256 the products lie between the balance of writing and that of reading": (
            found["balance_fill"] < found["wide"] < found["balance_sum"]
        ),
        "there arithmetic limits QKᵀ, and memory PV": (
            (wide_qk.limit, wide_scale.limit, wide_pv.limit) == ("compute", "memory", "memory")
        ),
        "in 32 bit arithmetic limits PV": (full_scale.limit, full_pv.limit)
        == ("memory", "compute"),
        "and QKᵀ, just short of two thirds of the same roof, does not": (
            full_qk.roof == "compute" and 0 < NEAR - full_qk.share < 0.01
        ),
        "softmax at this length waits for its kernel, whatever its roof": all(
            forward(u)[2].limit == "kernel" for u in (W, WIDE, FULL)
        ),
        "short sequences wait for launches": {step.limit for step in at(512)} == {"launches"},
    }
