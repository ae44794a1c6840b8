"""Your machine: how long the four steps take on it, and under which roofs."""

from dataclasses import replace
from functools import cache
from typing import Any

import torch

from attnmem import figures
from attnmem.figures.style import Picture
from attnmem.formulas import standard_steps
from attnmem.lessons.roofline.steps import Observed, W, where_at_roof
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
    predicted = standard_steps(w)
    return [Observed(p, m, here) for p, m in zip(predicted, timed, strict=True)]


def table_of_own_steps(steps: list[Observed]) -> Table:
    """The time and the rates of each step, its share of its roof, and what limits it."""
    return Table(
        [
            {
                "step": s.name,
                "time (µs)": 1e6 * s.seconds,
                "GB/s": s.predicted.bytes_moved / s.seconds / 1e9,
                "GFLOP/s": s.predicted.flops / s.seconds / 1e9,
                "share of its roof": s.share,
                "limited by": s.limit,
            }
            for s in steps
        ],
        {"time (µs)": ",.0f", "GB/s": ",.1f", "GFLOP/s": ",.1f", "share of its roof": ".0%"},
    )


def own_roofline(steps: list[Observed]) -> Picture:
    """The steps under this machine's roof: where they should be, and where they are."""
    here = steps[0].ceilings
    roof = figures.Roof(
        "copies and products, measured", max(here.largest.values()), max(here.matmul.values())
    )
    where_they_are = [
        figures.Point(s.name, s.predicted.intensity, s.predicted.flops / s.seconds) for s in steps
    ]
    return figures.rooflines([roof], [where_at_roof(s) for s in steps], where_they_are)


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    steps = measured_here()
    return {
        "mine": own_roofline(steps),
        "mine_dtype": dtype_name(steps[0].predicted.dtype),
        "here": str(provenance()),
    }
