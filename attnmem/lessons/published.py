"""The pages on published numbers: their tables, what their text looks up, and what it says."""

from collections import Counter
from dataclasses import replace
from itertools import groupby
from math import floor
from typing import Any

from attnmem.catalog import accelerator, model
from attnmem.figures import verdicts
from attnmem.formulas import peak_bytes
from attnmem.lessons.table import Table
from attnmem.prediction.trace import trace
from attnmem.published import CLAIMS, Claim
from attnmem.published import recomputed as ours
from attnmem.published.claim import G, K, M

BY_SOURCE = {
    name: list(claims)
    for name, claims in groupby(CLAIMS, lambda claim: claim.source.partition(",")[0])
}
# How many bytes a binary unit has for one of the decimal unit.
RATIOS = {K: 1.024, M: 1.024**2, G: 1.024**3}
# The claims whose printed number is ours in a binary unit.
BINARY = [claim for claim in CLAIMS if claim.verdict == "matches" and claim.unit in RATIOS]
(MOVED,) = (c for c in CLAIMS if "bytes moved" in c.what and c.fitted)
WITH_COPY = MOVED.compute() + 2 * ours.GPT2.head_bytes / 1e9
STANDARD, FUSED = (c for c in CLAIMS if c.acknowledged)
BLOG, PAPER = ([c for c in CLAIMS if "Llama 3.1 405B" in c.what + c.cell][i] for i in (2, 3))
ONE_HEAD = ours.products(1, heads=1) / 1e9


def table_of_verdicts() -> Table:
    """How many numbers of each source have which verdict."""
    rows = []
    for name, claims in BY_SOURCE.items():
        found: Counter[str] = Counter(claim.verdict for claim in claims)
        rows.append((name, len(claims), *(found[v] or None for v in verdicts.MARKS)))
    return Table(dict.fromkeys(("source", "numbers", *verdicts.MARKS), ""), rows)


def table_of_claims(*authors: str) -> Table:
    """The claims whose source begins so, by printed rows: in print, computed, and the verdict."""
    found = [claim for name in authors for claim in CLAIMS if claim.source.startswith(name)]
    rows = []
    for (what, source, unit, verdict, note), cells in groupby(
        found, lambda c: (c.what, c.source, c.unit, c.verdict, c.note)
    ):
        where = source.partition(", ")[2].partition(", ")[2]
        names, printed, computed = zip(*map(_cell, cells), strict=True)
        named = ", ".join(filter(None, names)).replace(", N =", ",")
        numbers = f"{'; '.join(printed)} {unit}", "; ".join(computed)
        rows.append((what, where, named, *numbers, verdict, note))
    columns = ("claim", "where", "for", "printed", "computed", "verdict", "note")
    return Table(dict.fromkeys(columns, ""), rows)


def _cell(claim: Claim) -> tuple[str, str, str]:
    """Its name, printed, and computed with the same decimals, or more up to three digits."""
    places, value = len(f"{claim.last:g}".partition(".")[2]), claim.compute()
    more = max(places, 3 - len(str(int(value))))
    return claim.cell, f"{claim.published:,.{places}f}", f"{value:,.{more}f}"


def _limit(unit: str) -> float:
    """From how many units of its last place on a number tells this unit from the decimal one."""
    return (RATIOS[unit] + 1) / (2 * (RATIOS[unit] - 1))


