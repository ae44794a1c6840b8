"""Published numbers, recomputed."""

from dataclasses import replace

import pytest

from attnmem.claims import CLAIMS
from attnmem.published import Claim, rows

# What does not match, by what is claimed.
ERRATA = {
    "FLOPs of standard attention, forward and backward",
    "FLOPs of FlashAttention, forward and backward",
    "keys and values of 128k tokens in Llama 3.1 405B",
}
UNEXPLAINED = {"QKᵀ of 40 heads in bfloat16, N = 1000", "the same, compared with DeepSeek-V3"}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.what)
def test_every_verdict_is_the_one_that_the_chapter_discusses(claim):
    expected = "erratum" if claim.what in ERRATA else "matches"
    assert claim.verdict == ("unexplained" if claim.what in UNEXPLAINED else expected)
    assert claim.url.startswith("https://")
    assert claim.verdict == "matches" or claim.note


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.what)
def test_another_printed_number_would_not_match(claim):
    off = replace(claim, published=claim.published + 2 * claim.last, mistaken=None)
    near = replace(claim, published=claim.compute() + 0.6 * claim.last, mistaken=None)
    assert near.verdict == "unexplained"
    assert claim.verdict != "matches" or off.verdict == "unexplained"


def test_there_are_claims_of_many_sources():
    assert len({claim.url for claim in CLAIMS}) >= 12
    assert len(CLAIMS) >= 30


def test_a_table_has_the_claims_of_a_source():
    claim = Claim(
        "a size", "A. Author 2020, section 1", "https://a.org", 1.5, 0.1, "MB", lambda: 1.46
    )
    (row,) = rows([claim], "A. Author 2020")
    assert row["where"] == "section 1"
    assert (row["printed"], row["computed"], row["verdict"]) == ("1.5 MB", "1.46", "matches")
    with pytest.raises(LookupError, match=r"no published numbers from 'B\. Author'"):
        rows([claim], "B. Author")
