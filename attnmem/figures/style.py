"""The one style of the book's pictures."""

import io
import re
from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullLocator

# Three colours that colour-blind readers can tell apart (Okabe and Ito 2008), on white paper.
BLUE = "#0072B2"  # what grows with N: Q, K, V, O
ORANGE = "#D55E00"  # what grows with N²: S, P; and whatever the text warns of
GREEN = "#009E73"  # training
GREY = "#6B6B6B"  # devices, limits

STYLE: Any = {
    "figure.figsize": (8.0, 4.2),
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same picture on every machine
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "lines.linewidth": 2,
    "svg.hashsalt": "attnmem",  # the same bytes from build to build
}


# Matplotlib writes paths to a millionth of a point; a hundredth makes files half as large.
PATH = re.compile(r'\bd="[^"]*"')
DIGITS = re.compile(r"(\.\d\d)\d+")


class Picture(Figure):
    """A figure that notebooks show as SVG, the same bytes for the same picture."""

    def _repr_svg_(self) -> str:
        buffer = io.StringIO()
        with rc_context(STYLE):
            self.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        return PATH.sub(lambda path: DIGITS.sub(r"\1", path[0]), buffer.getvalue())


def limit(axes: Axes, x: float, y: float, name: str) -> None:
    """A device's limit ``y``, as a dashed line with its name from ``x`` on, in data coordinates."""
    axes.axhline(y, color=GREY, linewidth=1, linestyle="--")
    name_line(axes, x, y, name, GREY, above=True)


def lengths_axis(axes: Axes, lengths: Sequence[int], rotation: float = 0) -> None:
    """Sequence lengths, powers of two, on a logarithmic axis, names turned by some degrees."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [str(n) for n in lengths], rotation=rotation)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("sequence length N")


def bytes_axis(axes: Axes) -> None:
    """Bytes along y, with the unit that fits: kB, MB, GB."""
    axes.yaxis.set_major_formatter(EngFormatter(unit="B"))
    axes.set_ylabel("memory")


def name_line(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    colour: str,
    *,
    above: bool = False,
    lift: float = 0,
) -> None:
    """Name a line at its end ``(x, y)``, or with ``above`` over its beginning.

    ``lift`` moves a name at the end up, in points.
    """
    offset, align = ((2, 3), "bottom") if above else ((8, lift), "center")
    axes.annotate(
        text,
        (x, y),
        offset,
        textcoords="offset points",
        color=colour,
        va=align,
        annotation_clip=False,
    )


def keep_apart(axes: Axes) -> None:
    """Move names down that would lie on others, which stand in ``offset points``."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    placed: list[Any] = []
    for text in sorted(axes.texts, key=lambda text: -text.get_window_extent().y0):
        for other in placed:  # from above: what moves down may meet the next of them
            box = text.get_window_extent()
            if box.overlaps(other):
                x, y = text.xyann  # type: ignore[attr-defined]
                down = (box.y1 - other.y0) * 72 / figure.dpi
                text.xyann = x, y - down - 1  # type: ignore[attr-defined]
        placed.append(text.get_window_extent())
