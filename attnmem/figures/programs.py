"""The picture of programs' peaks: what a line of code changes."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib import rc_context

from attnmem.figures.style import GREEN, ORANGE, STYLE, Picture


class Peak(NamedTuple):
    """The peak of a program in one kind of run: as traced, in words, and as a GPU measured it."""

    program: str
    training: bool
    traced: int
    formula: str
    measured: int | None  # bytes; None where it ran out of memory


@rc_context(STYLE)
def program_peaks(peaks: Sequence[Peak], unit: int) -> Picture:
    """A bar for each peak, in units of S, ``unit`` bytes, named by its formula; dots are measured.

    A row for each program, in the order in which they come; in it the upper bar is inference, the
    lower one training.
    """
    programs = list(dict.fromkeys(peak.program for peak in peaks))
    figure = Picture(figsize=(6.4, 1.0 + 0.44 * len(programs)))
    axes = figure.subplots()
    for peak in peaks:
        row = programs.index(peak.program) + (0.2 if peak.training else -0.2)
        length = peak.traced / unit
        axes.barh(row, length, height=0.36, color=GREEN if peak.training else ORANGE)
        axes.annotate(
            peak.formula, (length, row), (6, 0), textcoords="offset points", va="center", fontsize=9
        )
        if peak.measured is not None:
            axes.plot(peak.measured / unit, row, "o", color="black", markersize=3)
    for text, colour, x in (("inference", ORANGE, 0.0), ("training", GREEN, 0.25)):
        axes.text(x, 1.01, text, color=colour, transform=axes.transAxes, fontweight="bold")
    axes.set_yticks(range(len(programs)), programs)
    most = int(max(peak.traced for peak in peaks) / unit)
    axes.set_xticks(range(most + 1), ["0", "S", *(f"{n}S" for n in range(2, most + 1))])
    axes.set(xlabel="peak", xlim=(0, 1.2 * max(peak.traced for peak in peaks) / unit))
    axes.set_ylim(len(programs) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    return figure
