"""Roofs of products from shapes that no step has, beside the book's: does a step still keep below?

Two of the four products behind the book's ceilings have the shape of P·V at N = 8192, which then
reaches its roof by construction. This times ceilings and steps again, on this machine's GPU.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from attnmem import Workload, standard_attention
from attnmem.formulas import standard_steps
from attnmem.lessons.table import Table
from attnmem.measurement.device import provenance
from attnmem.measurement.timing import PRODUCTS, ceilings, time_steps
from attnmem.roofline import Ceilings, measured_roof
from attnmem.workload import dtype_name

# (batch, m, k, n): square and oblong, batched and not, none with the 12 heads of the steps.
FOREIGN = (
    (1, 4096, 4096, 4096),
    (1, 8192, 8192, 8192),
    (1, 12288, 12288, 12288),
    (1, 16384, 4096, 8192),
    (1, 4096, 16384, 4096),
    (8, 4096, 4096, 1024),
    (16, 2048, 2048, 2048),
)
DTYPES = (torch.float16, torch.float32)


def judged(workloads: Iterable[Workload], found: Ceilings, foreign: Ceilings) -> Table:
    """Each product of each workload: the share of its roof, with either ceilings."""
    rows = []
    for w in workloads:
        timed = [s for s in time_steps(standard_attention, w) if s.stage == "forward"]
        for step, measured in zip(standard_steps(w), timed, strict=True):
            if step.matrix:
                seconds = measured.time.seconds
                of = step.name, w.seq_len, w.head_dim, dtype_name(w.dtype)
                roofs = [measured_roof(step, ceilings) for ceilings in (found, foreign)]
                rows.append((*of, roofs[1][0], *(least / seconds for _, least in roofs)))
    columns = dict.fromkeys(("step", "N", "d", "dtype", "roof"), "")
    return Table(columns | {"of the book's": ".1%", "of foreign": ".1%"}, rows)


def main(
    lengths: Sequence[int] = (8192, 16384),
    products: Sequence[Sequence[int]] = PRODUCTS,
    foreign: Sequence[Sequence[int]] = FOREIGN,
    device: str = "cuda",
    largest: int = 2**32,
) -> None:
    """Print both ceilings, and what share of either roof the products of attention reach."""
    print(provenance(device))
    found = ceilings(device, largest=largest, products=products, dtypes=DTYPES)
    others = ceilings(device, largest=2**20, products=foreign, dtypes=DTYPES).matmul
    rates = [(name, found.matmul[name] / 1e12, others[name] / 1e12) for name in others]
    form = dict.fromkeys(("of the book (TFLOP/s)", "foreign (TFLOP/s)"), ".1f")
    print(Table({"dtype": ""} | form, rates), "\n")
    workloads = [
        Workload(batch=1, heads=12, seq_len=n, head_dim=d, dtype=dtype)
        for dtype in DTYPES
        for d in (64, 128, 256)
        for n in lengths
    ]
    print(judged(workloads, found, replace(found, matmul=others)))


if __name__ == "__main__":
    main()
