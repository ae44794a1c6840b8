"""Published numbers, recomputed."""

from dataclasses import replace

import pytest

from attnmem.lessons.published import table_of_claims
from attnmem.published import CLAIMS

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
    (row,) = table_of_claims("PyTorch").rows
    assert row["where"] == "issue 95668"
    assert (row["printed"], row["computed"], row["verdict"]) == (
        "8,519,680 B",
        "8,519,680",
        "matches",
    )


def test_as_many_digits_are_computed_as_printed_and_three_at_least():
    rows = table_of_claims("Hugging Face 2024", "Zhao et al. 2025", "Kwon et al. 2023").rows
    assert [row["computed"] for row in rows] == ["61.52", "516.096", "7.34", "800"]
