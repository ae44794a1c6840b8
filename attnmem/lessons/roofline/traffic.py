"""Do the bytes agree? What the counters of the memory saw, beside what is predicted."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from attnmem import figures
from attnmem.lessons.roofline.steps import CARD, HEAD_DIMS, LENGTHS, LONGEST, STEPS, at, forward
from attnmem.lessons.shared import W, known
from attnmem.lessons.table import Table
from attnmem.workload import Workload, dtype_name

DTYPES = (torch.float16, torch.float32)
SHAPES = [replace(LONGEST, head_dim=d, dtype=dtype) for dtype in DTYPES for d in HEAD_DIMS]
TILE = (128, 256)
L2 = known(CARD.l2_bytes)


def table_of_bytes(w: Workload, lengths: Sequence[int]) -> Table:
    """Bytes counted over bytes predicted, read and written together, a row for each length."""
    workloads = [replace(w, seq_len=n) for n in lengths]
    return Table(
        {"N": "", "S (MB)": ",.1f"} | dict.fromkeys(STEPS, ".3f"),
        ((u.seq_len, u.score_bytes / 1e6, *(s.counted for s in forward(u))) for u in workloads),
    )


def table_of_bytes_read(w: Workload, lengths: Sequence[int]) -> Table:
    """Bytes read by each step, counted minus predicted, in MB."""
    return Table(
        {"N": ""} | dict.fromkeys(STEPS, "+,.1f"),
        ((n, *(s.more_read / 1e6 for s in forward(replace(w, seq_len=n)))) for n in lengths),
    )


def table_of_bytes_written(w: Workload, lengths: Sequence[int]) -> Table:
    """Bytes written by each step and by all, counted minus predicted, in MB."""
    rows = []
    for n in lengths:
        beyond = [step.more_written / 1e6 for step in forward(replace(w, seq_len=n))]
        rows.append((n, *beyond, sum(beyond)))
    return Table({"N": ""} | dict.fromkeys((*STEPS, "sum"), "+,.1f"), rows)


def table_of_products(w: Workload, head_dims: Sequence[int]) -> Table:
    """What each product's operands take, what is received, and what memory delivers, in X."""
    shapes = [replace(w, head_dim=d, dtype=dtype) for dtype in DTYPES for d in head_dims]
    rows = []
    for which in (0, 3):  # QKᵀ, then PV
        for u in shapes:
            step = forward(u)[which]
            sizes = step.predicted.bytes_read, known(step.timed.received), step.read
            in_heads = [size / u.head_bytes for size in sizes]
            rows.append((step.name, u.head_dim, dtype_name(u.dtype), *in_heads, step.counted))
    return Table(
        dict.fromkeys(("step", "d", "dtype"), "")
        | dict.fromkeys(("once (X)", "received (X)", "from memory (X)"), ".1f")
        | {"all bytes": ".3f"},
        rows,
    )


def off(seq_len: int) -> float:
    """By what share the counted bytes of a step are at most off the predicted ones."""
    return max(abs(step.counted - 1) for step in at(seq_len))


def excess() -> dict[str, float]:
    """By what share each step moves at most more than predicted, over the longest shapes."""
    columns = zip(*map(forward, SHAPES), strict=True)
    return {steps[0].name: max(step.counted for step in steps) - 1 for steps in columns}


def largest_deficit() -> int:
    """The most bytes that the count of what a step writes lacks."""
    return max(-step.more_written for n in LENGTHS for step in at(n))


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    near = min(n for n in LENGTHS if all(off(m) < 0.02 for m in LENGTHS if m >= n))
    knee = (L2 / (W.heads * W.element_bytes)) ** 0.5
    columns = zip(*map(at, LENGTHS), strict=True)
    shares = {steps[0].name: [step.counted for step in steps] for steps in columns}
    qk, *_ = forward(LONGEST)
    more = excess()
    return {
        "l2_mb": L2 / 1e6,
        "near": near,
        "near_times": replace(W, seq_len=near).score_bytes / L2,
        "worst_near": max(off(n) for n in LENGTHS if n >= near),
        "traffic": figures.traffic(shares, LENGTHS, knee),
        "knee": knee,
        "largest_deficit_mb": largest_deficit() / 1e6,
        "qk_reads_mb": qk.read / 1e6,
        "qk_should_mb": qk.predicted.bytes_read / 1e6,
        "qk_worst": more["QKᵀ"],
        "pv_worst": more["PV"],
        "pointwise_worst": max(more["scale"], more["softmax"]),
        "pv_found_mb": -at(2048)[3].more_read / 1e6,
    }


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    scores = {n: replace(W, seq_len=n).score_bytes for n in LENGTHS}
    qk, *_ = forward(LONGEST)
    again = [step.read / step.predicted.bytes_read for step, *_ in map(forward, SHAPES)]
    tall, wide = TILE
    asked = (LONGEST.seq_len / tall + LONGEST.seq_len / wide) * LONGEST.head_bytes
    products = [step for u in SHAPES for step in forward(u) if step.predicted.matrix]
    short = at(512)
    qk_f32, _, _, pv_f32 = forward(SHAPES[-1])  # 32 bit, d = 256
    more = excess()
    return {
        "where S fits into the cache, memory sees only a part of the traffic": all(
            step.counted < 0.85 for n in LENGTHS if scores[n] < L2 for step in at(n)
        ),
        "and at 512 next to none but Q, K and V": (
            max(step.counted for step in short[1:3]) < 0.01
            and max(step.moved for step in short) < 3 * replace(W, seq_len=512).head_bytes
        ),
        "in between, bytes are missing from one step, and some turn up in a later one": all(
            at(n)[0].counted < 0.98 and at(n)[-1].counted > 1.02 for n in (2048, 4096)
        ),
        "the most that a step's count lacks is less than the cache holds": largest_deficit() < L2,
        "the sum of what is written lacks bytes": all(
            sum(step.more_written for step in at(n)) < 0 for n in LENGTHS
        ),
        "at N = 2048, P does not fit, and PV still finds some of it": (
            scores[2048] > L2 and at(2048)[3].more_read < 0
        ),
        "at N = 4096 as well, but not at 8192": at(4096)[3].more_read < 0 < at(8192)[3].more_read,
        "at N = 16384, QKᵀ reads more than its operands": qk.more_read > 0,
        "its kernel has the tile in its name": f"{tall}x{wide}" in qk.timed.kernels[0],
        "what the tiles ask for is received": abs(known(qk.timed.received) / asked - 1) < 0.01,
        "and the L2 cache answers nearly all of it": qk.read < 0.05 * asked,
        "where a product moves more, most of the extra bytes are read": all(
            step.more_read > step.more_written for step in products
        ),
        "both are worst in 32 bit at d = 256": (
            (qk_f32.counted - 1, pv_f32.counted - 1) == (more["QKᵀ"], more["PV"])
        ),
        "scaling and softmax take no byte twice": max(more["scale"], more["softmax"]) < 0.02,
        "QKᵀ of larger d or in 32 bit reads again more often": min(again[1:]) > again[0],
    }
