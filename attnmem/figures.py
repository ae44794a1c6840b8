"""The book's pictures, in one style."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullLocator, PercentFormatter

from attnmem.devices import Accelerator
from attnmem.measure import Measurement
from attnmem.memory import peak_bytes
from attnmem.roofline import balance, standard_steps
from attnmem.trace import Trace
from attnmem.workload import Workload

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


class Picture(Figure):
    """A figure that notebooks show as SVG, the same bytes for the same picture."""

    def _repr_svg_(self) -> str:
        buffer = io.StringIO()
        with rc_context(STYLE):
            self.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        return buffer.getvalue()


@rc_context(STYLE)
def score_matrices(scores: torch.Tensor, weights: torch.Tensor) -> Picture:
    """S and P of one head, ``[N, N]`` each, as heat maps side by side."""
    figure = Picture(figsize=(8.0, 3.7))
    for axes, title, matrix in zip(
        figure.subplots(1, 2),
        ("S = QKᵀ/√d", "P = softmax(S)"),
        (scores, weights),
        strict=True,
    ):
        image = axes.imshow(matrix.float().cpu().numpy(), cmap="cividis")
        axes.set(title=title, xlabel="key j", ylabel="query i")
        axes.grid(visible=False)
        figure.colorbar(image, ax=axes, shrink=0.85)
    return figure


@rc_context(STYLE)
def memory_bars(workloads: Sequence[Workload]) -> Picture:
    """How the bytes of Q, K, V, O and of S, P divide, for each workload."""
    figure = Picture()
    axes = figure.subplots()
    for place, w in enumerate(workloads):
        heads, scores = 4 * w.head_bytes, 2 * w.score_bytes
        share = heads / (heads + scores)
        axes.bar(place, share, color=BLUE)
        axes.bar(place, 1 - share, bottom=share, color=ORANGE)
        total = EngFormatter(unit="B", places=1)(heads + scores)
        axes.annotate(total, (place, 1), (0, 4), textcoords="offset points", ha="center")
        axes.annotate("S, P", (place, 0.6), ha="center", color="white")
    axes.annotate("Q, K, V, O", (0, 0.09), ha="center", color="white")
    axes.set_xticks(range(len(workloads)), [f"{w.seq_len}" for w in workloads])
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.grid(visible=False, axis="x")
    axes.set(xlabel="sequence length N", ylabel="share of the bytes", ylim=(0, 1.08))
    return figure


@rc_context(STYLE)
def memory_curves(w: Workload, lengths: Sequence[int], devices: Sequence[Accelerator]) -> Picture:
    """Bytes of Q, K, V, O and of S, P over N on linear axes, with the memory of ``devices``."""
    figure = Picture()
    axes = figure.subplots()
    last = replace(w, seq_len=max(lengths))
    for label, colour, factor, size in (
        ("S, P", ORANGE, 2, "score_bytes"),
        ("Q, K, V, O", BLUE, 4, "head_bytes"),
    ):
        sizes = [factor * getattr(replace(w, seq_len=n), size) for n in lengths]
        axes.plot(lengths, sizes, color=colour)
        _label(axes, last.seq_len, factor * getattr(last, size), label, colour)
    for device in devices:
        _limit(axes, min(lengths), device.memory_bytes, device.name)
    axes.set_xlabel("sequence length N")
    _bytes_axis(axes)
    return figure


@rc_context(STYLE)
def peaks(measurements: Sequence[Measurement], devices: Sequence[Accelerator]) -> Picture:
    """Predicted peaks as lines, measured ones as dots, over N on logarithmic axes.

    A run that ended for want of memory stands as a cross at the peak it would have needed.
    """
    figure = Picture()
    axes = figure.subplots()
    lengths = sorted({m.workload.seq_len for m in measurements})
    first = replace(measurements[0].workload, seq_len=lengths[0])
    across = [replace(first, seq_len=n) for n in lengths]
    axes.plot(lengths, [4 * w.head_bytes for w in across], color=BLUE)
    _label(axes, lengths[-1], 4 * across[-1].head_bytes, "Q, K, V, O", BLUE)
    for training, label, colour, lift in (
        (True, "training", GREEN, 5),
        (False, "inference", ORANGE, -5),
    ):
        runs = [m for m in measurements if m.training == training]
        if not runs:
            continue
        need = [peak_bytes(w, training=training) for w in across]
        axes.plot(lengths, need, color=colour)
        _label(axes, lengths[-1], need[-1], label, colour, lift=lift)
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
        _limit(axes, lengths[0], device.memory_bytes, device.name)
    _lengths_axis(axes, lengths, rotation=30)
    axes.set_yscale("log")
    _bytes_axis(axes)
    return figure


@rc_context(STYLE)
def intensities(
    w: Workload,
    lengths: Sequence[int],
    head_dims: Sequence[int],
    devices: Sequence[Accelerator],
) -> Picture:
    """Arithmetic intensity of the steps over N, against the balance points of ``devices``."""
    figure = Picture(figsize=(8.0, 5.0))
    axes = figure.subplots()
    for d in head_dims:
        steps = [standard_steps(replace(w, seq_len=n, head_dim=d)) for n in lengths]
        line = [step[0].intensity for step in steps]
        axes.plot(lengths, line, color=BLUE)
        _label(axes, lengths[-1], line[-1], f"QKᵀ, PV: d = {d}", BLUE)
    for index in (1, 2):
        line = [step[index].intensity for step in steps]
        axes.plot(lengths, line, color=ORANGE)
        _label(axes, lengths[-1], line[-1], steps[-1][index].name, ORANGE)
    left = lengths[0] / 2.5  # room for the names of the devices
    for device in devices:
        _limit(axes, left, balance(device, matrix=True), device.name)
    _lengths_axis(axes, lengths)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set(xlim=(left, None), ylim=(0.1, 1000))
    axes.set_ylabel("arithmetic intensity (FLOPs per byte)")
    return figure


@rc_context(STYLE)
def stacks(peaks: Mapping[str, Mapping[str, int]]) -> Picture:
    """What is alive at each of several peaks: name -> (label -> bytes), as stacked bars."""
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
        _label(axes, left, place, ", ".join(small), BLUE)
    axes.set_yticks(range(len(peaks)), list(peaks))
    axes.set_xlim(right=1.35 * total)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(EngFormatter(unit="B"))
    axes.set_xlabel("memory alive at the peak")
    return figure


@rc_context(STYLE)
def timeline(traced: Trace) -> Picture:
    """Who is alive when: a bar for each tensor of a trace, and above it the bytes alive."""
    figure = Picture(figsize=(8.0, 1.6 + 0.27 * sum(e.bytes > 0 for e in traced.timeline)))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2.2))
    live = [event.live for event in traced.timeline]
    moment = live.index(traced.peak_bytes)
    above.stairs(live, color=GREY, fill=True, alpha=0.35)
    above.annotate("peak", (moment + 0.5, traced.peak_bytes), ha="center", va="bottom")
    for row, (label, size, start, end) in enumerate(traced.lifetimes):
        colour = ORANGE if size >= traced.workload.score_bytes else BLUE
        below.barh(row, end - start, left=start, color=colour, height=0.7)
        below.annotate(label, (end, row), (4, 0), textcoords="offset points", va="center")
    for axes in (above, below):
        axes.axvspan(moment, moment + 1, color=GREEN, alpha=0.2, linewidth=0)
    below.invert_yaxis()
    below.set_yticks([])
    below.grid(visible=False)
    below.spines.left.set_visible(False)
    below.set(xlabel="allocations and releases, in order", xlim=(0, 1.25 * len(live)))
    above.set_ylim(top=1.25 * traced.peak_bytes)
    _bytes_axis(above)
    return figure


def _limit(axes: Axes, x: float, y: float, name: str) -> None:
    """A device's limit, as a dashed line with its name from ``x`` on."""
    axes.axhline(y, color=GREY, linewidth=1, linestyle="--")
    _label(axes, x, y, name, GREY, above=True)


def _lengths_axis(axes: Axes, lengths: Sequence[int], rotation: float = 0) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [str(n) for n in lengths], rotation=rotation)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("sequence length N")


def _bytes_axis(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(EngFormatter(unit="B"))
    axes.set_ylabel("memory")


def _label(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    colour: str,
    *,
    above: bool = False,
    lift: float = 0,
) -> None:
    """Name a line at its end, or above its beginning."""
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
