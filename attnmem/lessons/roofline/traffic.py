"""Do the bytes agree? What the counters of the memory saw, beside what is predicted."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from attnmem import figures
from attnmem.figures.style import Picture
from attnmem.lessons.roofline.steps import CARDS, LENGTHS, LONGEST, RECORDS, STEPS, at, forward
from attnmem.lessons.shared import W, at_most, known
from attnmem.lessons.table import Table
from attnmem.measurement.records import Record
from attnmem.workload import Workload, dtype_name

DTYPES = (torch.float16, torch.float32)
SHAPES = [replace(LONGEST, head_dim=d, dtype=dtype) for dtype in DTYPES for d in (64, 128, 256)]
FITS = replace(W, seq_len=1024, dtype=torch.float32)  # S is a little smaller than the cache
TILE = (128, 256)
L2, _ = L2S = [known(card.l2_bytes) for card in CARDS]


def table_of_bytes(w: Workload, lengths: Sequence[int]) -> Table:
    """Bytes counted over predicted; more bytes read and written than predicted, in MB."""
    rows = []
    for u in (replace(w, seq_len=n) for n in lengths):
        cells = [
            f"{s.counted:.3f}, {s.more[0] / 1e6:+,.1f}, {s.more[1] / 1e6:+,.1f}" for s in forward(u)
        ]
        rows.append((u.seq_len, u.score_bytes / 1e6, *(cell.replace("-", "−") for cell in cells)))
    return Table({"N": "", "S (MB)": ",.1f"} | dict.fromkeys(STEPS, ""), rows)


def table_of_products() -> Table:
    """What each product's operands take, what is received, and what memory delivers, in X."""
    rows = []
    for which in (0, 3):  # QKᵀ, then PV
        for u in SHAPES:
            step = forward(u)[which]
            sizes = step.predicted.bytes_read, step.timed.received, step.timed.read
            in_heads = [known(size) / u.head_bytes for size in sizes]
            of = step.predicted.name, u.head_dim, dtype_name(u.dtype)
            rows.append((*of, *in_heads, step.counted))
    return Table(
        dict.fromkeys(("step", "d", "dtype"), "")
        | dict.fromkeys(("once (X)", "received (X)", "from memory (X)"), ".1f")
        | {"all bytes": ".3f"},
        rows,
    )


def knee() -> Picture:
    """The share of scaling's and softmax's bytes that memory sees, over the size of S."""
    sizes = {
        w.score_bytes: forward(w)[1:3]
        for n in LENGTHS
        for w in (replace(W, seq_len=n, dtype=dtype) for dtype in DTYPES)
    }
    columns = zip(*(sizes[size] for size in sorted(sizes)), strict=True)
    shares = {c[0].predicted.name: [step.counted for step in c] for c in columns}
    return figures.traffic(shares, sorted(sizes), {"half of L2": L2 / 2, "L2": L2})


def off(seq_len: int) -> float:
    """By what share the counted bytes of a step are at most off the predicted ones."""
    return max(abs(step.counted - 1) for step in at(seq_len))


def worst(which: int) -> float:
    """By what share one of the steps moves at most more than predicted, over the longest shapes."""
    return max(forward(w)[which].counted for w in SHAPES) - 1


def kept(record: Record) -> list[int]:
    """What QKᵀ has written and memory has not seen when it ends, if S is as large as the cache."""
    return [
        -forward(run.workload, record)[0].more[1]
        for run in record.runs
        if (run.program, run.training) == ("standard_attention", False)
        and run.workload.score_bytes >= FITS.score_bytes
    ]


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    near = min(n for n in LENGTHS if all(off(m) < 0.02 for m in LENGTHS if m >= n))
    small = replace(W, seq_len=1024)
    most, most_h200 = (max(kept(record)) for record in RECORDS)
    return {
        "l2_mb": L2 / 1e6,
        "near": near,
        "near_times": replace(W, seq_len=near).score_bytes / L2,
        "worst_near": at_most(max(off(n) for n in LENGTHS if n >= near), 0.001),
        "traffic": knee(),
        "s_fits_mb": FITS.score_bytes / 1e6,
        "s_small_mb": small.score_bytes / 1e6,
        "found_small_mb": -forward(small)[1].more[0] / 1e6,
        "kept_mb": most / 1e6,
        "kept_share": most / L2,
        "kept_h200_mb": most_h200 / 1e6,
        "kept_h200_share": most_h200 / L2S[1],
        "qk_worst": worst(0),
        "pv_worst": worst(3),
        "pointwise_worst": at_most(max(worst(1), worst(2)), 0.001),
        "pv_found_mb": -at(2048)[3].more[0] / 1e6,
    }


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    qk, *_ = forward(LONGEST)
    asked = sum(LONGEST.seq_len / side for side in TILE) * LONGEST.head_bytes
    return {
        "in 32 bit S fits into the cache, and the scaling finds nothing of it": all(
            FITS.score_bytes < l2 and forward(FITS, record)[1].more[0] > -0.01 * l2
            for record, l2 in zip(RECORDS, L2S, strict=True)
        ),
        "scaling and softmax rise around half of the cache, and are at 1 where S is all of it": all(
            (step.counted < 0.2) if w.score_bytes < L2 / 3 else abs(step.counted - 1) < 0.03
            for n in LENGTHS
            for w in (replace(W, seq_len=n, dtype=dtype) for dtype in DTYPES)
            if not L2 / 3 < w.score_bytes < 0.9 * L2
            for step in forward(w)[1:3]
        ),
        "where S fits into half of the cache, memory sees only a part of the traffic": all(
            step.counted < 0.85
            for n in LENGTHS
            if replace(W, seq_len=n).score_bytes < L2 / 2
            for step in at(n)
        ),
        "what stays in the cache is a little less than half of it, whatever the length": all(
            0.45 < -at(n, record)[0].more[1] / l2 < 0.5
            for record, l2 in zip(RECORDS, L2S, strict=True)
            for n in LENGTHS
            if n >= 2048
        ),
        "and never more, whatever the shape": all(
            max(kept(record)) / l2 < 0.5 for record, l2 in zip(RECORDS, L2S, strict=True)
        ),
        "what is missing in one count turns up in a later one, or never": all(
            at(n)[0].more[1] < 0 < at(n)[3].more[1] and sum(step.more[1] for step in at(n)) < 0
            for n in LENGTHS
            if n >= 1024
        ),
        "at N = 2048 PV finds some of P": at(2048)[3].more[0] < 0,
        "at N = 16384, QKᵀ reads more than its operands": qk.more[0] > 0,
        "its kernel has the tile in its name": "x".join(map(str, TILE)) in qk.timed.kernels[0],
        "what the tiles ask for is received": abs(known(qk.timed.received) / asked - 1) < 0.01,
        "and memory delivers little of it": known(qk.timed.read) < 0.05 * asked,
        "where a product moves more, most of the extra bytes are read": all(
            step.more[0] > step.more[1] for u in SHAPES for step in forward(u)[::3]
        ),
        "both are worst in 32 bit at d = 256": (
            [step.counted - 1 for step in forward(SHAPES[-1])[::3]] == [worst(0), worst(3)]
        ),
        "scaling and softmax take no byte twice": max(worst(1), worst(2)) < 0.02,
        "bounds are not rounded below what they bound": (
            max(worst(1), worst(2)) <= numbers()["pointwise_worst"]
            and all(off(n) <= numbers()["worst_near"] for n in LENGTHS if n >= numbers()["near"])
        ),
    }
