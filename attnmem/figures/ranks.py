"""The book's pictures of attention over several GPUs."""

from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.patches import Polygon, Rectangle
from matplotlib.ticker import EngFormatter, NullLocator

from attnmem.figures.blocks import COLOURS
from attnmem.figures.style import GREY, ORANGE, STYLE, Picture, keep_apart, limit, name_line
from attnmem.ranks.splits import parts_of


@rc_context(STYLE)
def held(ranks: int, step: int) -> Picture:
    """S of all heads, coloured by the rank that computes it at one moment, in four ways to split.

    The strip at the left of a square is Q, by the rank that holds it. On the ring, it is the
    ``step``, from 0: rank i has the keys of rank i − ``step``.
    """
    figure = Picture(figsize=(8.0, 2.1))
    panels = figure.subplots(1, 4)
    for axes, title in zip(panels, ("heads", "gather", "ring", "all-to-all"), strict=True):
        whole = title in ("heads", "all-to-all")
        for head in reversed(range(ranks if whole else 1)):  # the first in front
            left = right = 0.16 * ranks * head if whole else 0.0
            axes.add_patch(
                Rectangle((left, -right), ranks, ranks, facecolor="white", edgecolor=GREY)
            )
            if whole:
                _block(axes, left, -right, ranks, ranks, head)
        for rank in range(ranks):
            if title == "gather":
                _block(axes, 0, rank, ranks, 1, rank)
            if title == "ring":
                _block(axes, (rank - step) % ranks, rank, 1, 1, rank)
            if title != "heads":
                _block(axes, -0.7, rank, 0.4, 1, rank)
        axes.set(xlim=(-0.9, 1.55 * ranks), ylim=(1.05 * ranks, -0.55 * ranks), aspect="equal")
        axes.set_title(title, fontsize=11)
        axes.axis("off")
    return figure


@rc_context(STYLE)
def balance(ranks: int) -> Picture:
    """The causal half of S by the rank that computes it: in parts as they come, and balanced.

    Beside the rows of a part stands its rank; below, how many whole blocks of n × n each computes.
    """
    figure = Picture(figsize=(8.0, 3.7))
    for axes, balanced in zip(figure.subplots(1, 2), (False, True), strict=True):
        size = 1 if balanced else 2  # of a part, in halves of n
        work = []
        for rank in range(ranks):
            blocks = 0.0
            for part in parts_of(rank, ranks, balanced):
                top = size * part
                _block(axes, 0, top, top, size, rank)
                axes.add_patch(_triangle(top, size, rank))
                blocks += (top * size + size**2 / 2) / 4
                axes.text(-0.2, top + size / 2, f"{rank}", ha="right", va="center", color=GREY)
            work.append(f"{blocks:g}")
        axes.set(xlim=(-0.8, 2 * ranks), ylim=(2 * ranks + 0.9, -0.1), aspect="equal")
        axes.text(ranks, 2 * ranks + 0.2, "blocks: " + ", ".join(work), ha="center", va="top")
        axes.set_title("balanced" if balanced else "as they come", fontsize=11)
        axes.axis("off")
    return figure


def _block(axes: Axes, x: float, y: float, width: float, height: float, rank: int) -> None:
    colour = COLOURS[rank]
    axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor="white"))


def _triangle(top: float, size: float, rank: int) -> Polygon:
    corners = [(top, top), (top, top + size), (top + size, top + size)]
    return Polygon(corners, facecolor=COLOURS[rank], edgecolor="white")


@rc_context(STYLE)
def rank_peaks(
    lines: Mapping[str, Mapping[int, float]], dots: Mapping[str, Mapping[int, float]]
) -> Picture:
    """The peak of one rank over the number of ranks, in x: lines, and recorded dots."""
    figure = Picture(figsize=(8.0, 3.4))
    axes = figure.subplots()
    for (name, line), colour in zip(lines.items(), COLOURS, strict=False):
        axes.plot([*line], [*line.values()], color=colour)
        name_line(axes, max(line), line[max(line)], name, colour)
        axes.plot([*dots[name]], [*dots[name].values()], "o", color=colour)
    ranks = sorted({r for line in lines.values() for r in line})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ranks, [str(r) for r in ranks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="ranks R, each with the same n", ylabel="peak of a rank, in x")
    axes.set_ylim(0)
    return figure


@rc_context(STYLE)
def links(
    rate: float, bandwidths: Mapping[str, float], dots: Sequence[tuple[int, float]]
) -> Picture:
    """How fast a ring can compute, over the tokens of a block: its GPU's rate, or its link's.

    ``rate``: FLOP/s of a GPU; ``bandwidths``: name -> bytes per second that a rank sends, each of
    which pays for as many FLOPs as a block has tokens; ``dots``: (tokens, FLOP/s) as recorded.
    """
    figure = Picture(figsize=(8.0, 3.8))
    axes = figure.subplots()
    left, right = 256, 4 * max(n for n, _ in dots)
    for (name, bandwidth), colour in zip(bandwidths.items(), COLOURS[1:], strict=False):
        ridge = rate / bandwidth
        axes.plot([left, ridge, right], [left * bandwidth, rate, rate], color=colour)
        axes.axvline(ridge, color=colour, linestyle=":", linewidth=1)
        words = f"{name}\n{ridge:,.0f} tokens"
        axes.annotate(
            words, (ridge, rate / 90), (4, 0), textcoords="offset points", color=colour, va="center"
        )
    limit(axes, 1.2 * rate / min(bandwidths.values()), rate, "one GPU computes")
    axes.plot(*zip(*dots, strict=True), "o", color=ORANGE)
    axes.set_xscale("log", base=2)
    ticks = [2**i for i in range(8, 19, 2)]
    axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(yscale="log", xlim=(left, right), ylim=(rate / 200, 2 * rate))
    axes.set(xlabel="tokens n of a block", ylabel="a rank computes")
    axes.yaxis.set_major_formatter(EngFormatter(unit="FLOP/s"))
    keep_apart(axes)
    return figure
