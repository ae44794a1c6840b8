"""Every figure draws its numbers: bars, lines and marks where they belong, each with its name."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex, to_rgba
from matplotlib.text import Text

from attnmem import Workload, figures, standard_attention, trace
from attnmem.catalog import accelerator
from attnmem.catalog.levels import levels
from attnmem.figures.blocks import COLOURS
from attnmem.figures.style import BLUE, GREEN, GREY, ORANGE
from attnmem.formulas import alive_at_peak, peak_bytes, standard_steps
from attnmem.lessons.table import Table
from attnmem.measurement.records import load
from attnmem.roofline import ridge_point
from attnmem.tiles import costs

W = Workload(batch=1, heads=12, seq_len=512, head_dim=64, dtype=torch.float16)
RUNS = [
    m
    for m in load().measurements
    if m.program == "standard_attention" and m.warm_up and replace(m.workload, seq_len=512) == W
]
LENGTHS = [512, 1024, 65536]
ACROSS = [replace(W, seq_len=n) for n in LENGTHS]
CARD = accelerator("RTX 4090")
SQUARE = torch.arange(16.0).view(4, 4)
FLAT = torch.tensor([[0.5, 0.25], [1.0, 0.0], [0.004, 2.0], [0.125, 0.75]])
TRAINING = trace(standard_attention, W, training=True)
ODD = trace(standard_attention, replace(W, seq_len=777))
PEAKS = [
    figures.Peak("one", False, 2 * 10**9, "2S", 2 * 10**9 + 5),
    figures.Peak("one", True, 4 * 10**9, "4S", None),
    figures.Peak("two", False, 10**7, "4X", 10**7),
]
ROOFS = [figures.Roof("f16", 2e12, 4e14), figures.Roof("f32", 2e12, 5e13)]
PREDICTED = [figures.Point("product", 60.0, 1.2e14), figures.Point("softmax", 1.25, 2.5e12)]
MEASURED = [figures.Point("product", 50.0, 9e13), figures.Point("softmax", 1.0, 1e12)]
SHARES = {
    "QKᵀ": [0.5, 0.75, 1.0],
    "scale": [0.25, 0.5, 1.0],
    "softmax": [0.5, 0.75, 1.5],
    "PV": [0.125, 0.5, 1.25],
}
LIMITS = {"half of L2": 2 * 10**7, "L2": 4 * 10**7}
OF_ROOFS = {
    "scale": [(0.25, "launches"), (0.75, "memory")],
    "softmax": [(0.5, "launches"), (0.25, "kernel")],
}
OVER_ROOFS: dict[str, dict[str, tuple[float, float]]] = {
    "scale": {"A": (1e-3, 1.25e-3), "B": (5e-4, 1e-3)},
    "PV": {"A": (0, 2e-3), "B": (0, 1e-3)},
}

KEPT = {16: 65.0 * W.head_bytes, 32: 33.0 * W.head_bytes}
ONE, TWO = {512: 1e6, 1024: 4e6}, {512: 1e5, 1024: 2e5}

DRAW: dict[str, Callable[[], Any]] = {
    "shapes": lambda: figures.shapes(replace(W, seq_len=1024)),
    "matrices": lambda: figures.matrices({"S": (SQUARE, "abcd"), "O": (FLAT, "xy")}, "abcd"),
    "program_peaks": lambda: figures.program_peaks(PEAKS, 10**9),
    "segments": lambda: figures.segments(ODD),
    "memory_bars": lambda: figures.memory_bars([W, replace(W, seq_len=1024)]),
    "memory_curves": lambda: figures.memory_curves(W, LENGTHS, [CARD]),
    "peaks": lambda: figures.peaks(RUNS, [CARD]),
    "hierarchy": lambda: figures.hierarchy(levels(accelerator("H100 SXM")), "S", 10**9),
    "intensities": lambda: figures.intensities(W, LENGTHS, [64, 128], [CARD]),
    "roof": lambda: figures.roof(ROOFS[0], PREDICTED, ROOFS[1]),
    "rooflines": lambda: figures.rooflines(ROOFS, PREDICTED, MEASURED, {"exp": 4e12}),
    "shares": lambda: figures.shares(OF_ROOFS, ["a", "b"], "cases"),
    "over_roof": lambda: figures.over_roof(OVER_ROOFS),
    "traffic": lambda: figures.traffic(SHARES, [10**6, 10**7, 10**8], LIMITS),
    "lifetimes": lambda: figures.lifetimes(TRAINING),
    "live": lambda: figures.live({"one": TRAINING, "two": TRAINING}),
    "profiles": lambda: figures.profiles({"one": TRAINING, "two": TRAINING}, {"P": "weights"}),
    "tiles": lambda: figures.tiles(blocks=3, row=1, column=2),
    "block_traffic": lambda: figures.block_traffic(W, KEPT, 3.0 * W.head_bytes),
    "token_cost": lambda: figures.token_cost({"one": 12e9, "two": 24e9}, 4e12, 8e10, 1e15),
    "pages": lambda: figures.pages((20, 50), 64, 16),
    "programs_at_work": lambda: figures.programs_at_work({"few": 2, "many": 99}, 30),
    "over_bytes": lambda: figures.over_bytes(
        {"one": [(1e6, 3.0), (1e9, 1.5)], "two": [(4e9, 0.9)]}, 1e9, 0.5
    ),
    "held": lambda: figures.held(3, 1),
    "balance": lambda: figures.balance(3),
    "rank_peaks": lambda: figures.rank_peaks({"one": {2: 7, 8: 9}}, {"one": {2: 7}}),
    "links": lambda: figures.links(8e13, {"fast": 8e10, "slow": 1e10}, [(512, 1e13), (4096, 7e13)]),
    "step_bytes": lambda: figures.step_bytes(16e9, 1e9, [1, 4, 16]),
    "across": lambda: figures.across({"one": ONE, "two": TWO}, {"one": ONE}, lifts={"one": 5}),
    "stacks": lambda: figures.stacks(
        {"inference": alive_at_peak(W), "less": {"q": 1000, "S": 10**7}}
    ),
    "ledger": lambda: figures.ledger(
        {
            "before": {"a": 4, "b": 2, "c": 1, "d": 1, "e": 8},
            "after": {"a": 0, "b": 1, "c": 1, "d": 1, "e": 8},
        }
    ),
}


def lines(axes):
    """The data of each line, x and y."""
    return [([*line.get_xdata()], [*line.get_ydata()]) for line in axes.lines]


def marked(axes, marker):
    """The points with a marker, from left to right."""
    found = (line for line in axes.lines if line.get_marker() == marker)
    return sorted(point for line in found for point in zip(*line.get_data(), strict=True))


def written(axes):
    """What is written in the axes, and at which point of the data."""
    return [(text.get_text(), getattr(text, "xy", text.get_position())) for text in axes.texts]


def labels(axes):
    return axes.get_xlabel(), axes.get_ylabel()


def ticks(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def bars(axes):
    """Each bar: left, bottom, width, height."""
    found = [bar for container in axes.containers for bar in container]
    return [(bar.get_x(), bar.get_y(), bar.get_width(), bar.get_height()) for bar in found]


def stairs(axes):
    (found,) = (patch for patch in axes.patches if hasattr(patch, "get_data"))
    return stairs_of(found)


def stairs_of(patch):
    """The level of stairs at each place."""
    levels, edges, _ = patch.get_data()
    widths = np.diff(edges).astype(int)
    return list(np.repeat(levels, widths))


def test_every_figure_is_tested():
    assert set(DRAW) | {"Peak", "Point", "Roof"} == set(figures.__all__)


@pytest.mark.parametrize("name", DRAW)
def test_a_figure_is_the_same_svg_every_time(name):
    svg = DRAW[name]()._repr_svg_()
    assert svg == DRAW[name]()._repr_svg_()
    assert svg.lstrip().startswith("<?xml")
    assert "<svg" in svg


@pytest.mark.parametrize("name", DRAW)
def test_no_label_is_cut_off(name):
    figure = DRAW[name]()
    figure.draw_without_rendering()
    for axes in figure.axes:
        texts = (*axes.texts, axes.xaxis.label, axes.yaxis.label)
        for text in filter(Text.get_text, texts):
            box = text.get_window_extent()
            assert 0 <= box.x0 <= box.x1 <= figure.bbox.x1, text
            assert 0 <= box.y0 <= box.y1 <= figure.bbox.y1, text


def test_shapes_are_drawn_to_scale():
    (axes,) = DRAW["shapes"]().axes
    names = [title.split("\n") for title, _ in written(axes) if "\n" in title]
    assert dict(names) == dict.fromkeys("QVO", "1024 × 64") | {
        "Kᵀ": "64 × 1024",
        "S": "1024 × 1024",
        "P": "1024 × 1024",
    }
    drawn = [(box.get_height(), box.get_width()) for box in axes.patches if hasattr(box, "get_xy")]
    assert [" × ".join(map(str, size)) for size in drawn] == [size for _, size in names]
    assert axes.get_aspect() == 1
    assert {text for text, _ in written(axes)} >= {"×", "=", "softmax"}


def test_matrices_write_each_number_where_it_belongs():
    left, right = DRAW["matrices"]().axes
    assert [axes.get_title() for axes in (left, right)] == ["S", "O"]
    for axes, matrix, columns in ((left, SQUARE, "abcd"), (right, FLAT, "xy")):
        (image,) = axes.images
        assert image.get_array().tolist() == matrix.tolist()
        assert ticks(axes.xaxis) == list(columns)
    assert ticks(left.yaxis) == list("abcd")
    assert {at: text for text, at in written(left)} == {
        (j, i): str(4 * i + j) for i in range(4) for j in range(4)
    }
    assert [text for text, _ in written(right)] == [
        ".50",
        ".25",
        "1",
        "0",
        ".00",
        "2",
        ".12",
        ".75",
    ]
    # Orange where both sides are tokens, blue where one is a list of numbers.
    assert left.images[0].cmap(1.0) == to_rgba(ORANGE)
    assert right.images[0].cmap(1.0) == to_rgba(BLUE)


def test_program_peaks_has_a_bar_for_each_run_and_a_dot_for_each_measurement():
    (axes,) = DRAW["program_peaks"]().axes
    drawn = [(left, bottom + height / 2, width) for left, bottom, width, height in bars(axes)]
    assert drawn == [(0, pytest.approx(y), x) for x, y in ((2, -0.2), (4, 0.2), (0.01, 0.8))]
    assert written(axes)[:3] == [("2S", (2, -0.2)), ("4S", (4, 0.2)), ("4X", (0.01, 0.8))]
    assert marked(axes, "o") == [(0.01, 0.8), (2 + 5e-9, -0.2)]
    assert ticks(axes.yaxis) == ["one", "two"]
    assert ticks(axes.xaxis) == ["0", "S", "2S", "3S", "4S"]
    colours = [bar[0].get_facecolor() for bar in axes.containers]
    assert colours == [to_rgba(colour) for colour in (ORANGE, GREEN, ORANGE)]


def test_segments_hold_their_blocks_and_add_up():
    above, below = DRAW["segments"]().axes
    # Q, K, V and O in a segment of 20 MiB, with P where QKᵀ was; S in a segment of its own.
    whole = bars(above)[:2]
    assert [width for _, _, width, _ in whole] == [20, 14]
    inside = [(left, bottom + 0.4, width) for left, bottom, width, _ in bars(above)[2:]]
    blocks, tensors = inside[::2], inside[1::2]
    names = [name for name, _ in written(above)]
    assert names == ["Q", "K", "V", "S", "P", "O"]
    assert [row for _, row, _ in blocks] == [0, 0, 0, 1, 0, 0]
    assert sum(width for _, _, width in tensors) == ODD.peak_bytes / 2**20
    assert sum(width for _, _, width in blocks) == ODD.peak_allocated_bytes / 2**20
    first = sorted(left for left, row, _ in blocks if row == 0)
    assert first[0] == 0
    for (left, _, width), (_, _, tensor) in zip(blocks, tensors, strict=True):
        assert tensor <= width <= tensor + 1 + 1 / 2048
        assert left + width in [*first, max(first) + blocks[-1][2], 14.0]
    sums = [width for _, _, width, _ in bars(below)]
    assert sums == [
        size / 2**20 for size in (ODD.peak_bytes, ODD.peak_allocated_bytes, ODD.peak_reserved_bytes)
    ]
    assert ticks(below.yaxis) == ["requested", "allocated", "reserved"]
    assert [name for name, _ in written(below)] == ["32.2", "32.4", "34.0"]


def test_memory_bars_divides_the_bytes():
    (axes,) = DRAW["memory_bars"]().axes
    # N = 512: 4X = 3.1 MB, and 2S = 12.6 MB, a fifth and four fifths.
    assert bars(axes) == [
        (-0.4, 0, 0.8, pytest.approx(1 / 5)),
        (-0.4, pytest.approx(1 / 5), 0.8, pytest.approx(4 / 5)),
        (0.6, 0, 0.8, pytest.approx(1 / 9)),
        (0.6, pytest.approx(1 / 9), 0.8, pytest.approx(8 / 9)),
    ]
    first, second = (
        [("15.7 MB", (0, 1)), ("S, P", (0, 0.6))],
        [("56.6 MB", (1, 1)), ("S, P", (1, 0.6))],
    )
    assert written(axes) == [*first, *second, ("Q, K, V, O", (0, 0.09))]
    assert ticks(axes.xaxis) == ["512", "1024"]
    assert labels(axes) == ("sequence length N", "share of the bytes")


def test_memory_curves_end_at_their_names_below_the_card():
    (axes,) = DRAW["memory_curves"]().axes
    scores, heads, card = lines(axes)
    assert scores == (LENGTHS, [2 * w.score_bytes for w in ACROSS])
    assert heads == (LENGTHS, [4 * w.head_bytes for w in ACROSS])
    assert card[1] == [CARD.memory_bytes] * 2
    assert dict(written(axes)) == {
        "S, P": (65536, 2 * ACROSS[-1].score_bytes),
        "Q, K, V, O": (65536, 4 * ACROSS[-1].head_bytes),
        "RTX 4090": (512, CARD.memory_bytes),
    }
    assert labels(axes) == ("sequence length N", "memory")


def test_peaks_shows_every_run_on_the_line_that_predicts_it():
    (axes,) = DRAW["peaks"]().axes
    lengths = sorted({m.workload.seq_len for m in RUNS})
    across = [replace(W, seq_len=n) for n in lengths]
    predicted = {
        "Q, K, V, O": [4 * w.head_bytes for w in across],
        "training": [peak_bytes(w, training=True) for w in across],
        "inference": [peak_bytes(w) for w in across],
    }
    for line in predicted.values():
        assert (lengths, line) in lines(axes)
    assert dict(written(axes)) == {
        name: (lengths[-1], line[-1]) for name, line in predicted.items()
    } | {"RTX 4090": (lengths[0], CARD.memory_bytes)}
    done = [m for m in RUNS if not m.out_of_memory]
    failed = [m for m in RUNS if m.out_of_memory]
    assert marked(axes, "o") == sorted((m.workload.seq_len, m.peak_bytes) for m in done)
    assert marked(axes, "x") == sorted(
        (m.workload.seq_len, peak_bytes(m.workload, training=m.training)) for m in failed
    )
    assert done
    assert failed
    assert ticks(axes.xaxis) == [str(n) for n in lengths]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert labels(axes) == ("sequence length N", "memory")


def test_intensities_are_those_of_the_steps():
    (axes,) = DRAW["intensities"]().axes
    product, wide, scaling, softmax, card = lines(axes)
    for line, sizes, index in ((product, ACROSS, 0), (scaling, ACROSS, 1), (softmax, ACROSS, 2)):
        assert line == (LENGTHS, [standard_steps(w)[index].intensity for w in sizes])
    assert wide[1] == [standard_steps(replace(w, head_dim=128))[0].intensity for w in ACROSS]
    assert card[1] == [ridge_point(CARD, matrix=True)] * 2
    assert dict(written(axes)) == {
        "QKᵀ, PV: d = 64": (65536, product[1][-1]),
        "QKᵀ, PV: d = 128": (65536, wide[1][-1]),
        "scale": (65536, scaling[1][-1]),
        "softmax": (65536, softmax[1][-1]),
        "RTX 4090": (pytest.approx(512 / 2.5), card[1][0]),
    }
    assert ticks(axes.xaxis) == ["512", "1024", "65536"]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert labels(axes) == ("sequence length N", "arithmetic intensity (FLOPs per byte)")


def test_a_roof_bends_at_its_ridge_and_has_a_dot_for_each_step():
    (axes,) = DRAW["roof"]().axes
    left, right = axes.get_xlim()
    assert lines(axes)[0] == ([left, 200, right], [2e12 * left, 4e14, 4e14])
    assert left < min(p.intensity for p in PREDICTED)
    assert ([25, right], [5e13, 5e13]) in lines(axes)
    assert marked(axes, "o") == sorted((p.intensity, p.flops_per_second) for p in PREDICTED)
    places = dict(written(axes))
    assert places["f32: 25 FLOP/B"] == (right, 5e13)
    assert places["product"] == (60, 1.2e14)
    assert places["memory\nlimits"][0] < 200 < places["arithmetic\nlimits"][0]
    assert "balance point\n200 FLOP/B" in places
    assert labels(axes) == ("FLOPs per byte", "arithmetic")


def test_rooflines_bend_at_their_ridges_and_join_what_should_be_to_what_is():
    (axes,) = DRAW["rooflines"]().axes
    left, right = axes.get_xlim()
    assert (left, right) == (0.5, 800)
    first, second, level = lines(axes)[:3]
    assert first == ([left, 200, right], [1e12, 4e14, 4e14])
    assert second == ([left, 25, right], [1e12, 5e13, 5e13])
    assert level == ([2, right], [4e12, 4e12])
    assert [line.get_linestyle() for line in axes.lines[:3]] == ["-", "--", ":"]
    for was, found in zip(PREDICTED, MEASURED, strict=True):
        joined = [was.intensity, found.intensity], [was.flops_per_second, found.flops_per_second]
        assert joined in lines(axes)
    rings = [line for line in axes.lines if line.get_fillstyle() == "none"]
    points = [(p.intensity, p.flops_per_second) for p in PREDICTED + MEASURED]
    assert marked(axes, "o") == sorted(points)
    assert [line.get_xdata()[0] for line in rings] == [p.intensity for p in PREDICTED]
    assert dict(written(axes)) == {
        "f16": (right, 4e14),
        "f32": (right, 5e13),
        "exp": (right, 4e12),
        "product": (50, 9e13),
        "softmax": (1, 1e12),
    }
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert labels(axes) == ("FLOPs per byte", "arithmetic")


def test_shares_colours_each_cell_by_its_limit_the_stronger_the_larger_the_share():
    (axes,) = DRAW["shares"]().axes
    texts = ["launches", "75%\nmemory", "launches", "25%\nkernel"]
    assert [text for text, _ in written(axes)] == texts
    assert [place for _, place in written(axes)] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    (image,) = axes.images
    (quarter, memory), (half, kernel) = image.get_array()
    assert tuple(quarter[:3]) == tuple(half[:3]) == pytest.approx(to_rgba(GREY)[:3])
    assert tuple(memory[:3]) == pytest.approx(to_rgba(BLUE)[:3])
    assert tuple(kernel[:3]) == pytest.approx(to_rgba(ORANGE)[:3])
    assert quarter[3] == half[3] < kernel[3] < memory[3]
    assert (ticks(axes.xaxis), ticks(axes.yaxis)) == (["a", "b"], list(OF_ROOFS))
    assert axes.get_xlabel() == "cases"


def test_over_roof_stacks_what_a_step_took_beyond_its_roof_on_the_roof():
    figure = DRAW["over_roof"]()
    (axes,) = figure.axes
    roofs, rest = axes.containers
    assert [bar.get_width() for bar in roofs] == [1, 0.5, 0, 0]
    assert [(bar.get_x(), bar.get_width()) for bar in rest] == [
        (1, 0.25),
        (0.5, 0.5),
        (0, 2),
        (0, 1),
    ]
    assert {to_hex(bar.get_facecolor()).upper() for bar in roofs} == {BLUE}
    assert {to_hex(bar.get_facecolor()).upper() for bar in rest} == {ORANGE}
    middles = [bar.get_y() + bar.get_height() / 2 for bar in roofs]
    assert middles == pytest.approx([0, 1, 2.5, 3.5])  # a gap between steps
    assert written(axes) == [
        (text, (float(text), at))
        for text, at in zip(("1.25", "1.00", "2.00", "1.00"), [0, 1, 2.5, 3.5], strict=True)
    ]
    assert ticks(axes.yaxis) == ["scale, A", "scale, B", "PV, A", "PV, B"]
    assert axes.get_xlabel() == "time (ms)"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["roof", "beyond the roof"]


def test_traffic_shows_every_share_and_where_the_cache_ends():
    (axes,) = DRAW["traffic"]().axes
    *shares, half, whole, one = lines(axes)
    assert shares == [([1, 10, 100], share) for share in SHARES.values()]
    assert len({line.get_marker() for line in axes.lines[:4]}) == 4
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(SHARES)
    assert (half[0], whole[0]) == ([20, 20], [40, 40])
    assert one[1] == [1, 1]
    assert [(name, x) for name, (x, _) in written(axes)] == [("half of L2", 20), ("L2", 40)]
    assert labels(axes) == ("size of S (MB)", "counted / predicted bytes")


def test_names_of_a_roofline_do_not_lie_on_each_other():
    close = [figures.Point(name, 60.0, 3.9e14) for name in ("one", "two", "three")]
    figure = figures.rooflines(ROOFS[:1], close, close, {"exp": 3.8e14})
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert [a.overlaps(b) for a, b in itertools.combinations(boxes, 2)] == [False] * 10


def test_lifetimes_has_a_bar_for_each_tensor_and_marks_the_peak():
    above, below = DRAW["lifetimes"]().axes
    live = [event.live for event in TRAINING.timeline]
    assert stairs(above) == live
    peak = live.index(TRAINING.peak_bytes)
    assert dict(written(above)) == {"29.88 MB": (peak + 0.5, 1.05 * TRAINING.peak_bytes)}
    for axes in (above, below):
        span = axes.patches[-1]
        assert (span.get_x(), span.get_width()) == (peak, 1)

    tensors = TRAINING.lifetimes
    assert len(bars(below)) == len(tensors) == sum(event.bytes > 0 for event in TRAINING.timeline)
    drawn = [(left, bottom + height / 2, width) for left, bottom, width, height in bars(below)]
    assert drawn == [
        (start, pytest.approx(row), end - start) for row, (_, _, start, end) in enumerate(tensors)
    ]
    assert written(below) == [(name, (end, row)) for row, (name, _, _, end) in enumerate(tensors)]
    large = [bar[0].get_facecolor() == to_rgba(ORANGE) for bar in below.containers]
    assert large == [size >= W.score_bytes for _, size, _, _ in tensors]
    assert below.get_xlabel() == "allocations and releases, in order"
    assert above.get_ylabel() == "memory"


def test_live_shows_each_run_and_where_its_backward_begins():
    rows = DRAW["live"]().axes
    assert [axes.get_title(loc="right") for axes in rows] == ["one", "two"]
    begins = [event.label for event in TRAINING.timeline].index("dO")
    for axes in rows:
        assert stairs(axes) == [event.live for event in TRAINING.timeline]
        assert [x for x, _ in lines(axes)] == [[begins, begins]]
        assert dict(written(axes)) == {"forward": (begins, 1), "backward": (begins, 1)}
        assert axes.get_ylabel() == "memory"
    assert rows[0].get_ylim() == rows[1].get_ylim()
    assert rows[-1].get_xlabel() == "allocations and releases, in order"


def test_profiles_stack_bands_up_to_what_is_alive():
    rows = DRAW["profiles"]().axes
    assert [axes.get_title(loc="right") for axes in rows] == ["one", "two"]
    alive = [event.live for event in TRAINING.timeline]
    large = [life for life in TRAINING.lifetimes if life[1] > TRAINING.peak_bytes / 40]
    for axes in rows:
        bands = [band.get_paths()[0].get_extents() for band in axes.collections]
        assert [(band.x0, band.x1) for band in bands] == [(start, end) for *_, start, end in large]
        assert max(band.y1 for band in bands) == max(alive)
        rest = [
            live - sum(size for _, size, start, end in large if start <= at < end)
            for at, live in enumerate(alive)
        ]
        kept, small = (patch for patch in axes.patches if hasattr(patch, "get_data"))
        unseen = TRAINING.peak_bytes / 500  # less than a pixel
        assert stairs_of(small) == pytest.approx(rest, abs=unseen)
        assert list(small.get_data().baseline) == list(kept.get_data().values)
        assert "weights" in dict(written(axes))
        assert dict(written(axes))["29.9 MB"] == (alive.index(max(alive)), max(alive))
        assert axes.get_ylabel() == "memory"
    assert rows[0].get_ylim() == rows[1].get_ylim()
    assert rows[-1].get_xlabel() == "allocations and releases, in order"


def test_profiles_share_their_time_or_fill_the_figure():
    inference = trace(standard_attention, W)
    runs = {"long": TRAINING, "short": inference}
    longest, shortest = len(TRAINING.timeline), len(inference.timeline)
    for same, width in ((True, longest), (False, shortest)):
        long, short = figures.profiles(runs, same_time=same).axes
        assert long.get_xlim() == (0, longest)
        assert short.get_xlim() == (0, width)
        assert long.get_ylim() == short.get_ylim()


def test_profiles_show_what_is_kept_of_small_tensors():
    w = replace(W, seq_len=2048)
    figure = figures.profiles({"": trace(standard_attention, w, training=True)})
    (axes,), (legend,) = figure.axes, figure.legends
    kept, _ = (patch for patch in axes.patches if hasattr(patch, "get_data"))
    assert max(stairs_of(kept)) == 4 * w.head_bytes  # Q, K, V and O
    assert legend.get_texts()[1].get_text().startswith("kept")


def test_stacks_adds_up_to_each_peak():
    (axes,) = DRAW["stacks"]().axes
    alive = sorted(alive_at_peak(W).items(), key=lambda item: -item[1])
    widths = [width for _, _, width, _ in bars(axes)]
    assert widths == [size for _, size in alive] + [10**7, 1000]
    lefts = [left for left, *_ in bars(axes)]
    assert lefts == [sum(widths[:n]) for n in range(len(alive))] + [0, 10**7]
    inside = [(name, (sum(widths[:n]) + widths[n] / 2, 0)) for n, (name, _) in enumerate(alive)]
    # Small tensors have their names at the end.
    end, less = ("", (peak_bytes(W), 0)), [("S", (10**7 / 2, 1)), ("q", (10**7 + 1000, 1))]
    assert written(axes) == [*inside, end, *less]
    assert ticks(axes.yaxis) == ["inference", "less"]
    assert axes.get_xlabel() == "memory alive at the peak"


def test_ledger_puts_the_same_parts_end_to_end_in_each_bar():
    figure = DRAW["ledger"]()
    (axes,) = figure.axes
    placed = [(left, width) for left, _, width, _ in bars(axes)]
    before = [(0, 4), (4, 2), (6, 1), (7, 1), (8, 8)]
    after = [(0, 0), (0, 1), (1, 1), (2, 1), (3, 8)]
    assert placed == [bar for pair in zip(before, after, strict=True) for bar in pair]
    assert written(axes) == [("16 B", (16, 0)), ("11 B", (11, 1))]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*"abcde"]


def test_hierarchy_shows_what_each_level_holds_and_delivers():
    card = accelerator("H100 SXM")
    held, fast = DRAW["hierarchy"]().axes
    ends = {y[0]: x[1] for x, y in lines(held) if len(x) == 2 and y[0] == y[1]}
    sizes = {0: 33 * 2**20, 1: 132 * 228 * 2**10, 2: 50 * 2**20, 3: card.memory_bytes}
    assert ends == sizes
    ends = {y[0]: x[1] for x, y in lines(fast) if y[0] == y[1]}
    assert ends == {1: pytest.approx(132 * 128 * 1.83e9), 3: 3.35e12, 4: 64e9}
    assert [text for text, _ in written(held)] == [
        *("34.6 MB", "30.8 MB", "52.4 MB", "85.9 GB", "as the machine has", "S")
    ]
    assert [text for text, _ in written(fast)].count("not printed") == 2
    assert lines(held)[-1][0] == [10**9, 10**9]
    assert ticks(held.yaxis)[0] == "registers"


def test_levels_are_known_of_hopper_alone():
    with pytest.raises(ValueError, match="H100 SXM or an H200 SXM, got A100"):
        levels(accelerator("A100 80 GB SXM4"))


def test_tiles_shows_one_tile_at_work_and_what_is_merged():
    (axes,) = DRAW["tiles"]().axes
    assert [text for text, _ in written(axes)].count("merged") == 2
    assert ("S", (2.5, 1.5)) in written(axes)
    filled = [p for p in axes.patches if p.get_facecolor() != to_rgba("white")]
    places = [(p.get_x(), p.get_y()) for p in filled if hasattr(p, "get_x")]
    assert set(places) == {(2, 1), (-1.4, 1), (3.6, 1), (4.1, 1), (2, -2.5), (2, -1.4)}


def test_block_traffic_shows_the_formula_and_what_was_counted():
    (axes,) = DRAW["block_traffic"]().axes
    line, counted, memory = lines(axes)
    assert line == ([16, 32], [costs.received(W, b) / W.head_bytes for b in (16, 32)])
    assert counted == ([16, 32], [size / W.head_bytes for size in KEPT.values()])
    assert memory[1] == [3] * 2
    assert labels(axes) == ("queries b of a block", "received")


def test_across_draws_each_program_and_what_was_measured():
    (axes,) = DRAW["across"]().axes
    assert lines(axes) == [([*x], [*x.values()]) for x in (ONE, TWO, ONE)]
    assert axes.lines[0].get_color() == axes.lines[2].get_color() != axes.lines[1].get_color()
    assert dict(written(axes)) == {"one": (1024, 4e6), "two": (1024, 2e5)}
    assert labels(axes) == ("sequence length N", "peak")
    (times,) = figures.across({"one": {512: 0.5}}, {}, of="time", unit="s").axes
    assert labels(times) == ("sequence length N", "time")
    assert times.yaxis.get_major_formatter()(0.5) == "500 ms"


def test_token_cost_adds_what_is_read_and_shows_how_little_is_computed():
    (axes,) = DRAW["token_cost"]().axes
    expected = [(0, -0.35, 3, 0.7), (3, -0.35, 6, 0.7), (0, 0.65, 0.08, 0.7)]
    assert bars(axes) == [pytest.approx(bar) for bar in expected]
    names = [text for text, _ in written(axes)]
    assert names == ["one, 12.00 GB\n3.00 ms", "two, 24.00 GB\n6.00 ms", "80 GFLOPs\n0.080 ms"]
    assert ticks(axes.yaxis) == ["reading", "arithmetic"]


def test_pages_shows_what_is_reserved_and_pages_in_turn():
    above, below = DRAW["pages"]().axes

    def filled(axes):
        solid = [p for p in axes.patches if p.get_facecolor()[3]]
        return [(p.get_x(), p.get_width()) for p in solid]

    assert filled(above) == [(0, 20), (64, 50)]
    # Two pages of the one and four of the other, in turn; the last of each is not full.
    assert filled(below) == [(0, 16), (16, 16), (32, 4), (48, 16), (64, 16), (80, 2)]
    assert [place for _, place in written(below)] == [(104, 0.5)]


def test_programs_at_work_fills_a_box_for_each_program_as_far_as_there_are_boxes():
    few, many = DRAW["programs_at_work"]().axes
    for axes, filled in ((few, 2), (many, 30)):
        colours = [p.get_facecolor() for p in axes.patches]
        assert colours == [to_rgba(ORANGE)] * filled + [to_rgba("none")] * (30 - filled)
        assert len({p.get_xy() for p in axes.patches}) == 30
    assert [axes.get_title() for axes in (few, many)] == ["few", "many"]


def test_over_bytes_shows_each_ratio_and_where_it_is_near_one():
    (axes,) = DRAW["over_bytes"]().axes
    assert marked(axes, "o") == [(1e6, 3.0), (1e9, 1.5), (4e9, 0.9)]
    (near,) = axes.patches
    assert (*near.get_xy(), near.get_width(), near.get_height()) == (1e9, 0.5, 7e9, 1.0)
    assert [text for text, _ in written(axes)] == ["within 50%"]
    assert labels(axes) == ("caches of one layer", "time / what bytes say")


def test_step_bytes_stacks_the_share_of_the_weights_on_the_cache():
    (axes,) = DRAW["step_bytes"]().axes
    cache, share = (found.get_paths()[0].get_extents() for found in axes.collections)
    assert (cache.ymin, cache.ymax) == (0, 1e9)
    assert (share.ymin, share.ymax) == (1e9, 17e9)
    assert labels(axes) == ("users in a batch", "read for one token")


def coloured(axes):
    """The place of each filled rectangle, its size, and its colour."""
    solid = [p for p in axes.patches if hasattr(p, "get_xy") and hasattr(p, "get_width")]
    return {(*p.get_xy(), p.get_width(), p.get_height(), to_hex(p.get_facecolor())) for p in solid}


def test_held_shows_each_ranks_part_of_the_scores():
    heads, gather, ring, exchange = DRAW["held"]().axes
    strip = {(-0.7, rank, 0.4, 1, of) for rank, of in enumerate(map(str.lower, COLOURS[:3]))}
    rows = {(0, rank, 3, 1, of) for rank, of in enumerate(map(str.lower, COLOURS[:3]))}
    assert coloured(gather) == {*strip, *rows, (0.0, 0.0, 3, 3, "#ffffff")}
    # In the second step, rank i has the keys of rank i - 1.
    blocks = {
        ((rank - 1) % 3, rank, 1, 1, of) for *_, rank, _, _, of in [(0, *s[1:]) for s in strip]
    }
    assert coloured(ring) == {*strip, *blocks, (0.0, 0.0, 3, 3, "#ffffff")}
    assert coloured(exchange) == {*coloured(heads), *strip}
    whole = [found[4] for found in coloured(heads) if found[2:4] == (3, 3)]
    assert {*whole} == {"#ffffff", *(of for *_, of in strip)}


def test_balance_shows_that_the_work_is_even():
    plain, balanced = DRAW["balance"]().axes
    assert [text for text, _ in written(plain)] == ["0", "1", "2", "blocks: 0.5, 1.5, 2.5"]
    assert [text for text, _ in written(balanced)][-1] == "blocks: 1.5, 1.5, 1.5"
    for axes in (plain, balanced):  # rectangles and triangles are the lower half of 6 by 6
        areas = [p.get_width() * p.get_height() for p in axes.patches if hasattr(p, "get_width")]
        corners = [p.get_xy() for p in axes.patches if not hasattr(p, "get_width")]
        halves = [(c[1][1] - c[0][1]) ** 2 / 2 for c in corners]
        assert sum(areas) + sum(halves) == 18


def test_rank_peaks_shows_lines_and_dots():
    (axes,) = DRAW["rank_peaks"]().axes
    assert lines(axes)[0] == ([2, 8], [7, 9])
    assert marked(axes, "o") == [(2, 7)]
    assert labels(axes) == ("ranks R, each with the same n", "peak of a rank, in x")


def test_links_bend_where_a_block_pays_for_its_way():
    (axes,) = DRAW["links"]().axes
    bends = [(xs[1], ys[1]) for xs, ys in lines(axes) if len(xs) == 3]
    assert bends == [(1000, 8e13), (8000, 8e13)]
    assert marked(axes, "o") == [(512, 1e13), (4096, 7e13)]
    assert {"fast\n1,000 tokens", "slow\n8,000 tokens"} <= {text for text, _ in written(axes)}
    assert labels(axes) == ("tokens n of a block", "a rank computes")


def test_a_table_is_html_in_a_notebook_and_text_in_a_terminal():
    columns = {"card": "", "bytes": ",", "ms": "{:.2f} ms"}
    table = Table(columns, [("A", 1024, 2.5), ("<B>", None, "–")])
    assert repr(table).splitlines()[2:] == ["A         1,024  2.50 ms", "<B>           –        –"]
    html = table._repr_html_()
    assert "<th>card" in html
    assert "&lt;B&gt;" in html
    assert '<td style="text-align: right;">  1,024' in html
