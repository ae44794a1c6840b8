"""Memory over the time of a run, in bands that bear their tensors' names."""

from collections.abc import Mapping
from itertools import accumulate

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from attnmem.figures.style import BLUE, GREEN, ORANGE, STYLE, Picture, bytes_axis
from attnmem.prediction.trace import Trace

SMALL = 1 / 40  # of the highest peak: a smaller tensor has no band of its own
WIDE = 1 / 90  # of the time axis, which a letter takes


@rc_context(STYLE)
def profiles(traces: Mapping[str, Trace], names: Mapping[str, str] | None = None) -> Picture:
    """Runs one above the other on the same axes: which tensors were alive when, and how large.

    A band is a tensor: green if the forward pass keeps it for backward, which dO begins, else
    orange. Blue at the bottom is everything that is small beside the highest peak, whose bytes
    stand above each. ``names`` are other names for the labels of the traces.
    """
    figure = Picture(figsize=(8.0, 0.8 + 1.9 * len(traces)))
    rows = figure.subplots(len(traces), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    highest = max(traced.peak_bytes for traced in traces.values())
    longest = max(len(traced.timeline) for traced in traces.values())
    for axes, (title, traced) in zip(rows, traces.items(), strict=True):
        _bands(axes, traced, highest, longest, names or {})
        axes.set_title(title, loc="right")
        axes.grid(visible=False, axis="x")
        bytes_axis(axes)
    rows[0].set(xlim=(0, longest), ylim=(0, 1.15 * highest))
    rows[-1].set_xlabel("allocations and releases, in order")
    return figure


def _bands(axes: Axes, traced: Trace, highest: int, longest: int, names: Mapping[str, str]) -> None:
    """The bands of one run, from the bottom up in the order in which the tensors were made."""
    length = len(traced.timeline)
    labels = [event.label for event in traced.timeline]
    backward = labels.index("dO") if "dO" in labels else length
    changes = [event.bytes for event in traced.timeline]
    large = [life for life in traced.lifetimes if life[1] > SMALL * highest]
    for _, size, start, end in large:
        changes[start] -= size
        if end < length:
            changes[end] += size
    below = [*accumulate(changes)]
    axes.stairs(below, color=BLUE, fill=True)
    for label, size, start, end in large:
        places = range(start, end)
        kept = start < backward < end < length
        axes.fill_between(
            [*places, end],
            [*(below[at] for at in places), below[end - 1]],
            [*(below[at] + size for at in places), below[end - 1] + size],
            step="post",
            color=GREEN if kept else ORANGE,
            edgecolor="white",
            linewidth=0.7 if end - start > WIDE * longest else 0,
        )
        name = names.get(label, label)
        if len(name) * WIDE * longest < end - start and size > 0.06 * highest:
            middle = (start + end) // 2
            spot = middle, below[middle] + size / 2
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
