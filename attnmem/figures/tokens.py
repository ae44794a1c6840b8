"""The book's pictures of writing one token at a time."""

from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, NullLocator

from attnmem.figures.blocks import COLOURS
from attnmem.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE, Picture
from attnmem.workload import ceil_div


@rc_context(STYLE)
def token_cost(read: Mapping[str, float], bandwidth: float, flops: float, rate: float) -> Picture:
    """The milliseconds in which one token's bytes are read, and in which it is computed.

    ``read``: what is read, name -> bytes; ``bandwidth`` and ``rate``: bytes and FLOPs a second.
    """
    figure = Picture(figsize=(8.0, 2.1))
    axes = figure.subplots()
    start = 0.0
    for (name, size), colour in zip(read.items(), (ORANGE, BLUE), strict=True):
        time = 1e3 * size / bandwidth
        axes.barh(0, time, left=start, color=colour, height=0.7)
        label = f"{name}, {size / 1e9:.2f} GB\n{time:.2f} ms"
        axes.text(start + time / 2, 0, label, color="white", ha="center", va="center")
        start += time
    time = 1e3 * flops / rate
    axes.barh(1, time, color=GREEN, height=0.7)
    axes.text(time + 0.01 * start, 1, f"{flops / 1e9:.0f} GFLOPs\n{time:.3f} ms", va="center")
    axes.set_yticks([0, 1], ["reading", "arithmetic"])
    axes.set(xlabel="time of one token (ms)", xlim=(0, 1.01 * start), ylim=(1.5, -0.5))
    axes.grid(visible=False, axis="y")
    return figure


@rc_context(STYLE)
def pages(used: Sequence[int], reserved: int, page: int) -> Picture:
    """The caches of some users: each in one piece for its longest text, and in pages.

    ``used``: tokens of each user; ``reserved``: the longest text; ``page``: tokens of a page. In
    pages, users take turns, as when they write side by side.
    """
    figure = Picture(figsize=(8.0, 2.9))
    above, below = figure.subplots(2)
    colours = (BLUE, ORANGE, GREEN)
    total = reserved * len(used)
    for user, tokens in enumerate(used):
        _box(above, user * reserved, reserved, GREY, fill=False)
        _box(above, user * reserved, tokens, colours[user])
    place = 0
    for number in range(max(ceil_div(tokens, page) for tokens in used)):
        for user, tokens in enumerate(used):
            left = tokens - number * page
            if left > 0:
                _box(below, place, page, colours[user], fill=False)
                _box(below, place, min(left, page), colours[user])
                place += page
    below.text(place + page / 2, 0.5, "free, for other users", va="center", color=GREY)
    for axes, title in ((above, "one piece each, for the longest text"), (below, "in pages")):
        axes.set(xlim=(-0.01 * total, 1.01 * total), ylim=(-0.05, 1.05))
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_axis_off()
    _box(below, 0, total, GREY, fill=False)
    return figure


def _box(axes: Axes, start: float, width: float, colour: str, *, fill: bool = True) -> None:
    face = colour if fill else "none"
    axes.add_patch(Rectangle((start, 0), width, 1, facecolor=face, edgecolor=colour, linewidth=1))


@rc_context(STYLE)
def programs_at_work(programs: Mapping[str, int], multiprocessors: int) -> Picture:
    """The multiprocessors of a GPU as boxes, in a panel for each way to start so many programs.

    A box is filled if it gets a program: they are dealt out one by one.
    """
    figure = Picture(figsize=(8.0, 2.7))
    columns = 12
    rows = ceil_div(multiprocessors, columns)
    for axes, (title, started) in zip(
        figure.subplots(1, len(programs), squeeze=False)[0], programs.items(), strict=True
    ):
        for place in range(multiprocessors):
            y, x = divmod(place, columns)
            colour = ORANGE if place < started else "none"
            axes.add_patch(
                Rectangle((x, y), 0.8, 0.8, facecolor=colour, edgecolor=GREY, linewidth=0.8)
            )
        axes.set(xlim=(-0.2, columns), ylim=(rows, -0.2), aspect="equal")
        axes.set_title(title, fontsize=12)
        axes.axis("off")
    return figure


@rc_context(STYLE)
def over_bytes(
    found: Mapping[str, Sequence[tuple[float, float]]], least: float, within: float
) -> Picture:
    """How many times as long as its bytes say a layer takes, over the bytes of its caches.

    ``found``: of each kind of cache, (bytes, times as long); shaded: from ``least`` bytes on, what
    differs from 1 by no more than ``within``.
    """
    figure = Picture(figsize=(8.0, 3.6))
    axes = figure.subplots()
    for (name, points), colour in zip(found.items(), COLOURS, strict=False):
        axes.plot(*zip(*points, strict=True), "o", color=colour, label=name)
    most = 2 * max(size for points in found.values() for size, _ in points)
    axes.axhline(1, color=GREY, linewidth=1, linestyle="--")
    axes.add_patch(
        Rectangle((least, 1 - within), most - least, 2 * within, color=GREEN, alpha=0.25)
    )
    axes.text(least, 1 + 2 * within, f"within {within:.0%}", color=GREEN, va="bottom")
    axes.set(xscale="log", xlabel="caches of one layer", ylabel="time / what bytes say")
    axes.set(xlim=(None, most), ylim=(0, None))
    axes.xaxis.set_major_formatter(EngFormatter(unit="B"))
    axes.legend(frameon=False)
    return figure


@rc_context(STYLE)
def step_bytes(weights: float, cache: float, users: Sequence[int]) -> Picture:
    """What a step reads for each of its tokens, over the users: a share of the weights, a cache."""
    figure = Picture(figsize=(8.0, 3.6))
    axes = figure.subplots()
    shares = [weights / n for n in users]
    axes.stackplot(users, [cache] * len(users), shares, colors=(BLUE, ORANGE), alpha=0.85)
    axes.set(xscale="log", xlabel="users in a batch", ylabel="read for one token")
    axes.set(xlim=(users[0], users[-1]), ylim=(0, weights + cache))
    axes.set_xticks([*users], [str(n) for n in users])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(EngFormatter(unit="B"))
    axes.text(users[-1], 1.3 * cache, "its own cache ", color=BLUE, ha="right", va="bottom")
    axes.text(users[0] * 1.1, 3 * cache, "its share of the weights", color="white", va="center")
    return figure
