"""The book's pictures of memory."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from matplotlib import rc_context
from matplotlib.ticker import EngFormatter, PercentFormatter

from attnmem.catalog.accelerators import Accelerator
from attnmem.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    STYLE,
    Picture,
    bytes_axis,
    lengths_axis,
    limit,
    name_line,
)
from attnmem.formulas import peak_bytes
from attnmem.measurement.memory import Measurement
from attnmem.prediction.trace import Trace
from attnmem.workload import Workload


@rc_context(STYLE)
def memory_bars(workloads: Sequence[Workload]) -> Picture:
    """How the bytes of Q, K, V, O and of S, P divide, for each workload.

    Bars of equal height, from left to right in the order of ``workloads``, named by their sequence
    lengths; above each the sum in bytes.
    """
    figure = Picture(figsize=(6.2, 3.4))
    axes = figure.subplots()
    for place, w in enumerate(workloads):
        heads, scores = 4 * w.head_bytes, 2 * w.score_bytes
        share = heads / (heads + scores)
        axes.bar(place, share, color=BLUE)
        axes.bar(place, 1 - share, bottom=share, color=ORANGE)
        total = EngFormatter(unit="B", places=1)(heads + scores)
        axes.annotate(total, (place, 1), (0, 4), textcoords="offset points", ha="center")
        axes.annotate("S, P", (place, 0.6), ha="center", color="white")
    axes.annotate("Q, K, V, O", (0, 0.09), ha="center", color="white", fontsize=8)
    axes.set_xticks(range(len(workloads)), [f"{w.seq_len}" for w in workloads])
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.grid(visible=False, axis="x")
    axes.set(xlabel="sequence length N", ylabel="share of the bytes", ylim=(0, 1.08))
    return figure


@rc_context(STYLE)
def memory_curves(w: Workload, lengths: Sequence[int], devices: Sequence[Accelerator]) -> Picture:
    """Bytes of Q, K, V, O and of S, P over N on linear axes, with the memory of ``devices``.

    The other sizes are those of ``w``; ``lengths`` are the values of N.
    """
    figure = Picture(figsize=(6.2, 3.4))
    axes = figure.subplots()
    last = replace(w, seq_len=max(lengths))
    for label, colour, factor, size in (
        ("S, P", ORANGE, 2, "score_bytes"),
        ("Q, K, V, O", BLUE, 4, "head_bytes"),
    ):
        sizes = [factor * getattr(replace(w, seq_len=n), size) for n in lengths]
        axes.plot(lengths, sizes, color=colour)
        name_line(axes, last.seq_len, factor * getattr(last, size), label, colour)
    for device in devices:
        limit(axes, min(lengths), device.memory_bytes, device.name)
    axes.set_xlabel("sequence length N")
    bytes_axis(axes)
    return figure


@rc_context(STYLE)
def peaks(measurements: Sequence[Measurement], devices: Sequence[Accelerator]) -> Picture:
    """Predicted peaks as lines, measured ones as dots, over N on logarithmic axes.

    Peaks are requested bytes of ``standard_attention``, of which ``measurements`` are runs with
    the same sizes but for N. A run that ended for want of memory stands as a cross at the peak it
    would have needed.
    """
    figure = Picture()
    axes = figure.subplots()
    lengths = sorted({m.workload.seq_len for m in measurements})
    first = replace(measurements[0].workload, seq_len=lengths[0])
    across = [replace(first, seq_len=n) for n in lengths]
    axes.plot(lengths, [4 * w.head_bytes for w in across], color=BLUE)
    name_line(axes, lengths[-1], 4 * across[-1].head_bytes, "Q, K, V, O", BLUE)
    for training, label, colour, lift in (
        (True, "training", GREEN, 5),
        (False, "inference", ORANGE, -5),
    ):
        runs = [m for m in measurements if m.training == training]
        if not runs:
            continue
        need = [peak_bytes(w, training=training) for w in across]
        axes.plot(lengths, need, color=colour)
        name_line(axes, lengths[-1], need[-1], label, colour, lift=lift)
        done = [m for m in runs if not m.out_of_memory]
        axes.plot(
            [m.workload.seq_len for m in done],
            [m.peak_bytes for m in done],
            "o",
            color=colour,
        )
        failed = [m.workload for m in runs if m.out_of_memory]
        axes.plot(
            [w.seq_len for w in failed],
            [peak_bytes(w, training=training) for w in failed],
            "x",
            color=colour,
            markersize=9,
            markeredgewidth=2,
        )
    for device in devices:
        limit(axes, lengths[0], device.memory_bytes, device.name)
    lengths_axis(axes, lengths, rotation=30)
    axes.set_yscale("log")
    bytes_axis(axes)
    return figure


@rc_context(STYLE)
def stacks(peaks: Mapping[str, Mapping[str, int]]) -> Picture:
    """What is alive at each of several peaks: name -> (label -> bytes), as stacked bars.

    Tensors of more than a thirtieth of the largest peak are orange and have their names inside.
    """
    figure = Picture(figsize=(8.0, 0.9 + 0.75 * len(peaks)))
    axes = figure.subplots()
    total = max(sum(alive.values()) for alive in peaks.values())
    for place, alive in enumerate(peaks.values()):
        left, small = 0, []
        for label, size in sorted(alive.items(), key=lambda item: -item[1]):
            large = size > total / 30  # wide enough for its name
            colour = ORANGE if large else BLUE
            axes.barh(place, size, left=left, color=colour, edgecolor="white", linewidth=1)
            if large:
                axes.text(
                    left + size / 2,
                    place,
                    label,
                    ha="center",
                    va="center",
                    color="white",
                )
            else:
                small.append(label)
            left += size
        name_line(axes, left, place, ", ".join(small), BLUE)
    axes.set_yticks(range(len(peaks)), list(peaks))
    axes.set_xlim(right=1.35 * total)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(EngFormatter(unit="B"))
    axes.set_xlabel("memory alive at the peak")
    return figure


@rc_context(STYLE)
def ledger(ways: Mapping[str, Mapping[str, int]]) -> Picture:
    """What is alive in each of several ways: name -> (label -> bytes), as bars of the same parts.

    A label has its colour in all bars, the first of all labels orange.
    """
    figure = Picture(figsize=(8.0, 1.3 + 0.6 * len(ways)))
    axes = figure.subplots()
    ends = [0] * len(ways)
    labels = dict.fromkeys(label for parts in ways.values() for label in parts)
    for label, colour in zip(labels, (ORANGE, GREEN, BLUE, GREY, "#B9B9B9"), strict=True):
        sizes = [parts.get(label, 0) for parts in ways.values()]
        axes.barh(list(ways), sizes, left=ends, color=colour, edgecolor="white", label=label)
        ends = [end + size for end, size in zip(ends, sizes, strict=True)]
    for place, end in enumerate(ends):
        name_line(axes, end, place, EngFormatter(unit="B", places=0)(end), "black")
    axes.set_xlim(right=1.15 * max(ends))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(EngFormatter(unit="B"))
    axes.set_xlabel("memory alive")
    figure.legend(loc="outside upper center", ncols=len(labels), frameon=False)
    return figure


@rc_context(STYLE)
def lifetimes(traced: Trace, formula: str = "") -> Picture:
    """Who is alive when: a bar for each tensor of a trace, and above it the bytes alive.

    Orange tensors are at least as large as S; of a call, as half of the peak. Above the peak stands
    its size, and a ``formula`` for it.
    """
    figure = Picture(figsize=(6.2, 1.6 + 0.27 * sum(e.bytes > 0 for e in traced.timeline)))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2.2))
    live = [event.live for event in traced.timeline]
    large = traced.workload.score_bytes if traced.workload else traced.peak_bytes / 2
    moment = live.index(traced.peak_bytes)
    above.stairs(live, color=GREY, fill=True, alpha=0.35)
    peak = EngFormatter(unit="B", places=2)(traced.peak_bytes)
    words = f"{peak} = {formula}" if formula else peak
    above.annotate(words, (moment + 0.5, 1.05 * traced.peak_bytes), ha="right", va="bottom")
    for row, (label, size, start, end) in enumerate(traced.lifetimes):
        colour = ORANGE if size >= large else BLUE
        below.barh(row, end - start, left=start, color=colour, height=0.7)
        below.annotate(label, (end, row), (4, 0), textcoords="offset points", va="center")
    for axes in (above, below):
        axes.axvspan(moment, moment + 1, color=GREEN, alpha=0.2, linewidth=0)
    below.invert_yaxis()
    below.set_yticks([])
    below.grid(visible=False)
    below.spines.left.set_visible(False)
    below.set(xlabel="allocations and releases, in order", xlim=(0, 1.25 * len(live)))
    above.set_ylim(top=1.45 * traced.peak_bytes)
    bytes_axis(above)
    return figure


@rc_context(STYLE)
def live(traces: Mapping[str, Trace], unit: int = 0) -> Picture:
    """The bytes alive over each of several runs of training, one above the other on one scale.

    A dashed line marks where backward begins, with the allocation of dO. With a ``unit``, the bytes
    of S, an axis at the right counts in it.
    """
    figure = Picture(figsize=(8.0, 1.2 + 1.7 * len(traces)))
    rows = figure.subplots(len(traces), 1, sharey=True, squeeze=False)[:, 0]
    for axes, (name, traced) in zip(rows, traces.items(), strict=True):
        alive = [event.live for event in traced.timeline]
        backward = [event.label for event in traced.timeline].index("dO")
        axes.stairs(alive, color=ORANGE, fill=True, alpha=0.7)
        axes.axvline(backward, color=GREY, linewidth=1, linestyle="--")
        for text, gap, side in (("forward", -4, "right"), ("backward", 4, "left")):
            axes.annotate(
                text,
                (backward, 1),
                (gap, 3),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha=side,
            )
        axes.set_title(name, loc="right")
        axes.set_xlim(0, len(alive))
        bytes_axis(axes)
        if unit:
            units = axes.secondary_yaxis(
                "right", functions=(lambda size: size / unit, lambda count: count * unit)
            )
            units.set_ylabel("in units of S")
    rows[-1].set_xlabel("allocations and releases, in order")
    return figure
