from dataclasses import replace

import pytest
import torch

from attnmem import figures, standard_attention, trace
from attnmem.catalog import accelerator
from attnmem.formulas import alive_at_peak
from attnmem.lessons.table import Table
from attnmem.measurement.records import load

RUNS = [m for m in load().measurements if m.program == "standard_attention" and m.warm_up]
W = RUNS[0].workload
CARD = accelerator("RTX 4090")
SQUARE = torch.arange(16.0).view(4, 4)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.score_matrices(SQUARE, SQUARE.softmax(-1)),
        lambda: figures.memory_bars([W, replace(W, seq_len=1024)]),
        lambda: figures.memory_curves(W, [512, 1024, 65536], [CARD]),
        lambda: figures.peaks(RUNS, [CARD]),
        lambda: figures.intensities(W, [512, 1024], [64, 128], [CARD]),
        lambda: figures.lifetimes(trace(standard_attention, W, training=True)),
        lambda: figures.live({"one": trace(standard_attention, W, training=True)}),
        lambda: figures.stacks({"inference": alive_at_peak(W)}),
    ],
)
def test_a_figure_is_the_same_svg_every_time(draw):
    svg = draw()._repr_svg_()
    assert svg == draw()._repr_svg_()
    assert svg.lstrip().startswith("<?xml")
    assert "<svg" in svg


def test_peaks_shows_every_run():
    (axes,) = figures.peaks(RUNS, []).axes
    drawn = {
        marker: sum(len(line.get_xdata()) for line in axes.lines if line.get_marker() == marker)
        for marker in "ox"
    }
    failed = sum(m.out_of_memory for m in RUNS)
    assert drawn == {"o": len(RUNS) - failed, "x": failed}


def test_a_table_is_html_in_a_notebook_and_text_in_a_terminal():
    rows = [{"card": "A", "bytes": 1024, "ms": 2.5}, {"card": "<B>", "bytes": None, "ms": "–"}]
    table = Table(rows, {"bytes": ",", "ms": "{:.2f} ms"})
    assert repr(table).splitlines()[2:] == ["A         1,024  2.50 ms", "<B>           –        –"]
    html = table._repr_html_()
    assert "<th>card" in html
    assert "&lt;B&gt;" in html
    assert '<td style="text-align: right;">  1,024' in html
