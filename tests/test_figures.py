"""Every figure draws its numbers: bars, lines and marks where they belong, each with its name."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.text import Text

from attnmem import Workload, figures, standard_attention, trace
from attnmem.catalog import accelerator
from attnmem.figures.style import ORANGE
from attnmem.formulas import alive_at_peak, peak_bytes, standard_steps
from attnmem.lessons.table import Table
from attnmem.measurement.records import load
from attnmem.roofline import ridge_point

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
TRAINING = trace(standard_attention, W, training=True)
ROOFS = [figures.Roof("f16", 2e12, 4e14), figures.Roof("f32", 2e12, 5e13)]
PREDICTED = [figures.Point("product", 60.0, 1.2e14), figures.Point("softmax", 1.25, 2.5e12)]
MEASURED = [figures.Point("product", 50.0, 9e13), figures.Point("softmax", 1.0, 1e12)]
SHARES = {"scale": [0.25, 0.5, 1.0], "softmax": [0.5, 0.75, 1.5]}

DRAW: dict[str, Callable[[], Any]] = {
    "score_matrices": lambda: figures.score_matrices(SQUARE, SQUARE.softmax(-1)),
    "memory_bars": lambda: figures.memory_bars([W, replace(W, seq_len=1024)]),
    "memory_curves": lambda: figures.memory_curves(W, LENGTHS, [CARD]),
    "peaks": lambda: figures.peaks(RUNS, [CARD]),
    "intensities": lambda: figures.intensities(W, LENGTHS, [64, 128], [CARD]),
    "rooflines": lambda: figures.rooflines(ROOFS, PREDICTED, MEASURED, {"exp": 4e12}),
    "traffic": lambda: figures.traffic(SHARES, LENGTHS, 2000.0),
    "lifetimes": lambda: figures.lifetimes(TRAINING),
    "live": lambda: figures.live({"one": TRAINING, "two": TRAINING}),
    "profiles": lambda: figures.profiles({"one": TRAINING, "two": TRAINING}, {"P": "weights"}),
    "stacks": lambda: figures.stacks(
        {"inference": alive_at_peak(W), "less": {"q": 1000, "S": 10**7}}
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
    return list(patch.get_data().values)


def test_every_figure_is_tested():
    assert set(DRAW) | {"Point", "Roof"} == set(figures.__all__)


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


def test_score_matrices_shows_both_with_a_scale_each():
    left, right, *scales = DRAW["score_matrices"]().axes
    for axes, matrix, title in (
        (left, SQUARE, "S = QKᵀ/√d"),
        (right, SQUARE.softmax(-1), "P = softmax(S)"),
    ):
        (image,) = axes.images
        assert image.get_array().tolist() == matrix.tolist()
        assert (axes.get_title(), *labels(axes)) == (title, "key j", "query i")
    assert len(scales) == 2


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
    assert labels(axes) == ("FLOPs per byte of the device's memory", "arithmetic")


def test_traffic_shows_every_share_and_where_the_cache_ends():
    (axes,) = DRAW["traffic"]().axes
    *shares, knee, one = lines(axes)
    assert shares == [(LENGTHS, share) for share in SHARES.values()]
    assert len({line.get_marker() for line in axes.lines[:2]}) == 2
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(SHARES)
    assert knee[0] == [2000, 2000]
    assert one[1] == [1, 1]
    assert dict(written(axes)) == {"S = L2": (2000, 0.02)}
    assert labels(axes) == ("sequence length N", "counted / predicted bytes")


def test_lifetimes_has_a_bar_for_each_tensor_and_marks_the_peak():
    above, below = DRAW["lifetimes"]().axes
    live = [event.live for event in TRAINING.timeline]
    assert stairs(above) == live
    peak = live.index(TRAINING.peak_bytes)
    assert dict(written(above)) == {"peak": (peak + 0.5, TRAINING.peak_bytes)}
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
        assert stairs_of(small) == rest
        assert list(small.get_data().baseline) == stairs_of(kept)
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
    (axes,) = figures.profiles({"": trace(standard_attention, w, training=True)}).axes
    kept, _ = (patch for patch in axes.patches if hasattr(patch, "get_data"))
    assert max(stairs_of(kept)) == 4 * w.head_bytes  # Q, K, V and O
    assert [text.get_text() for text in axes.get_legend().get_texts()][1].startswith("kept")


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


def test_a_table_is_html_in_a_notebook_and_text_in_a_terminal():
    columns = {"card": "", "bytes": ",", "ms": "{:.2f} ms"}
    table = Table(columns, [("A", 1024, 2.5), ("<B>", None, "–")])
    assert repr(table).splitlines()[2:] == ["A         1,024  2.50 ms", "<B>           –        –"]
    html = table._repr_html_()
    assert "<th>card" in html
    assert "&lt;B&gt;" in html
    assert '<td style="text-align: right;">  1,024' in html
