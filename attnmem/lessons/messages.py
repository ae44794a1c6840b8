"""The page of messages that people saw: its tables, what its text looks up, and what it says."""

import itertools
import math
from typing import Any

from attnmem.lessons.shared import W, known
from attnmem.lessons.table import Table
from attnmem.messages import Explanation, explain
from attnmem.messages.reports import REPORTS, Report
from attnmem.prediction.allocator import printed_size, segment_size
from attnmem.prediction.fitting import DoesNotFit, first_that_does_not_fit
from attnmem.prediction.trace import trace
from attnmem.programs import standard_attention

#: The tables of the page -> the kinds of tensors in each.
GROUPS = {
    "language": ("logits", "scores", "dropout of scores", "masks"),
    "images": ("image scores",),
    "other": ("not attention", "a segment"),
    "open": ("open",),
}
#: The reports that the text discusses, the first of that name.
DISCUSSED = {
    "language": ("nanoGPT#88", "GPT2-Chinese#104", "llm#11798", "TransformerLens#479"),
    "images": ("forge#658", "InvokeAI#3168", "lycoris#33", "StableAvatar#83"),
}
SQUARED = {1: "", 2: "²"}
# A report of three sizes of picture, which went well or not: AUTOMATIC1111's #9922, on 2023-04-28.
SCALES = {2.7: False, 2.8: True, 2.95: False}
MIB, GIB = 2**20, 2**30


def _of(group: str) -> list[Report]:
    return [report for report in REPORTS if report.kind in GROUPS[group]]


def table_of_reports(group: str) -> Table:
    """The reports of a group: what is said, where, the sizes that we multiply, and a remark."""
    return _table(_of(group))


def table_of_some(group: str) -> Table:
    """Those of a group that the text discusses."""
    return _table([_named(name) for name in DISCUSSED[group]])


def _table(reports: list[Report]) -> Table:
    rows = []
    for report in reports:
        name = report.where.partition("/")[2].replace("_", "_\N{ZERO WIDTH SPACE}")  # may break
        day = str(report.date).replace("-", "\N{NON-BREAKING HYPHEN}")
        where = f"[{name}]({report.address}), {day}"
        rows.append((_said(report), where, _multiplied(report), report.answer))
    return Table(dict.fromkeys(("said", "where, when", "sizes multiplied", "remark"), ""), rows)


def _multiplied(report: Report) -> str | None:
    """The factors of the tensor and its bytes as PyTorch prints them, if there is one."""
    if not report.tensor:
        return None
    factors = [
        f"{size:,}{SQUARED[len([*same])]}" for size, same in itertools.groupby(report.tensor)
    ]
    computed = known(_computed(report)).replace(" ", "\N{NO-BREAK SPACE}")
    return f"{report.letters} = {' · '.join(factors)} → {computed}"