def _right_in_decimal(claim: Claim) -> bool:
    """Whether a printed number is right, too, if its prefix is a power of 1000."""
    return replace(claim, compute=lambda: RATIOS[claim.unit] * claim.compute()).verdict == "matches"


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    bars = {
        f"{name}: {c.published:g}": (n, ONE_HEAD, c.published - n * ONE_HEAD)
        for name, n, c in (("standard", 6, STANDARD), ("FlashAttention", 7, FUSED))
    }
    marks = {
        name: [(claim.published / claim.compute(), claim.verdict) for claim in claims]
        for name, claims in BY_SOURCE.items()
    }
    return dict(Counter(claim.verdict for claim in CLAIMS)) | {
        "ratios": verdicts.ratios(marks),
        "parts": verdicts.parts(bars, "GFLOPs, forward and backward"),
        "claims": len(CLAIMS),
        "sources": len(BY_SOURCE),
        "blog_gb": BLOG.published * 2**30 / 1e9,
        "blog_mb": BLOG.published * 2**30 / 1e6 / 128_000,
        "paper_mb": PAPER.published / 1000,
        "both": sum(map(_right_in_decimal, BINARY)),
        "binary": len(BINARY),
        "from_MiB": floor(_limit(M)) + 1,
        "from_GiB": floor(_limit(G)) + 1,
        "moved_gb": MOVED.published,
        "with_copy_gb": WITH_COPY,
        "standard": STANDARD.published,
        "fused": FUSED.published,
        "product": ours.products(1) / 1e9,
        "standard_in_full": STANDARD.compute(),
        "fused_in_full": FUSED.compute(),
    }


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    w, card = ours.table_21(1024), accelerator("H100 SXM").memory_bytes
    cache = 128_000 * 1000 * PAPER.compute()
    blog = BLOG.published * 2**30
    rounded = [c for c in CLAIMS if c.verdict == "matches" and c.published > 1.2 * c.compute()]
    peaks = peak_bytes(w, training=True), trace(ours.packed_attention, w, training=True).peak_bytes
    overheads = [c.published / c.compute() for c in CLAIMS if "FLOPs added" in c.what]
    each = ours.GPT2.score_elements / 1e9  # one operation for each score
    left, more = STANDARD.published - 6 * ONE_HEAD, FUSED.published - STANDARD.published
    llama, known = model("Llama 3.1 405B"), [model(n) for n in ("GPT-2 medium", "GPT-3 175B")]
    return {
        "by the paper one H100 holds it, by the post it takes two": cache < card < blog < 2 * card,
        "the post's number is twice the paper's": abs(blog / cache - 2) < 0.01,
        "one number that matches stands near 1.25: 1 TB in one digit": (
            [(c.published, c.unit, c.last) for c in rounded] == [(1, "TB", 1)]
            and 1.2 < rounded[0].published / rounded[0].compute() < 1.3
        ),
        "our function peaks at 4S + 6X, a packed one at 4S + 8X": (
            peaks == tuple(4 * w.score_bytes + n * w.head_bytes for n in (6, 8))
        ),
        "a third of what is printed": all(2.9 < ratio < 3.1 for ratio in overheads),
        "the exponentials take half as long as the products": 45 < ours.exponentials_share() < 55,
        "numbers that are right in both units are below the bound": all(
            c.published / c.last <= _limit(c.unit) for c in BINARY if _right_in_decimal(c)
        ),
        "two digits usually tell the unit": all(10 <= _limit(unit) < 50 for unit in (M, G)),
        "most numbers match": 2 * sum(c.verdict == "matches" for c in CLAIMS) > len(CLAIMS),
        "it has sixteen times as many heads of queries": llama.heads == 16 * llama.kv_heads,
        "GPT-3 and GPT-2 medium have N = 16d": all(m.context == 16 * m.head_dim for m in known),
        "without the copy, the figure's traffic is ours": MOVED.verdict == "fitted",
        "with it, it is not": MOVED.published + MOVED.last < WITH_COPY,
        "one product is twice what is printed for six": ours.products(1) > 2e9 * STANDARD.published,
        "the difference is the product of one head": abs(more - ONE_HEAD) <= 0.1,
        "14 operations are left for each score, and no other number is within the error": (
            [n for n in range(100) if abs(left - n * each) <= STANDARD.last / 2] == [14]
        ),
        "the trace has 11": ours.traced_flops() / 1e9 == STANDARD.compute() + 11 * each,
    }
