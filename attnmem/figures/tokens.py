"""The book's pictures of writing one token at a time."""

from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, NullLocator

from attnmem.cache import token_bytes, weight_bytes
from attnmem.catalog.models import Model
from attnmem.figures.blocks import COLOURS
from attnmem.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    STYLE,
    Picture,
    keep_apart,
    lengths_axis,
    limit,
    name_line,
)
from attnmem.workload import ceil_div


@rc_context(STYLE)
def cache_growth(models: Sequence[Model], tokens: Sequence[int]) -> Picture:
    """The cache over the tokens of all users, over the weights of a model, both in 16 bit."""
    figure = Picture()
    axes = figure.subplots()
    for model, colour in zip(models, COLOURS, strict=False):
        line = [n * token_bytes(model) / weight_bytes(model) for n in tokens]
        axes.plot(tokens, line, color=colour)
        name_line(axes, tokens[-1], line[-1], model.name, colour)
    axes.set(xscale="log", yscale="log", xlabel="tokens of all users", ylabel="cache / weights")
    axes.set_xlim(tokens[0], tokens[-1])
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    limit(axes, tokens[0], 1, "the weights")
    keep_apart(axes)
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
def token_times(
    lines: Mapping[str, Mapping[int, float]],
    dots: Mapping[str, Mapping[int, float]],
    crosses: Mapping[str, Mapping[int, float]] | None = None,
) -> Picture:
    """Seconds over the tokens of a cache: predicted lines, recorded dots, crosses of another way.

    Each maps a name to (tokens -> seconds); a name has the same colour in all three.
    """
    figure = Picture()
    axes = figure.subplots()
    colours = dict(zip(lines, COLOURS, strict=False))
    for name, line in lines.items():
        axes.plot([*line], [*line.values()], color=colours[name])
        name_line(axes, max(line), line[max(line)], name, colours[name])
    for marker, found in (("o", dots), ("x", crosses or {})):
        for name, points in found.items():
            axes.plot([*points], [*points.values()], marker, color=colours[name])
    lengths_axis(axes, sorted({n for points in dots.values() for n in points}), rotation=30)
    axes.set(yscale="log", xlabel="tokens in the cache", ylabel="time of one layer")
    axes.yaxis.set_major_formatter(EngFormatter(unit="s"))
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
