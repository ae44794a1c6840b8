"""Memory over the time of a run, in bands that bear their tensors' names."""

from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter

from attnmem.figures.style import BLUE, GREEN, ORANGE, STYLE, Picture, bytes_axis
from attnmem.prediction.trace import Trace

SMALL = 1 / 40  # of the highest peak: a smaller tensor has no band of its own
FINE = 1 / 500  # of it: less than a pixel, so no step of a band
WIDE = 1 / 90  # of the time axis, which a letter takes; one alone wants room at its sides
PALE = "#8CCFBB"  # green, for what is small and kept
MEANINGS = {
    "kept for backward": GREEN,
    "kept, small tensors": PALE,
    "made and thrown away": ORANGE,
    "not kept, small; gradients": BLUE,
}


@rc_context(STYLE)
def profiles(
    traces: Mapping[str, Trace], names: Mapping[str, str] | None = None, same_time: bool = True
) -> Picture:
    """Runs one above the other on the same axes: which tensors were alive when, and how large.

    A band is a tensor: green if the forward pass keeps it for backward, which dO begins, else
    orange. At the bottom is everything that is small beside the highest peak, in pale green what is
    kept of it, in blue the rest. The bytes of each peak stand above it. ``names`` are other names
    for the labels of the traces. Without ``same_time`` each run is as wide as the figure.
    """
    figure = Picture(figsize=(8.0, 1.4 + 1.4 * len(traces)))
    rows = figure.subplots(len(traces), 1, sharex=same_time, sharey=True, squeeze=False)[:, 0]
    highest = max(traced.peak_bytes for traced in traces.values())
    longest = max(len(traced.timeline) for traced in traces.values())
    for axes, (title, traced) in zip(rows, traces.items(), strict=True):
        width = longest if same_time else len(traced.timeline)
        _bands(axes, traced, highest, width, names or {})
        axes.set_title(title, loc="right")
        axes.grid(visible=False, axis="x")
        bytes_axis(axes)
        axes.set(xlim=(0, width), ylim=(0, 1.15 * highest))
    rows[-1].set_xlabel("allocations and releases, in order")
    figure.legend(
        handles=[Patch(color=color, label=meaning) for meaning, color in MEANINGS.items()],
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=13,  # of eight inches; a phone shows half
    )
    return figure


def _bands(axes: Axes, traced: Trace, highest: int, longest: int, names: Mapping[str, str]) -> None:
    """The bands of one run, from the bottom up in the order in which the tensors were made."""
    length = len(traced.timeline)
    labels = [event.label for event in traced.timeline]
    backward = labels.index("dO") if "dO" in labels else length
    kept = [life for life in traced.lifetimes if life[2] < backward < life[3] < length]
    large = [life for life in traced.lifetimes if life[1] > SMALL * highest]
    changes, pale = [event.bytes for event in traced.timeline], [0] * length
    for life in {*large, *kept}:
        _, size, start, end = life
        into, sign = (changes, -1) if life in large else (pale, 1)
        into[start] += sign * size
        if end < length:
            into[end] -= sign * size
    below, lowest = [*accumulate(changes)], [*accumulate(pale)]
    both = (_steps(range(length), levels, highest) for levels in (lowest, below))
    steps = sorted({at for found in both for at in found})
    floor, edges = [lowest[at] for at in steps], [*steps, length]
    axes.stairs(floor, edges, color=PALE, fill=True)
    axes.stairs([below[at] for at in steps], edges, baseline=floor, color=BLUE, fill=True)
    for life in large:
        label, size, start, end = life
        places = range(start, end)
        steps = _steps(places, below, highest)
        levels = [*(below[at] for at in steps), below[end - 1]]
        axes.fill_between(
            [*steps, end],
            levels,
            [level + size for level in levels],
            step="post",
            color=GREEN if life in kept else ORANGE,
            edgecolor="white",
            linewidth=0.7 if end - start > WIDE * longest else 0,
        )
        name = names.get(label, label)
        room = (len(name) + 1) * WIDE * longest
        if room < end - start and size > 0.06 * highest:
            flat = (list(group) for _, group in groupby(places, below.__getitem__))
            level = max(flat, key=len)  # where the band runs straight for longest
            level = level if len(level) > room else [(start + end) // 2]
            spot = (level[0] + level[-1] + 1) / 2, below[level[0]] + size / 2
            axes.annotate(name, spot, ha="center", va="center", color="white", fontsize=9)
        for at in places:
            below[at] += size
    moment = [event.live for event in traced.timeline].index(traced.peak_bytes)
    axes.annotate(
        EngFormatter(unit="B", places=1)(traced.peak_bytes),
        (moment, traced.peak_bytes),
        (0, 2),
        textcoords="offset points",
        ha="center",
        va="bottom",
    )


def _steps(places: Sequence[int], levels: Sequence[int], highest: int) -> list[int]:
    """The first of the places, and those where the level has changed by what one can see."""
    steps = [places[0]]
    for at in places:
        if abs(levels[at] - levels[steps[-1]]) > FINE * highest:
            steps.append(at)
    return steps
