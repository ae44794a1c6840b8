"""The book's pictures of what was measured, step by step: times and roofs, bytes counted."""

from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.colors import to_rgba

from attnmem.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE, Picture

COLOURS = {"memory": BLUE, "cache": BLUE, "compute": GREEN, "kernel": ORANGE, "launches": GREY}


@rc_context(STYLE)
def shares(
    found: Mapping[str, Sequence[tuple[float, str]]], cases: Sequence[str], of: str
) -> Picture:
    """A map of each step (name -> a share of its roof and what limits it, per case), over cases.

    The colour is what limits the step, and the stronger the larger the share. Where launches do, a
    share of a roof says nothing, and none is shown. ``of`` says what the cases are.
    """
    figure = Picture(figsize=(6.4, 3.2))
    axes = figure.subplots()
    cells = [
        [
            to_rgba(COLOURS[limit], 0.15 + 0.6 * min(share, 1) * (limit != "launches"))
            for share, limit in row
        ]
        for row in found.values()
    ]
    axes.imshow(cells, aspect="auto")
    for y, row in enumerate(found.values()):
        for x, (share, limit) in enumerate(row):
            words = limit if limit == "launches" else f"{share:.0%}\n{limit}"
            axes.annotate(words, (x, y), ha="center", va="center")
    axes.set_xticks(range(len(cases)), cases)
    axes.set_yticks(range(len(found)), list(found))
    axes.set_xlabel(of)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


@rc_context(STYLE)
def over_roof(times: Mapping[str, Mapping[str, tuple[float, float]]]) -> Picture:
    """Times of steps (step -> device -> the least seconds, the seconds taken), a bar for each.

    A bar is blue as far as the roof allows, and orange beyond. The devices of a step stand below
    each other.
    """
    rows = [
        (f"{step}, {device}", 1e3 * least, 1e3 * taken)
        for step, devices in times.items()
        for device, (least, taken) in devices.items()
    ]
    names, roofs, taken = zip(*rows, strict=True)
    figure = Picture(figsize=(6.4, 1.4 + 0.36 * len(rows)))
    axes = figure.subplots()
    devices = len(rows) // len(times)
    places = [row + 0.5 * (row // devices) for row in range(len(rows))]
    rest = [whole - roof for whole, roof in zip(taken, roofs, strict=True)]
    axes.barh(places, roofs, color=BLUE, label="roof")
    axes.barh(places, rest, left=roofs, color=ORANGE, label="beyond the roof")
    for place, whole in zip(places, taken, strict=True):
        at = whole, place
        axes.annotate(f"{whole:.2f}", at, (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="time (ms)", xlim=(0, 1.12 * max(taken)))
    figure.legend(frameon=False, loc="outside upper center", ncols=2)
    return figure


@rc_context(STYLE)
def traffic(
    shares: Mapping[str, Sequence[float]], sizes: Sequence[int], limits: Mapping[str, float]
) -> Picture:
    """Counted over predicted bytes of each step (name -> a share per size), over the bytes of S.

    ``limits`` are sizes to mark, by name.
    """
    figure = Picture()
    axes = figure.subplots()
    megabytes = [size / 1e6 for size in sizes]
    styles = [*zip("os^v", (BLUE, ORANGE, GREEN, GREY), strict=True)][: len(shares)]
    for (name, line), (marker, colour) in zip(shares.items(), styles, strict=True):
        axes.plot(megabytes, line, marker=marker, color=colour, label=name)
    for height, (name, size) in enumerate(limits.items()):
        axes.axvline(size / 1e6, color=GREY, linewidth=1, linestyle="--")
        axes.annotate(
            name, (size / 1e6, 0.02 + 0.1 * height), (4, 0), textcoords="offset points", color=GREY
        )
    axes.axhline(1, color=GREY, linewidth=1)
    axes.legend(frameon=False)  # the lines cross: names at their ends would lie on each other
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="size of S (MB)", ylabel="counted / predicted bytes", ylim=(0, None))
    return figure
