"""The page on published numbers: its tables, what its text looks up, and what it says."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import floor
from typing import Any

from attnmem.catalog import model
from attnmem.formulas import peak_bytes
from attnmem.lessons.table import Table
from attnmem.published import CLAIMS, Claim
from attnmem.published.claims import (
    FLASH_ATTENTION,
    GB,
    GPT2,
    MIB,
    exponentials_share,
    flash_memory,
    kept_per_score,
    traffic,
)
from attnmem.timeline import Step
from attnmem.workload import Workload

# How many bytes a binary unit has for one of the decimal unit.
RATIOS = {"KiB": 1.024, "MiB": 1.024**2, "GiB": 1.024**3}
# The claims whose printed number is ours in a binary unit.
BINARY = [claim for claim in CLAIMS if claim.verdict == "matches" and claim.unit[:3] in RATIOS]


def table_of_claims(*authors: str) -> Table:
    """The claims whose source begins so: in print, computed, and the verdict."""
    rows = []
    for name in authors:
        for claim in CLAIMS:
            if claim.source.startswith(name):
                where = claim.source.removeprefix(name).lstrip(", ")
                places, value = len(f"{claim.last:g}".partition(".")[2]), claim.compute()
                printed = f"{claim.published:,.{places}f} {claim.unit}"
                # with the decimals of the printed number, or more up to three digits
                computed = f"{value:,.{max(places, 3 - len(str(int(value))))}f}"
                rows.append((claim.what, where, printed, computed, claim.verdict, claim.note))
    names = ("claim", "where", "printed", "computed", "verdict", "note")
    return Table(dict.fromkeys(names, ""), rows)


def table_of_units() -> Table:
    """The claims that match in binary units, and whether they would match in decimal ones, too."""
    rows = []
    for claim in BINARY:
        digits, limit = claim.published / claim.last, _limit(claim.unit[:3])
        right = "yes" if _right_in_decimal(claim) else "no"
        rows.append((f"{claim.published:g} {claim.unit}", digits, limit, right))
    return Table({"printed": "", "p/u": ".0f", "limit": ".1f", "right as printed, too": ""}, rows)


def _limit(unit: str) -> float:
    """From how many units of its last place on a number tells this unit from the decimal one."""
    return (RATIOS[unit] + 1) / (2 * (RATIOS[unit] - 1))


def _right_in_decimal(claim: Claim) -> bool:
    """Whether a printed number is right, too, if its prefix is a power of 1000."""
    ratio = RATIOS[claim.unit[:3]]
    return replace(claim, compute=lambda: ratio * claim.compute()).verdict == "matches"


def table_of_steps(steps: Sequence[Step], w: Workload) -> Table:
    """What steps read and write, in units of S and X of ``w``, and the GB that they move."""

    def units(size: int) -> str:
        scores, rest = divmod(size, w.score_bytes)
        return f"{scores}S + {rest // w.head_bytes}X"

    return Table(
        {"pass": "", "step": "", "reads": "", "writes": "", "GB": ".2f"},
        (
            (s.stage, s.name, units(s.bytes_read), units(s.bytes_written), s.bytes_moved / GB)
            for s in steps
        ),
    )


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    *_, moved, standard, _ = FLASH_ATTENTION
    verdicts = Counter(claim.verdict for claim in CLAIMS)
    return {
        "claims": len(CLAIMS),
        "sources": len({claim.url for claim in CLAIMS}),
        "matches": verdicts["matches"],
        "erratum": verdicts["erratum"],
        "unexplained": verdicts["unexplained"],
        "binary": len(BINARY),
        "both": sum(map(_right_in_decimal, BINARY)),
        "from_MiB": floor(_limit("MiB")) + 1,
        "from_GiB": floor(_limit("GiB")) + 1,
        "printed_traffic_gb": moved.published,
        "with_copy_gb": _with_copy(),
        "in_full_gflops": standard.compute(),
    }


def _with_copy() -> float:
    """GB that standard attention moves in training, if the copy of dK counts."""
    return traffic(GPT2) + 2 * GPT2.head_bytes / GB


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    return _claims_on_numbers() | _claims_on_figure_2()


def _claims_on_numbers() -> dict[str, bool]:
    w = Workload(batch=16, heads=8, seq_len=1024, head_dim=64, dtype=GPT2.dtype)
    more = flash_memory(w.seq_len) * MIB - peak_bytes(w, training=True)
    both = [claim for claim in BINARY if _right_in_decimal(claim)]
    known = [model(name) for name in ("GPT-2 medium", "GPT-3 175B")]
    llama = model("Llama 3.1 405B")
    return {
        "our own function peaks at 4S + 6X, theirs has 4X more": more == 4 * w.head_bytes,
        "the chapter on training found the same five bytes per score": kept_per_score() == 5,
        "the exponentials take about half as long as the products": 45 < exponentials_share() < 55,
        "one is right in both units, because it has one digit": (
            [claim.published / claim.last for claim in both] == [1]
        ),
        "two digits usually tell the unit": all(10 <= _limit(unit) < 50 for unit in ("MiB", "GiB")),
        "most numbers match": 2 * sum(c.verdict == "matches" for c in CLAIMS) > len(CLAIMS),
        "the context of Llama 3.1 is 2^17": llama.context == 2**17,
        "it has sixteen times as many heads of queries": llama.heads == 16 * llama.kv_heads,
        "GPT-3 and GPT-2 medium have N = 16d": all(m.context == 16 * m.head_dim for m in known),
    }


def _claims_on_figure_2() -> dict[str, bool]:
    *_, moved, standard, fused = FLASH_ATTENTION
    product = 2 * GPT2.score_elements * GPT2.head_dim / GPT2.heads / GB  # of one head
    unit = GPT2.score_elements / GB  # one operation for each score
    left = standard.published - 6 * product
    return {
        "the figure's traffic matches": moved.verdict == "matches",
        "with the copy it would not": replace(moved, compute=_with_copy).verdict != "matches",
        "both FLOPs are errata": standard.verdict == fused.verdict == "erratum",
        "with all heads they are more than ten times as much as printed": all(
            claim.compute() > 10 * claim.published for claim in (standard, fused)
        ),
        "their difference is the product of one head": (
            abs(fused.published - standard.published - product) <= 0.1
        ),
        "14 operations are left for each score, and no other number is within the error": (
            [n for n in range(100) if abs(left - n * unit) <= standard.last / 2] == [14]
        ),
    }
