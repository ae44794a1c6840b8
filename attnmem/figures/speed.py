"""The book's pictures of speed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from matplotlib import rc_context
from matplotlib.ticker import EngFormatter

from attnmem.catalog.accelerators import Accelerator
from attnmem.figures.style import (
    BLUE,
    GREY,
    ORANGE,
    STYLE,
    Picture,
    keep_apart,
    lengths_axis,
    limit,
    name_line,
)
from attnmem.formulas import standard_steps
from attnmem.roofline import ridge_point
from attnmem.workload import Workload


@rc_context(STYLE)
def intensities(
    w: Workload,
    lengths: Sequence[int],
    head_dims: Sequence[int],
    devices: Sequence[Accelerator],
) -> Picture:
    """Arithmetic intensity of the steps over N, against the balance points of ``devices``.

    Of ``w`` all but sequence length and head dimension count, which ``lengths`` and ``head_dims``
    replace.
    """
    figure = Picture(figsize=(8.0, 5.0))
    axes = figure.subplots()
    for d in head_dims:
        steps = [standard_steps(replace(w, seq_len=n, head_dim=d)) for n in lengths]
        line = [step[0].intensity for step in steps]
        axes.plot(lengths, line, color=BLUE)
        name_line(axes, lengths[-1], line[-1], f"QKᵀ, PV: d = {d}", BLUE)
    for index in (1, 2):
        line = [step[index].intensity for step in steps]
        axes.plot(lengths, line, color=ORANGE)
        name_line(axes, lengths[-1], line[-1], steps[-1][index].name, ORANGE)
    left = lengths[0] / 2.5  # room for the names of the devices
    for device in devices:
        limit(axes, left, ridge_point(device, matrix=True), device.name)
    lengths_axis(axes, lengths)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set(xlim=(left, None), ylim=(0.1, 1000))
    axes.set_ylabel("arithmetic intensity (FLOPs per byte)")
    return figure


@dataclass(frozen=True)
class Point:
    """A step on a roofline: its name, FLOPs per byte, FLOP/s."""

    name: str
    intensity: float
    flops_per_second: float


@dataclass(frozen=True)
class Roof:
    """A roofline: its name, the bytes per second of its slope, the FLOP/s of its ridge."""

    name: str
    bandwidth: float
    flops_per_second: float


@rc_context(STYLE)
def roof(card: Roof, points: Sequence[Point], lower: Roof | None = None) -> Picture:
    """What a roofline is: the line of a device, its balance point, and steps on the line.

    ``lower`` is the roof of slower units, with the same slope.
    """
    figure = Picture(figsize=(7.0, 4.0))
    axes = figure.subplots()
    ridge = card.flops_per_second / card.bandwidth
    left, right = min(p.intensity for p in points) / 3, 6 * ridge
    levels = [left * card.bandwidth, card.flops_per_second, card.flops_per_second]
    axes.plot([left, ridge, right], levels, color=GREY, linewidth=2)
    axes.axvline(ridge, color=GREY, linestyle=":", linewidth=1)
    top = card.flops_per_second
    for x, y, words in (
        (ridge / 5, top / 100, "memory\nlimits"),
        (ridge * 1.1, top / 100, "arithmetic\nlimits"),
        (ridge * 1.1, 2 * levels[0], f"balance point\n{ridge:.0f} FLOP/B"),
    ):
        axes.annotate(words, (x, y), color=GREY, va="center")
    if lower:
        bend, level = lower.flops_per_second / lower.bandwidth, lower.flops_per_second
        axes.plot([bend, right], [level, level], "--", color=GREY, linewidth=1)
        words = f"{lower.name}: {bend:.0f} FLOP/B"
        axes.annotate(
            words,
            (right, level),
            (-4, -4),
            textcoords="offset points",
            color=GREY,
            ha="right",
            va="top",
        )
    for point in points:
        at = point.intensity, point.flops_per_second
        axes.plot(*at, "o", color=ORANGE)
        axes.annotate(point.name, at, (8, -4), textcoords="offset points", color=ORANGE, va="top")
    axes.set(xscale="log", yscale="log", xlim=(left, right), xlabel="FLOPs per byte")
    axes.set_ylabel("arithmetic")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter(EngFormatter(unit="FLOP/s"))
    return figure


@rc_context(STYLE)
def rooflines(
    roofs: Sequence[Roof],
    predicted: Sequence[Point],
    measured: Sequence[Point],
    levels: Mapping[str, float] | None = None,
) -> Picture:
    """Roofs as lines, the second of them dashed; steps where they should be, and where they are.

    Predicted points are rings, measured ones dots, and a line joins the two of one step. ``levels``
    are further limits of arithmetic, in FLOP/s by name.
    """
    figure = Picture(figsize=(8.0, 5.2))
    axes = figure.subplots()
    points = [*predicted, *measured]
    left = min(p.intensity for p in points) / 2
    ridges = [roof.flops_per_second / roof.bandwidth for roof in roofs]
    right = 4 * max(*ridges, *(p.intensity for p in points))
    for roof, ridge, dashes in zip(roofs, ridges, ("-", "--"), strict=False):
        axes.plot(
            [left, ridge, right],
            [left * roof.bandwidth, roof.flops_per_second, roof.flops_per_second],
            dashes,
            color=GREY,
            linewidth=1.5,
        )
        above = dashes == "-"
        axes.annotate(
            roof.name,
            (right, roof.flops_per_second),
            (0, 5 if above else -5),
            textcoords="offset points",
            color=GREY,
            ha="right",
            va="bottom" if above else "top",
        )
    for name, level in (levels or {}).items():
        slope = max(roof.bandwidth for roof in roofs)
        axes.plot([level / slope, right], [level, level], ":", color=GREY, linewidth=1.5)
        axes.annotate(
            name,
            (right, level),
            (0, 3),
            textcoords="offset points",
            color=GREY,
            ha="right",
            va="bottom",
        )
    for was, found in zip(predicted, measured, strict=True):
        axes.plot(
            [was.intensity, found.intensity],
            [was.flops_per_second, found.flops_per_second],
            color=BLUE,
            linewidth=1,
        )
        axes.plot(was.intensity, was.flops_per_second, "o", color=BLUE, fillstyle="none")
        axes.plot(found.intensity, found.flops_per_second, "o", color=ORANGE)
        name_line(axes, found.intensity, found.flops_per_second, found.name, ORANGE)
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(left, right),
        xlabel="FLOPs per byte",
    )
    axes.set_ylabel("arithmetic")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter(EngFormatter(unit="FLOP/s"))
    keep_apart(axes)
    return figure
