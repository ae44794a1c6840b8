"""The picture of an allocator: segments, the blocks cut from them, and what "reserved" is."""

from matplotlib import rc_context
from matplotlib.ticker import StrMethodFormatter

from attnmem.figures.style import BLUE, GREY, ORANGE, STYLE, Picture
from attnmem.prediction.allocator import FAR, CachingAllocator
from attnmem.prediction.trace import Trace

MIB = 2**20


@rc_context(STYLE)
def segments(traced: Trace) -> Picture:
    """PyTorch's allocator at the peak of a run, from an empty cache: a row for each segment.

    Solid is what tensors asked for, orange those of at least S; hatched is what their blocks have
    beyond that; white belongs to no block in use. The three sums below are requested, allocated and
    reserved bytes at this moment, all in MiB on one scale.
    """
    peak = [event.live for event in traced.timeline].index(traced.peak_bytes)
    lives = traced.lifetimes
    allocator, sizes, blocks = CachingAllocator(), [], {}
    for place in range(peak + 1):
        for tensor, (_, size, start, end) in enumerate(lives):
            if start == place:
                had = allocator.reserved
                blocks[tensor] = allocator.allocate(size)
                sizes += [allocator.reserved - had] if allocator.reserved > had else []
            elif end == place:
                allocator.free(blocks.pop(tensor))

    large = traced.workload.score_bytes if traced.workload else traced.peak_bytes / 2
    figure = Picture(figsize=(6.0, 1.5 + 0.55 * (len(sizes) + 3)))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(len(sizes), 3))
    above.barh(range(len(sizes)), [x / MIB for x in sizes], color="white", edgecolor=GREY)
    for tensor, block in blocks.items():
        label, size, *_ = lives[tensor]
        row, left = block.address // FAR, block.address % FAR / MIB
        colour = ORANGE if size >= large else BLUE
        above.barh(row, block.size / MIB, left=left, color="white", edgecolor=colour, hatch="////")
        above.barh(row, size / MIB, left=left, color=colour, edgecolor="white")
        above.text(
            left + size / MIB / 2, row, label, color="white", fontsize=9, ha="center", va="center"
        )
    above.set_yticks(range(len(sizes)), [f"segment {row + 1}" for row in range(len(sizes))])

    sums = {
        "requested": traced.peak_bytes,
        "allocated": allocator.allocated,
        "reserved": allocator.reserved,
    }
    for row, size in enumerate(sums.values()):
        below.barh(row, size / MIB, color=GREY)
        below.annotate(
            f"{size / MIB:.1f}", (size / MIB, row), (4, 0), textcoords="offset points", va="center"
        )
    below.set_yticks(range(3), list(sums))
    below.set(xlabel="MiB", xlim=(0, 1.15 * allocator.reserved / MIB))
    below.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    for axes in (above, below):
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
    return figure
