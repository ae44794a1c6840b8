"""Your machine: how long the four steps take on it, and under which roofs."""

from dataclasses import replace
from functools import cache
from typing import Any

import torch

from attnmem import figures
from attnmem.formulas import standard_steps
from attnmem.lessons.roofline.steps import Observed
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
    predicted = standard_steps(w)
    return [Observed(p, m, here) for p, m in zip(predicted, timed, strict=True)]


def table_of_own_steps(steps: list[Observed]) -> Table:
    """The time and the rates of each step, its share of its roof, and what limits it."""
    rows = []
    for s in steps:
        rates = s.predicted.bytes_moved / s.seconds / 1e9, s.flops_per_second / 1e9
        rows.append((s.name, 1e6 * s.seconds, *rates, s.share, s.limit))
    return Table(
        {"step": "", "time (µs)": ",.0f", "GB/s": ",.1f", "GFLOP/s": ",.1f"}
        | {"share of its roof": ".0%", "limited by": ""},
        rows,
    )


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    steps = measured_here()
    here = steps[0].ceilings
    roof = figures.Roof(
        "copies and products, measured", max(here.largest.values()), max(here.matmul.values())
    )
    points = [figures.Point(s.name, s.predicted.intensity, s.flops_per_second) for s in steps]
    return {
        "mine": figures.rooflines([roof], [s.at_roof for s in steps], points),
        "mine_dtype": dtype_name(steps[0].predicted.dtype),
        "here": str(provenance()),
    }
