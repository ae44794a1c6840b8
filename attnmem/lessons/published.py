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
H100 = accelerator("H100 SXM").memory_bytes
LLAMA, GPT3 = model("Llama 3.1 405B"), model("GPT-3 175B")
(SQUARE,) = (c for c in CLAIMS if c.what.startswith("QKᵀ of 40") and c.unit == G)
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


def _cache(kv_heads: int) -> int:
    """Bytes of the keys and values of 128,000 tokens, Llama 3.1 405B in 16 bit."""
    return ours.kv_cache(LLAMA.layers, kv_heads, LLAMA.head_dim, 128_000)


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    kept = {f"{n} heads": (n, _cache(1) / 1e9, 0.0) for n in (8, 16)}
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
        "kept": verdicts.parts(kept, "GB", limit=("one H100", H100 / 1e9)),
        "claims": len(CLAIMS),
        "sources": len(BY_SOURCE),
        "post_gb": BLOG.published,
        "paper_kb": PAPER.published,
        "square_gb": SQUARE.compute() * 2**30 / 1e9,
        "square_gib": SQUARE.compute(),
        "paper_gib": PAPER.published * 1000 * 128_000 / 2**30,
        "paper_gb": PAPER.published * 1000 * 128_000 / 1e9,
        "both": sum(map(_right_in_decimal, BINARY)),
        "binary": len(BINARY),
        "from_MiB": floor(_limit(M)) + 1,
        "from_GiB": floor(_limit(G)) + 1,
        "standard": STANDARD.published,
        "fused": FUSED.published,
        "product": ours.products(1) / 1e9,
        "added": ours.recomputed_share(GPT3.heads, GPT3.context, GPT3.heads * GPT3.head_dim),
    }


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    w, cache, post = ours.table_21(1024), _cache(8), BLOG.published * 1e9
    rounded = [c for c in CLAIMS if c.verdict == "matches" and c.published > 1.2 * c.compute()]
    peaks = peak_bytes(w, training=True), trace(ours.packed_attention, w, training=True).peak_bytes
    overheads = [c for c in CLAIMS if "FLOPs added" in c.what]
    s, h = GPT3.context, GPT3.heads * GPT3.head_dim
    each = ours.GPT2.score_elements / 1e9  # one operation for each score
    left, more = STANDARD.published - 6 * ONE_HEAD, FUSED.published - STANDARD.published
    return {
        "by the paper one H100 holds it, by the post it takes two": cache < H100 < post < 2 * H100,
        "as printed, one number is nearly twice the other": 1.8 < post / cache < 1.9,
        "of the post, the line of one H100 is left, too": _cache(16) > H100,
        "a product by hand is the paper's number, to the last digit": (
            2 * LLAMA.layers * LLAMA.kv_heads * LLAMA.head_dim * 2
            == 2 * 126 * 8 * 128 * 2
            == PAPER.published * 1000
        ),
        "40 heads of 16,000 tokens are 19 in GiB alone": (
            SQUARE.compute() == 40 * 16000**2 * 2 / 2**30
            and SQUARE.verdict == "matches"
            and not _right_in_decimal(SQUARE)
        ),
        "with 16 heads and in GiB it is the post's": (
            round(_cache(16) / 2**30, 2) == BLOG.published
        ),
        "the post's 128k tokens are not the model's context": LLAMA.context == 131_072,
        "one number that matches stands near 1.25: 1 TB in one digit": (
            [(c.published, c.unit, c.last) for c in rounded] == [(1, "TB", 1)]
            and 1.2 < rounded[0].published / rounded[0].compute() < 1.3
        ),
        "our function peaks at 4S + 6X, a packed one at 4S + 8X": (
            peaks == tuple(4 * w.score_bytes + n * w.head_bytes for n in (6, 8))
        ),
        "a third of what is printed": all(2.9 < c.published / c.compute() < 3.1 for c in overheads),
        "GPT-3 has h = 6s, and 2.7 % are printed for it": (
            (h, overheads[0].cell, overheads[0].published) == (6 * s, "GPT-3", 2.7)
        ),
        "in print are 2/74, a third of it is right": (
            abs(ours.equation_8(GPT3.heads, s, h) - 100 * 2 / 74) < 1e-9
            and abs(ours.recomputed_share(GPT3.heads, s, h) - 100 * 2 / 3 / 74) < 1e-9
        ),
        "the exponentials take half as long as the products": 45 < ours.exponentials_share() < 55,
        "numbers that are right in both units are below the bound": all(
            c.published / c.last <= _limit(c.unit) for c in BINARY if _right_in_decimal(c)
        ),
        "two digits usually tell the unit": all(10 <= _limit(unit) < 50 for unit in (M, G)),
        "most numbers match": 2 * sum(c.verdict == "matches" for c in CLAIMS) > len(CLAIMS),
        "it has sixteen times as many heads of queries": LLAMA.heads == 16 * LLAMA.kv_heads,
        "GPT-3 and GPT-2 medium have N = 16d": all(
            m.context == 16 * m.head_dim for m in (GPT3, model("GPT-2 medium"))
        ),
        "without the copy, the figure's traffic is ours": MOVED.verdict == "fitted",
        "with it, it is not": MOVED.published + MOVED.last < WITH_COPY,
        "one product is more than twice what is printed for six": ours.products(1)
        > 2e9 * STANDARD.published,
        "the difference is the product of one head": abs(more - ONE_HEAD) <= 0.1,
        "14 operations are left for each score, and no other number is within the error": (
            [n for n in range(100) if abs(left - n * each) <= STANDARD.last / 2] == [14]
        ),
        "the trace has 11": ours.traced_flops() / 1e9 == STANDARD.compute() + 11 * each,
    }