def _said(report: Report) -> str:
    if report.parsed is None:
        return f"{'over ' if report.at_least else ''}{report.words}"
    tried = report.parsed.tried
    if tried.low == tried.high:
        return f"{tried.high:,} bytes"
    return printed_size((tried.low + tried.high) // 2)


def _computed(report: Report) -> str | None:
    """The tensor's bytes, in the unit of the report; on a GPU with what is asked for it."""
    if not report.bytes:
        return None
    if report.parsed is None and not report.binary and "i" not in report.words:
        return f"{report.bytes / 1e9:.3g} GB"
    if report.parsed and report.parsed.tried.low == report.parsed.tried.high:
        return f"{report.bytes:,} bytes"
    rounded = report.parsed and report.parsed.backend in ("CUDA", "HIP", "XPU")
    return printed_size(segment_size(report.bytes) if rounded else report.bytes)


def tokens(scale: float) -> int:
    """Of a picture of 960 × 544 pixels, so many times larger: one for 8 × 8 pixels."""
    return int(960 * scale) // 8 * (int(544 * scale) // 8)


def need(scale: float) -> int:
    """What must be free for S of that picture whole, in bytes: three times twice 8 heads in 16 bit.

    As split_cross_attention_forward in AUTOMATIC1111's stable-diffusion-webui counts it,
    modules/sd_hijack_optimizations.py.
    """
    return 3 * 16 * tokens(scale) ** 2 * 2


def slices(free: float, scale: float) -> int:
    """Into how many slices it cuts S: the next power of two."""
    return int(2 ** max(0, math.ceil(math.log2(need(scale) / free))))


def goes_well(free: float, scale: float) -> bool:
    """Whether the slices come out even: else that function computes S whole."""
    return tokens(scale) % slices(free, scale) == 0


def _needed(report: Report) -> int:
    """The slices that S of a report needed there, by what its message says was free."""
    said = known(report.parsed)
    free = known(said.free).high + known(said.unused).high
    return int(2 ** math.ceil(math.log2(3 * report.bytes / free)))


def _free() -> list[tuple[float, float]]:
    """How much may have been free, by what went well and what did not."""
    ends = sorted({need(scale) / 2**power for scale in SCALES for power in range(8)})
    return [
        (low, high)
        for low, high in itertools.pairwise(ends)
        if all(goes_well((low + high) / 2, scale) == well for scale, well in SCALES.items())
    ]


def fails_on(gib: int) -> DoesNotFit | None:
    """The last cell of the page: what fails in training one layer on a card of so many GiB."""
    return first_that_does_not_fit(trace(standard_attention, W, training=True), gib * GIB)


def _named(where: str) -> Report:
    return next(report for report in REPORTS if report.where.endswith(where))


def _count(verdict: str) -> int:
    return sum(report.verdict == verdict for report in REPORTS)


def numbers() -> dict[str, Any]:
    """What the text looks up, and the tables of all reports, which are folded."""
    possible = _free()
    failed = known(fails_on(6))
    return {
        "reports": len(REPORTS),
        "oldest": min(report.date for report in REPORTS).year,
        "fit": _count("fits"),
        "read_off": sum(report.read_off for report in REPORTS),
        "open": _count("open"),
        "segments": _count("segment"),
        "mistaken": _count("mistaken"),
        "logits_mib": _named("nanoGPT#61").bytes / MIB,
        "logits_half_mib": _named("nanoGPT#88").bytes / MIB,
        "unused_gib": (failed.reserved - failed.allocated) / GIB,
        "tried_gib": failed.tried / GIB,
        "peak_gib": trace(standard_attention, W, training=True).peak_bytes / GIB,
        "slice_gib": need(2.8) / 3 / GIB,
        "slice_need_gib": need(2.8) / GIB,
        "slice_parts": need(2.8) / (16 * GIB),
        "free_low": possible[0][0] / GIB,
        "free_high": possible[-1][1] / GIB,
        **{f"all_{group}": table_of_reports(group) for group in GROUPS},
    }


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    found, possible = numbers(), _free()
    gan, avatar, pixels = map(_named, ("GAN#59", "Avatar#83", "InvokeAI#3168"))
    logits, half = map(_named, ("nanoGPT#61", "nanoGPT#88"))
    chinese, keras = map(_named, ("Chinese#104", "keras-multi-head#1"))
    sides = [n for n in range(300, 700) if n**4 * 4 in gan.size]
    return {
        "the tensors alone are more than a card of 6 GiB has": 6 < found["peak_gib"] < 8,
        "what does not fit is open, a segment or a mistake": (
            len(REPORTS) == sum(found[name] for name in ("fit", "open", "segments", "mistaken"))
        ),
        "of three that fit the length is read off, and of none that doesn't": (
            [report for report in REPORTS if report.read_off]
            == [_named("InvokeAI#1166"), _named("I2V#66"), gan]
            and all(report.verdict == "fits" for report in REPORTS if report.read_off)
        ),
        "one gives a lower bound only": (
            [report for report in REPORTS if report.at_least and report.verdict == "fits"]
            == [_named("webui#7589")]
        ),
        "the first answer is likely": explain(logits.message).sure == "likely",
        "786 and 394 MiB are rounded up to 2 MiB, and one is the other for half the sequences": (
            [segment_size(report.bytes) / MIB for report in (logits, half)] == [786, 394]
            and logits.bytes == 2 * half.bytes
        ),
        "8 · 12 · 4 MiB": chinese.bytes == 8 * 12 * 4 * MIB == 384 * MIB,
        "10 · 4 GiB, and 80 GiB of masks": (
            _named("llm#11798").bytes == 40 * GIB
            and _named("TransformerLens#479").bytes == 80 * GIB
        ),
        "a picture of 512 takes 256 MiB, one of 1024 16 times that": (
            math.prod((8, (512 // 8) ** 4, 2)) == 256 * MIB
            and _named("forge#658").bytes == 16 * 256 * MIB == 4 * GIB
        ),
        "each report is in one table": sum(len(_of(group)) for group in GROUPS) == len(REPORTS),
        "786.00 MiB is four sequences' logits": (
            "4 sequences, 1,024 tokens, 50,257 words, 32 bit" in str(explain(logits.message))
        ),
        "with what the script says, GPT2-Chinese's is likely scores": (
            explain(chinese.message).sure == "a guess" and chinese.explained().sure == "likely"
        ),
        "with 16 GiB free, each needs 32 slices, and what went well alone comes out even": all(
            slices(16 * GIB, scale) == 32 and (tokens(scale) % 32 == 0) == well
            for scale, well in SCALES.items()
        )
        and [tokens(scale) for scale in SCALES] == [59292, 336 * 190, 70800]
        and tokens(2.8) == 32 * 1995,
        "what may have been free is one range": all(
            one[1] == other[0] for one, other in itertools.pairwise(possible)
        ),
        "the smallest of the three pictures failed": tokens(2.7) < tokens(2.8) < tokens(2.95),
        "the first three did not come out even in the slices that they needed": all(
            report.tensor[-2] % _needed(report)
            for report in (_named("webui#10887"), _named("lycoris#33"))
        )
        and _named("webui#7589").tensor[-2] % 4 != 0,  # 7.23 GiB on a card of 4
        "no other square has this size": sides == [math.isqrt(gan.tensor[1])],
        "at 8,192 tokens it would be 2^32 bytes": 32 * 8192**2 * 2 == 2**32,
        "2.25 GiB are both": pixels.bytes == _named("ComfyUI#2431").bytes,
        "so the message alone says nothing": (
            explain(pixels.message).sure == "by chance" and pixels.explained().sure == "likely"
        ),
        "without more it is taken for another model's scores, with more for its own": (
            _heads(explain(avatar.message)) == {8} and _heads(avatar.explained()) == {12}
        ),
        "on the cards of 4 and 6 GiB the place of S is free but for two gradients of X bytes": all(
            found.reserved - found.allocated == W.score_bytes - 2 * W.head_bytes
            for found in map(fails_on, (4, 6))
            if found
        )
        and fails_on(8) is None,
        "396 tokens are not the video's": (
            _named("I2V#66").tensor[2] == 33 * 45 * 80 + 396 and "396" in _named("I2V#66").answer
        ),
        "GB were GiB": _named("pytorch#133206").bytes > 50e9,
        "a sixth of what is said": 5.5 < 150e9 / keras.bytes < 6.5,
        "no open case gets an answer": not any(
            explain(report.message).answered for report in _of("open") if report.message
        ),
        "what is not attention gets none of attention": not any(
            explain(report.message).attention for report in _of("other")
        ),
    }


def _heads(answer: Explanation) -> set[int]:
    return {dict(shape.factors)["heads"] for shape in answer.candidates}
