"""The book's pictures of attention in tiles."""

from collections.abc import Mapping

from matplotlib import rc_context
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, NullLocator

from attnmem.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    STYLE,
    Picture,
    lengths_axis,
    name_line,
)
from attnmem.tiles import costs
from attnmem.workload import Workload

PURPLE, SKY, BLACK = "#CC79A7", "#56B4E9", "#000000"  # more of Okabe and Ito's colours
COLOURS = (ORANGE, BLUE, GREEN, PURPLE, SKY, BLACK, GREY)


@rc_context(STYLE)
def tiles(blocks: int = 5, row: int = 2, column: int = 3) -> Picture:
    """S as a grid of tiles: the one at work, those of its row before it, and what each needs.

    ``blocks`` of queries and of keys; the tile at work is at ``row`` and ``column``, from 0.
    """
    figure = Picture(figsize=(8.0, 5.0))
    axes = figure.subplots()

    def box(x: float, y: float, width: float, height: float, colour: str, fill: bool) -> None:
        face = colour if fill else "white"
        axes.add_patch(Rectangle((x, y), width, height, facecolor=face, edgecolor=colour))

    for i in range(blocks):
        for j in range(blocks):
            box(j, i, 1, 1, ORANGE if (i, j) == (row, column) else GREY, (i, j) == (row, column))
            if i == row and j < column:
                axes.text(j + 0.5, i + 0.5, "merged", ha="center", va="center", color=GREY, size=8)
        box(-1.4, i, 0.8, 1, BLUE, i == row)
        box(i, -2.5, 1, 0.8, BLUE, i == column)
        box(i, -1.4, 1, 0.8, BLUE, i == column)
        box(blocks + 0.6, i, 0.3, 1, GREEN, i == row)
        box(blocks + 1.1, i, 0.8, 1, GREEN, i == row)
    axes.text(column + 0.5, row + 0.5, "S", ha="center", va="center", color="white")
    for x, y, text, colour in (
        (-1.0, -0.3, "Q", BLUE),
        (-0.3, -2.1, "V", BLUE),
        (-0.3, -1.0, "Kᵀ", BLUE),
        (blocks + 0.75, -0.3, "m, ℓ", GREEN),
        (blocks + 1.5, -0.3, "o", GREEN),
    ):
        axes.text(x, y, text, ha="center", va="center", color=colour)
    axes.annotate("", (blocks, row + 0.5), (column + 1, row + 0.5), arrowprops={"arrowstyle": "->"})
    axes.set(xlim=(-2, blocks + 2.2), ylim=(blocks + 0.2, -2.8), aspect="equal")
    axes.set_axis_off()
    return figure


@rc_context(STYLE)
def block_traffic(w: Workload, counted: Mapping[int, float], memory: float) -> Picture:
    """What multiprocessors receive over the queries of a block, in X: the formula, and counted.

    ``counted``: queries -> bytes. ``memory``: the bytes that the GPU's memory was read for,
    whatever the block.
    """
    figure = Picture()
    axes = figure.subplots()
    queries = sorted(counted)
    line = [costs.received(w, b) / w.head_bytes for b in queries]
    axes.plot(queries, line, color=BLUE)
    name_line(axes, queries[-1], line[-1], "X + 2X·N/b", BLUE)
    axes.plot(queries, [counted[b] / w.head_bytes for b in queries], "o", color=ORANGE)
    axes.plot(queries, [memory / w.head_bytes] * len(queries), "--", color=GREY)
    name_line(axes, queries[-1], memory / w.head_bytes, "from memory: 3X", GREY)
    axes.set_xscale("log", base=2)
    axes.set_xticks(queries, [str(b) for b in queries])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(yscale="log", xlabel="queries b of a block", ylabel="received", ylim=(1, None))
    axes.yaxis.set_major_formatter("{x:g}X")
    return figure


@rc_context(STYLE)
def across(
    lines: Mapping[str, Mapping[int, float]],
    dots: Mapping[str, Mapping[int, float]],
    *,
    of: str = "peak",
    unit: str = "B",
    lifts: Mapping[str, float] | None = None,
) -> Picture:
    """Programs over N: lines, and dots for what was measured; name -> (N -> a value).

    ``of`` says what the values are, in ``unit``. ``lifts`` moves names at the ends of lines up, in
    points. A name has the same colour in both.
    """
    figure = Picture()
    axes = figure.subplots()
    lengths = sorted({n for line in (*lines.values(), *dots.values()) for n in line})
    colours = dict(zip(dict.fromkeys((*lines, *dots)), COLOURS, strict=False))
    for name, line in lines.items():
        axes.plot([*line], [*line.values()], color=colours[name])
        last = max(line)
        name_line(axes, last, line[last], name, colours[name], lift=(lifts or {}).get(name, 0))
    for name, found in dots.items():
        axes.plot([*found], [*found.values()], "o", color=colours[name])
    lengths_axis(axes, lengths, rotation=30)
    axes.set(yscale="log", ylabel=of)
    axes.yaxis.set_major_formatter(EngFormatter(unit=unit))
    return figure
