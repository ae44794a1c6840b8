"""The book's pictures of printed numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context

from attnmem.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE, Picture

WORDS: Any = {"ha": "center", "va": "center", "color": "white", "fontsize": 9}
# verdict -> marker and colour; the first is drawn first.
MARKS = {
    "matches": ("o", BLUE),
    "fitted": ("s", GREEN),
    "superseded": ("D", GREY),
    "erratum": ("X", ORANGE),
    "unexplained": ("^", ORANGE),
}


@rc_context(STYLE)
def ratios(rows: Mapping[str, Sequence[tuple[float, str]]]) -> Picture:
    """Printed over computed: a row for each source, and in it a mark for each (ratio, verdict).

    On a logarithmic axis; verdicts are the keys of ``MARKS``.
    """
    figure = Picture(figsize=(8.0, 1.4 + 0.3 * len(rows)))
    axes = figure.subplots()
    axes.axvline(1, color=GREY, linewidth=1)
    for verdict, (marker, colour) in MARKS.items():
        found = [
            (ratio, place)
            for place, marks in enumerate(rows.values())
            for ratio, verdict_of_it in marks
            if verdict_of_it == verdict
        ]
        axes.plot(*zip(*found, strict=True), marker, color=colour, label=verdict, alpha=0.6)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.set_xscale("log")
    ticks = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4)
    axes.set_xticks(ticks, ["1/16", "1/8", "1/4", "1/2", "1", "2", "4"])
    axes.minorticks_off()
    axes.set_xlabel("printed / computed")
    figure.legend(frameon=False, loc="outside upper center", ncols=len(MARKS), handletextpad=0)
    return figure


@rc_context(STYLE)
def parts(
    bars: Mapping[str, tuple[int, float, float]], unit: str, limit: tuple[str, float] | None = None
) -> Picture:
    """What numbers may be made of: name -> (how many equal parts, the size of each, the rest).

    ``limit`` is a device's, its name and value in the same unit: a dashed line, named beside the
    first bar.
    """
    figure = Picture(figsize=(8.0, 1.0 + 0.7 * len(bars)))
    axes = figure.subplots()
    for place, (how_many, size, rest) in enumerate(bars.values()):
        for index in range(how_many):
            axes.barh(place, size, left=index * size, color=BLUE, edgecolor="white")
            middle = (index + 0.5) * size
            axes.text(middle, place, f"{size:.3g}", **WORDS)
        left = how_many * size
        if rest:
            axes.barh(place, rest, left=left, color=ORANGE, edgecolor="white")
            axes.text(left + rest / 2, place, f"{rest:.3g}", **WORDS)
    if limit:
        name, at = limit
        axes.axvline(at, color=GREY, linestyle="--", zorder=0.9)  # behind the parts
        axes.annotate(name, (at, 0), (4, 0), textcoords="offset points", color=GREY, va="center")
    axes.set_yticks(range(len(bars)), list(bars))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(unit)
    return figure
