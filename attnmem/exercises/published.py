"""The exercises of the chapter published."""

import math
from typing import Any

from attnmem.catalog import Model, model
from attnmem.exercises.judgement import NO_ANSWER
from attnmem.exercises.kinds import Exercise, Number, Other
from attnmem.exercises.language import _
from attnmem.published import Claim

GPT_2 = model("GPT-2 medium")
LLAMA = model("Llama 3 8B")
LONG = model("Llama 3.1 8B")
LARGE = model("Llama 3.1 405B")
SCORES = GPT_2.workload().score_bytes
TEBI = 1.024**4  # 1 TiB in TB


def _terms(heads: int, width: int, per_score: int = 5) -> float:
    """5as/h."""
    return per_score * heads * LLAMA.context / width


WIDTH = LLAMA.heads * LLAMA.head_dim


def _kept(model: Model, heads: int = 0, layers: int = 0, tensors: int = 2) -> int:
    """Bytes of keys and values for a token, 16 bit."""
    per_head = tensors * 2 * model.head_dim
    return per_head * (layers or model.layers) * (heads or model.kv_heads)


def _limit(ratio: float) -> float:
    """Up to how many units of its last place a number leaves open which of two units is meant."""
    return (ratio + 1) / (2 * (ratio - 1))


# What the claims of the last exercise must come to: model, tokens, printed number, last place.
CASES = (
    (LONG, 16000, 1.95, 0.01, "matches"),
    (LARGE, 128000, 123.05, 0.01, "erratum"),
    (LARGE, 128000, 61.5, 0.1, "matches"),
    (LONG, 128000, 31.25, 0.01, "erratum"),
    (LONG, 16000, 2.1, 0.1, "unexplained"),
)


def _wrong_claim(answer: Any) -> str:
    """What is wrong with a function that makes claims about keys and values."""
    if not callable(answer):
        return "expected a function of a model, tokens, a printed number and its last place"
    for known, tokens, printed, last, verdict in CASES:
        claim = answer(known, tokens, printed, last)
        if claim is ...:
            return NO_ANSWER
        if not isinstance(claim, Claim):
            return _("it must return a Claim, and returned a {0}").format(type(claim).__name__)
        case = _("for {0}, {1} tokens, {2} GiB: ").format(known.name, tokens, printed)
        if (claim.published, claim.last) != (printed, last):
            return case + _("published and last must be what was printed")
        if not callable(claim.compute) or not (claim.mistaken is None or callable(claim.mistaken)):
            return case + _(
                "compute and mistaken must be functions: put `lambda:` before the number"
            )
        complaint = _wrong_number(known, tokens, claim.compute())
        if complaint:
            return case + _(complaint)
        if claim.verdict != verdict and claim.mistaken is None:
            return case + _("twice as many heads explain the number: let mistaken compute that")
        if claim.verdict != verdict:
            twice = _("the verdict is {0}; does mistaken take heads twice?")
            return case + twice.format(claim.verdict)
        if not (claim.what and claim.source and claim.url.startswith("https://")):
            return case + _("say what is claimed, by which source, at which https:// address")
    return ""


def _wrong_number(model: Model, tokens: int, given: float) -> str:
    gib = 2**30 / tokens
    mistakes = {
        "": _kept(model) / gib,
        "that is in GB, and what was printed is in GiB": _kept(model) / 1e9 * tokens,
        "that is in bytes, and what was printed is in GiB": _kept(model) * tokens,
        "keys are kept of the heads of keys, not of all heads of queries": (
            _kept(model, heads=model.heads) / gib
        ),
        "the model has 8 heads of keys; the source took twice as many": (
            _kept(model, heads=2 * model.kv_heads) / gib
        ),
        "keys and values are two tensors, of two bytes an element": _kept(model, tensors=1) / gib,
        "every layer keeps its own": _kept(model, layers=1) / gib,
    }
    for complaint, value in mistakes.items():
        if math.isclose(given, value, rel_tol=1e-9):
            return complaint
    count = _("computed is {0:.4g}: count 2 tensors, 2 bytes, layers, heads of keys, d, tokens")
    return count.format(given)


EXERCISES: tuple[Exercise, ...] = (
    Number(
        right=SCORES / 1e6,
        unit="MB",
        mistakes={
            "that is what the table printed: it is right in MiB": SCORES / 2**20,
            "the wrong way: a MiB is more bytes than a MB, so there are more MB than MiB": (
                SCORES / 2**20 / 1.024**2
            ),
            "that is one head: every head has its own scores": SCORES / GPT_2.heads / 1e6,
        },
        factors={"the number of heads": GPT_2.heads},
    ),
    Number(
        right=_terms(LLAMA.heads, WIDTH),
        unit="",
        mistakes={
            "h is the width of all heads together, not of one": _terms(LLAMA.heads, LLAMA.head_dim),
            "each head of queries has its own scores: a is not the number of heads of keys": (
                _terms(LLAMA.kv_heads, WIDTH)
            ),
            "a, the number of heads, is missing: each has its own scores": _terms(1, WIDTH),
            "2 bytes per score are kept without dropout; with it the mask and a second P, too": (
                _terms(LLAMA.heads, WIDTH, per_score=2)
            ),
        },
        factors={"the number of heads": LLAMA.heads},
    ),
    Number(
        right=_kept(LONG) / 1e3,
        unit="kB",
        mistakes={
            "keys are kept of the 8 heads of keys, not of the 32 of queries": (
                _kept(LONG, heads=LONG.heads) / 1e3
            ),
            "keys and values are two tensors": _kept(LONG, tensors=1) / 1e3,
            "every layer keeps its own keys and values": _kept(LONG, layers=1) / 1e3,
            "every head of keys keeps its own": _kept(LONG, heads=1) / 1e3,
            "that is in KiB; 1 kB is 1000 bytes": _kept(LONG) / 2**10,
        },
        factors={"the number of layers": LONG.layers},
    ),
    Number(
        right=LARGE.kv_heads,
        unit="heads",
        mistakes={
            "the model has so many; with them S is sixteen times as large as the slide says": (
                LARGE.heads
            ),
            "that is the factor by which the slide is wrong: divide the model's heads by it": (
                LARGE.heads / LARGE.kv_heads
            ),
            "with one head S is smaller still than the slide says: compute it": 1,
        },
    ),
    Number(
        right=math.floor(_limit(TEBI) + 1) / 10,
        unit="TB",
        mistakes={
            "nearly: a printed number has one decimal, so take the next": _limit(TEBI) / 10,
            "that one can still be both": math.floor(_limit(TEBI)) / 10,
            "that is the limit in units of the last place, and that place is 0.1": _limit(TEBI),
            "that is in units of the last place, and that place is 0.1": (
                math.floor(_limit(TEBI) + 1)
            ),
            "that is for GB and GiB: 1 TiB is 1.024⁴ TB": math.floor(_limit(1.024**3) + 1) / 10,
            "that is for MB and MiB: 1 TiB is 1.024⁴ TB": math.floor(_limit(1.024**2) + 1) / 10,
        },
    ),
    Other(
        complaint=_wrong_claim,
        right="right on all printed numbers",
    ),
)
