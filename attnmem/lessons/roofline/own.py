"""Your machine: how long the four steps take on it, and under which roofs."""

from dataclasses import replace
from functools import cache
from typing import Any

import torch

from attnmem.formulas import standard_steps
from attnmem.lessons.roofline.steps import Observed, observe
from attnmem.lessons.shared import W
from attnmem.lessons.table import Table
from attnmem.measurement.device import provenance
from attnmem.measurement.timing import ceilings, time_steps
from attnmem.programs import standard_attention
from attnmem.workload import dtype_name


@cache
def measured_here() -> list[Observed]:
    """The steps on this machine's GPU, or else on its CPU, and the machine's own ceilings."""
    if torch.cuda.is_available():
        w = replace(W, seq_len=1024)
        here = ceilings("cuda", dtypes=[w.dtype])
    else:  # smaller arrays, and products such as those of attention
        w = replace(W, seq_len=1024, dtype=torch.float32)
        shapes = [(1, 1024, 1024, 1024), (12, 1024, 64, 1024), (12, 1024, 1024, 64)]
        here = ceilings("cpu", dtypes=[w.dtype], largest=2**28, products=shapes)
    timed = [s for s in time_steps(standard_attention, w) if s.stage == "forward"]
    return [observe(p, m, here) for p, m in zip(standard_steps(w), timed, strict=True)]


def table_of_own_steps() -> Table:
    """The time and the rates of each step, its share of its roof, and what limits it."""
    return Table(
        {"step": "", "time (µs)": ",.0f", "GB/s": ",.1f", "GFLOP/s": ",.1f"}
        | {"share": ".0%", "limited by": ""},
        (
            (s.predicted.name, 1e6 * s.seconds, *(rate / 1e9 for rate in s.rates), s.share, s.limit)
            for s in measured_here()
        ),
    )


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    dtype = dtype_name(measured_here()[0].predicted.dtype)
    return {"mine_dtype": dtype, "here": str(provenance())}
