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
# A report of three sizes of picture, which went well or not: AUTOMATIC1111's #9922, on 2023-04-28.
SCALES = {2.7: False, 2.8: True, 2.95: False}
GIB = 2**30


def _of(group: str) -> list[Report]:
    return [report for report in REPORTS if report.kind in GROUPS[group]]


def table_of_reports(group: str) -> Table:
    """The reports of a group: what is said, where, and which tensor it was, with its bytes."""
    rows = []
    for report in _of(group):
        name = report.where.partition("/")[2].replace("_", "_\N{ZERO WIDTH SPACE}")  # may break
        day = str(report.date).replace("-", "\N{NON-BREAKING HYPHEN}")
        rows.append((_said(report), f"[{name}]({report.address}), {day}", _was(report)))
    return Table(dict.fromkeys(("said", "where, when", "what it was"), ""), rows)


def _was(report: Report) -> str:
    """The tensor with its bytes as PyTorch prints them, if there is one, and what is known."""
    if not report.tensor:
        return report.answer
    factors = " · ".join(f"{factor:,}" for factor in report.tensor)
    return f"{report.letters} = {factors}: {_computed(report)}; {report.answer}"


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


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    gan, ipex = map(_named, ("GAN#59", "llm#10513"))
    possible = _free()
    failed = known(fails_on(6))
    return {
        "reports": len(REPORTS),
        "fit": sum(report.verdict == "fits" for report in REPORTS),
        "open": len(_of("open")),
        "segments": sum(report.verdict == "segment" for report in REPORTS),
        "mistaken": sum(report.verdict == "mistaken" for report in REPORTS),
        "free_low": possible[0][0] / GIB,
        "free_high": possible[-1][1] / GIB,
        "gan_side": math.isqrt(gan.tensor[1]),
        "ipex_over": ipex.tensor[2] - 8192,
        "keras_gb": _named("keras-multi-head#1").bytes / 1e9,
        "unused_gib": (failed.reserved - failed.allocated) / GIB,
        "oldest": min(report.date for report in REPORTS).year,
    }


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    possible = _free()
    gan, avatar, pixels = map(_named, ("GAN#59", "Avatar#83", "InvokeAI#3168"))
    chinese, keras = map(_named, ("Chinese#104", "keras-multi-head#1"))
    sides = [n for n in range(300, 700) if n**4 * 4 in gan.size]
    fit = sum(report.verdict == "fits" for report in REPORTS)
    return {
        "what does not fit is open, a segment or a mistake": (
            len(REPORTS) == sum(numbers()[name] for name in ("fit", "open", "segments", "mistaken"))
        ),
        "the first answer is likely": explain(_named("nanoGPT#61").message).sure == "likely",
        "each report is in one table": sum(len(_of(group)) for group in GROUPS) == len(REPORTS),
        "786.00 MiB is four sequences' logits": (
            "4 sequences, 1,024 tokens, 50,257 words, 32 bit"
            in str(explain(_named("nanoGPT#61").message))
        ),
        "with what the script says, GPT2-Chinese's is likely scores": (
            explain(chinese.message).sure == "a guess" and chinese.explained().sure == "likely"
        ),
        "with 16 GiB free, each needs 32 slices, and what went well alone comes out even": all(
            slices(16 * GIB, scale) == 32 and (tokens(scale) % 32 == 0) == well
            for scale, well in SCALES.items()
        ),
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
        "on the cards of 4 and 6 GiB a segment is free but for a small tensor": all(
            0.9 * W.score_bytes < found.reserved - found.allocated < W.score_bytes
            for found in map(fails_on, (4, 6))
            if found
        )
        and fails_on(8) is None,
        "396 tokens are not the video's": (
            _named("I2V#66").tensor[2] == 33 * 45 * 80 + 396 and "396" in _named("I2V#66").answer
        ),
        "GB were GiB": _named("pytorch#133206").bytes > 50e9,
        "a sixth of what is said": 5.5 < 150e9 / keras.bytes < 6.5,
        "two thirds fit at least": 3 * fit >= 2 * len(REPORTS),
        "no open case gets an answer": not any(
            explain(report.message).answered for report in _of("open") if report.message
        ),
        "what is not attention gets none of attention": not any(
            explain(report.message).attention for report in _of("other")
        ),
    }


def _heads(answer: Explanation) -> set[int]:
    return {dict(shape.factors)["heads"] for shape in answer.candidates}
