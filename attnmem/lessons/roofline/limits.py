"""Where attention is memory-bound, and where it is not."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from attnmem.formulas import standard_steps
from attnmem.lessons.intensity import WITH_VECTOR_RATE, limited_by_arithmetic, table_of_bounds
from attnmem.lessons.roofline.steps import CEILINGS, LONGEST, STEPS, at, forward
from attnmem.lessons.shared import W
from attnmem.lessons.table import Table
from attnmem.roofline import NEAR
from attnmem.workload import Workload

WIDE = replace(W, head_dim=256)
FULL = replace(W, dtype=torch.float32)


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
        dict.fromkeys(("case", *STEPS), ""),
        ((case, *(step.limit for step in forward(u))) for case, u in cases.items()),
    )


def table_of_products_in_32_bit(w: Workload, head_dims: Sequence[int]) -> Table:
    """What limits QKᵀ in 32 bit on each card whose data sheet has a vector rate."""
    return table_of_bounds(replace(w, dtype=torch.float32), head_dims, WITH_VECTOR_RATE)


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    computing = limited_by_arithmetic(FULL, WITH_VECTOR_RATE)
    return {
        "wide": standard_steps(WIDE)[0].intensity,
        "balance_fill": CEILINGS.matmul["float16"] / CEILINGS.largest["fill"],
        "balance_sum": CEILINGS.matmul["float16"] / CEILINGS.largest["sum"],
        "qk_f32": forward(FULL)[0].share,
        **{f"fp32_{d}": count for d, count in computing.items()},
        "cards": len(WITH_VECTOR_RATE),
    }


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    found = numbers()
    full_qk, *_ = forward(FULL)
    longest, long, wide, full, short = (
        [step.limit for step in steps]
        for steps in (*map(forward, (LONGEST, W, WIDE, FULL)), at(512))
    )
    return {
        "the first row is where attention is memory-bound": set(longest) == {"memory"},
        "the second nearly": long == ["memory", "memory", "kernel", "memory"],
        "at d = 256 the products lie between the balance of writing and that of reading": (
            found["balance_fill"] < found["wide"] < found["balance_sum"]
        ),
        "there arithmetic limits QKᵀ, and memory PV; softmax waits for its kernel": (
            wide == ["compute", "memory", "kernel", "memory"]
        ),
        "in 32 bit arithmetic limits PV, not softmax": full[1:] == ["memory", "kernel", "compute"],
        "and QKᵀ, just short of two thirds of the same roof, does not": (
            full_qk.roof == "compute" and 0 < NEAR - full_qk.share < 0.01
        ),
        "short sequences wait for launches": set(short) == {"launches"},
    }
