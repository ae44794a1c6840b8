"""The book's picture of the memory hierarchy."""

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from attnmem.catalog.levels import Level
from attnmem.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE, Picture


@rc_context(STYLE)
def hierarchy(levels: Sequence[Level], name: str, size: int) -> Picture:
    """How many bytes each level holds, and how many a second it delivers, nearest level on top.

    A dashed line shows a tensor of ``size`` bytes with its ``name``.
    """
    figure = Picture(figsize=(8.0, 3.6))
    left, right = figure.subplots(1, 2, sharey=True)
    rows = range(len(levels))
    for axes, values, colour, unit, missing in (
        (left, [level.bytes for level in levels], BLUE, "B", "as the machine has"),
        (right, [level.bytes_per_second for level in levels], GREEN, "B/s", "not printed"),
    ):
        known = [value for value in values if value]
        low, high = min(known) / 30, max(known) * 30
        write = EngFormatter(unit=unit, places=1)
        for row, value in zip(rows, values, strict=True):
            if value:
                axes.plot([low, value], [row, row], color=colour, linewidth=6)
            text, shade = (write(value), "black") if value else (missing, GREY)
            axes.annotate(
                text,
                (value or low, row),
                (6, 0),
                textcoords="offset points",
                va="center",
                color=shade,
            )
        axes.set(xscale="log", xlim=(low, high), ylim=(len(levels) - 0.5, -0.9))
        axes.xaxis.set_major_locator(LogLocator(1000))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(EngFormatter(unit=unit))
        axes.grid(visible=False, axis="y")
    left.set_yticks(rows, [level.name for level in levels])
    left.axvline(size, color=ORANGE, linewidth=1, linestyle="--")
    left.annotate(name, (size, -0.6), (4, 0), textcoords="offset points", color=ORANGE, va="center")
    left.set_xlabel("holds")
    right.set_xlabel("delivers")
    return figure
