"""Published numbers, recomputed."""

from dataclasses import replace
from typing import Any

import pytest
from conftest import ROOT
from matplotlib.patches import Rectangle

from attnmem.figures import verdicts
from attnmem.lessons.published import BY_SOURCE, numbers, table_of_claims, table_of_verdicts
from attnmem.published import CLAIMS, Claim

# What does not simply match, by how what is claimed begins.
DISCUSSED = {
    "memory of standard attention, forward": "fitted",
    "memory of FlashAttention, forward": "fitted",
    "bytes moved, forward and backward, standard": "fitted",
    "bytes moved, forward and backward, FlashAttention": "unexplained",
    "FLOPs, forward and backward": "erratum",
    "FLOPs added": "erratum",
    "memory overhead of standard attention, N = 256,": "unexplained",
    "QKᵀ of 40 heads in bfloat16, N = 1000,": "unexplained",
    "keys and values, Llama 3.1 405B": "superseded",
    "the same, compared with DeepSeek-V3, Llama 3.1 405B": "unexplained",
}
# Where whole rows are not of one verdict: Table 3 of Rabe and Staats.
GIB_OVER_1000 = (2.9, 47, 188, 750)


def named(claim: Claim) -> str:
    return f"{claim.what}, {claim.cell},"


def plain(claim: Claim, **changes: Any) -> Claim:
    """The claim without the evidence that only a reader can judge."""
    return replace(claim, mistaken=None, fitted="", superseded="", acknowledged="", **changes)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{named(claim)}: {claim.published}")
def test_every_verdict_is_the_one_that_the_pages_discuss(claim):
    found = [verdict for what, verdict in DISCUSSED.items() if named(claim).startswith(what)]
    if "Table 3" in claim.source and claim.published in GIB_OVER_1000:
        found = ["erratum"]
    assert claim.verdict == (found[0] if found else "matches")
    assert claim.url.startswith("https://")
    assert claim.verdict == "matches" or claim.note


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{named(claim)}: {claim.published}")
def test_another_printed_number_would_not_match(claim):
    assert plain(claim, published=claim.compute() + 0.6 * claim.last).verdict == "unexplained"
    assert plain(claim, published=claim.compute() + 0.4 * claim.last).verdict == "matches"


def test_a_verdict_needs_its_evidence():
    claim = Claim("", "", "", 2, 1, "", compute=lambda: 1, mistaken=lambda: 2)
    assert claim.verdict == "erratum"
    assert replace(claim, superseded="https://a.org").verdict == "superseded"
    assert replace(claim, mistaken=lambda: 3, superseded="https://a.org").verdict == "unexplained"
    assert replace(claim, mistaken=None, acknowledged="https://a.org").verdict == "erratum"
    assert replace(claim, compute=lambda: 2, fitted="the 2").verdict == "fitted"
    assert replace(claim, fitted="the 2").verdict == "erratum"


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{named(claim)}: {claim.published}")
def test_evidence_is_given_where_it_decides_and_nowhere_else(claim):
    assert bool(claim.fitted) == (claim.verdict == "fitted")
    assert bool(claim.superseded) == (claim.verdict == "superseded")
    for address in filter(None, (claim.superseded, claim.acknowledged)):
        assert address.startswith("https://github.com/")
        assert address in (ROOT / "book" / "references.bib").read_text()


def test_rows_are_whole():
    lengths = {"memory of standard attention, forward": 6, "memory of FlashAttention": 10}
    lengths |= {"inputs and outputs": 14, "memory overhead of standard attention": 8}
    for what, cells in lengths.items():
        assert sum(claim.what.startswith(what) for claim in CLAIMS) == cells
    assert len(BY_SOURCE) == len({claim.url for claim in CLAIMS}) >= 12


def test_a_table_has_the_printed_rows_of_a_source():
    (row,) = table_of_claims("PyTorch").rows
    assert (row["printed"], row["computed"], row["verdict"]) == (
        "8,519,680 B",
        "8,519,680",
        "matches",
    )
    first, second, *_ = table_of_claims("Rabe").rows
    assert (first["where"], second["for"]) == (
        "Table 2; one head, d = 64",
        "N = 4096, 16384, 65536, 262144, 1048576",
    )
    assert second["printed"] == "2.5; 10; 40; 160; 640 MiB (printed as MB)"


def test_as_many_digits_are_computed_as_printed_and_three_at_least():
    rows = table_of_claims("Zhao et al. 2025", "Kwon et al. 2023").rows
    computed = [row["computed"] for row in rows]
    assert computed == ["70.272; 327.680; 516.096", "4.66", "7.34", "800", "1.56"]


def test_every_number_is_in_the_table_of_verdicts_once():
    rows = table_of_verdicts().rows
    assert sum(int(str(row["numbers"])) for row in rows) == len(CLAIMS)
    for row in rows:
        found = [int(str(row[verdict] or 0)) for verdict in verdicts.MARKS]
        assert sum(found) == row["numbers"]


def test_the_figure_marks_every_number_at_its_ratio():
    axes = numbers()["ratios"].axes[0]
    marked = [(x, line.get_label()) for line in axes.lines[1:] for x in line.get_xdata()]
    assert sorted(marked) == sorted((c.published / c.compute(), c.verdict) for c in CLAIMS)


def test_the_parts_add_up_to_what_is_printed():
    picture = verdicts.parts({"a": (3, 2.0, 0.5), "b": (1, 2.0, 0.25)}, "GFLOPs")
    bars = [bar for bar in picture.axes[0].patches if isinstance(bar, Rectangle)]
    assert [bar.get_width() for bar in bars] == [2, 2, 2, 0.5, 2, 0.25]
    assert [bar.get_x() for bar in bars] == [0, 2, 4, 6, 0, 2]


def test_where_nothing_is_left_no_rest_is_drawn_and_a_limit_is_named():
    axes = numbers()["kept"].axes[0]
    bars = [bar for bar in axes.patches if isinstance(bar, Rectangle)]
    assert len(bars) == 8 + 16
    assert [axes.lines[0].get_xdata()[0], axes.texts[-1].get_text()] == [
        80 * 2**30 / 1e9,
        "one H100",
    ]
