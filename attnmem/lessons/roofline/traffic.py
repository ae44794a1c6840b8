"""Do the bytes agree? What the counters of the memory saw, beside what is predicted."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from attnmem import figures
from attnmem.formulas import standard_steps
from attnmem.lessons.roofline.steps import CARD, HEAD_DIMS, LENGTHS, LONG, W, at, forward, known
from attnmem.lessons.table import Table
from attnmem.workload import Workload, dtype_name

DTYPES = (torch.float16, torch.float32)
SHAPES = [replace(LONG, head_dim=d, dtype=dtype) for dtype in DTYPES for d in HEAD_DIMS]
TILE = (128, 256)


def table_of_bytes(w: Workload, lengths: Sequence[int]) -> Table:
    """Bytes counted over bytes predicted, read and written together, a row for each length."""
    workloads = [replace(w, seq_len=n) for n in lengths]
    return Table(
        [
            {"N": u.seq_len, "S (MB)": u.score_bytes / 1e6}
            | {s.name: s.counted for s in forward(u)}
            for u in workloads
        ],
        {"S (MB)": ",.1f"} | {step.name: ".3f" for step in standard_steps(w)},
    )


def table_of_bytes_read(w: Workload, lengths: Sequence[int]) -> Table:
    """Bytes read by each step, counted minus predicted, in MB."""
    return Table(
        [
            {"N": n}
            | {
                s.name: (s.read - s.predicted.bytes_read) / 1e6
                for s in forward(replace(w, seq_len=n))
            }
            for n in lengths
        ],
        {step.name: "+,.1f" for step in standard_steps(w)},
    )


def table_of_bytes_written(w: Workload, lengths: Sequence[int]) -> Table:
    """Bytes written by each step and by all, counted minus predicted, in MB."""
    rows: list[dict[str, float]] = []
    for n in lengths:
        beyond = {
            s.name: (s.written - s.predicted.bytes_written) / 1e6
            for s in forward(replace(w, seq_len=n))
        }
        rows.append({"N": n} | beyond | {"sum": sum(beyond.values())})
    return Table(rows, {name: "+,.1f" for name in rows[0] if name != "N"})


def table_of_products(w: Workload, head_dims: Sequence[int]) -> Table:
    """What each product's operands take, what is received, and what memory delivers, in X."""
    shapes = [replace(w, head_dim=d, dtype=dtype) for dtype in DTYPES for d in head_dims]
    products = [(u, step) for u in shapes for step in forward(u) if step.predicted.matrix]
    return Table(
        [
            {
                "step": step.name,
                "d": u.head_dim,
                "dtype": dtype_name(u.dtype),
                "once (X)": step.predicted.bytes_read / u.head_bytes,
                "received (X)": known(step.timed.received) / u.head_bytes,
                "from memory (X)": step.read / u.head_bytes,
                "all bytes": step.counted,
            }
            for u, step in products[::2] + products[1::2]  # QKᵀ, then PV
        ],
        dict.fromkeys(("once (X)", "received (X)", "from memory (X)"), ".1f")
        | {"all bytes": ".3f"},
    )


def off(seq_len: int) -> float:
    """By what share the counted bytes of a step are at most off the predicted ones."""
    return max(abs(step.counted - 1) for step in at(seq_len))


def near() -> int:
    """From what length on all steps are within 2 %."""
    return min(n for n in LENGTHS if all(off(m) < 0.02 for m in LENGTHS if m >= n))


def excess() -> dict[str, float]:
    """By what share each step moves at most more than predicted, over the longest shapes."""
    worst = {step.name: 0.0 for step in standard_steps(LONG)}
    for step in (step for u in SHAPES for step in forward(u)):
        worst[step.name] = max(worst[step.name], step.counted - 1)
    return worst


def pv_found(seq_len: int) -> int:
    """The bytes of its input that PV does not read from memory."""
    _, _, _, pv = at(seq_len)
    return pv.predicted.bytes_read - pv.read


def largest_deficit() -> int:
    """The most bytes that the count of what a step writes lacks."""
    return max(s.predicted.bytes_written - s.written for n in LENGTHS for s in at(n))


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    l2 = known(CARD.l2_bytes)
    knee = (l2 / (W.heads * W.element_bytes)) ** 0.5
    columns = zip(*(at(n) for n in LENGTHS), strict=True)
    shares = {column[0].name: [s.counted for s in column] for column in columns}
    qk, *_ = forward(LONG)
    more = excess()
    return {
        "l2_mb": l2 / 1e6,
        "near": near(),
        "near_times": replace(W, seq_len=near()).score_bytes / l2,
        "worst_near": max(off(n) for n in LENGTHS if n >= near()),
        "traffic": figures.traffic(shares, LENGTHS, knee),
        "knee": knee,
        "largest_deficit_mb": largest_deficit() / 1e6,
        "qk_reads_mb": qk.read / 1e6,
        "qk_should_mb": qk.predicted.bytes_read / 1e6,
        "qk_worst": more["QKᵀ"],
        "pv_worst": more["PV"],
        "pointwise_worst": max(more["scale"], more["softmax"]),
        "pv_found_mb": pv_found(2048) / 1e6,
    }


def claims() -> dict[str, bool]:
    """What the text says of these numbers: sentence -> whether it holds."""
    l2 = known(CARD.l2_bytes)
    qk, *_ = forward(LONG)
    tall, wide = TILE
    asked = (LONG.seq_len / tall + LONG.seq_len / wide) * LONG.head_bytes
    products = [step for u in SHAPES for step in forward(u) if step.predicted.matrix]
    _, scale, softmax, _ = at(512)
    qk_f32, _, _, pv_f32 = forward(SHAPES[-1])  # 32 bit, d = 256
    return {
        "where S fits into the cache, memory sees only a part of the traffic": all(
            step.counted < 0.85
            for n in LENGTHS
            if replace(W, seq_len=n).score_bytes < l2
            for step in at(n)
        ),
        "and at 512 next to none but Q, K and V": (
            max(scale.counted, softmax.counted) < 0.01
            and all(s.read + s.written < 3 * replace(W, seq_len=512).head_bytes for s in at(512))
        ),
        "in between, bytes are missing from one step, and some turn up in a later one": all(
            at(n)[0].counted < 0.98 and at(n)[-1].counted > 1.02 for n in (2048, 4096)
        ),
        "the most that a step's count lacks is less than the cache holds": largest_deficit() < l2,
        "the sum of what is written lacks bytes": all(
            sum(s.written - s.predicted.bytes_written for s in at(n)) < 0 for n in LENGTHS
        ),
        "at N = 2048, P does not fit, and PV still finds some of it": (
            replace(W, seq_len=2048).score_bytes > l2 and pv_found(2048) > 0
        ),
        "at N = 4096 as well, but not at 8192": pv_found(4096) > 0 > pv_found(8192),
        "at N = 16384, QKᵀ reads more than its operands": qk.read > 2 * LONG.head_bytes,
        "its kernel has the tile in its name": f"{tall}x{wide}" in qk.timed.kernels[0],
        "the multiprocessors receive what the tiles ask for": (
            abs(known(qk.timed.received) / asked - 1) < 0.01
        ),
        "and the L2 cache answers nearly all of it": qk.read < 0.05 * asked,
        "where a product moves more, most of the extra bytes are read": all(
            step.read - step.predicted.bytes_read > step.written - step.predicted.bytes_written
            for step in products
        ),
        "both are worst in 32 bit at d = 256": (
            qk_f32.counted - 1 == excess()["QKᵀ"] and pv_f32.counted - 1 == excess()["PV"]
        ),
        "scaling and softmax take no byte twice, or next to none": all(
            excess()[name] < 0.02 for name in ("scale", "softmax")
        ),
        "QKᵀ with larger d or in 32 bit reads its operands again more often": all(
            product.read / product.predicted.bytes_read > qk.read / qk.predicted.bytes_read
            for product, *_ in map(forward, SHAPES[1:])
        ),
    }
