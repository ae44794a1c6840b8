"""Does the time agree? Ceilings, each step's share of its roof, and what limits it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from attnmem import figures
from attnmem.catalog import recognise
from attnmem.figures.style import Picture
from attnmem.lessons.roofline.steps import (
    CARD,
    CEILINGS,
    H100,
    H200,
    LENGTHS,
    STEPS,
    Observed,
    at,
    forward,
)
from attnmem.lessons.shared import W, known
from attnmem.lessons.table import Table
from attnmem.measurement.records import Record
from attnmem.prediction.trace import trace
from attnmem.programs import standard_attention
from attnmem.roofline import CACHED, share_of_roof
from attnmem.timeline import SOFTMAX_OPS
from attnmem.workload import Workload

CLOCK, SHEET_CLOCK = CEILINGS.clock["bfloat16"], known(CARD.clock_ghz) * 1e9
H200_LAUNCH = known(H200.ceilings).launch


def peak(dtype: str) -> float:
    """The data sheet's FLOP/s of matrix products in a dtype."""
    return known(CARD.peak_flops(matrix=True, bits=32 if dtype == "float32" else 16))


def table_of_ceilings() -> Table:
    """What the recorded device reached, beside what its data sheet promises."""
    rows = []
    for name, rate in CEILINGS.largest.items():
        sheet = CARD.bandwidth
        texts = f"{rate / 1e12:.2f} TB/s", f"{sheet / 1e12:.2f} TB/s"
        rows.append((f"{name}, 4 GiB", *texts, rate / sheet))
    for dtype, rate in CEILINGS.matmul.items():
        sheet = peak(dtype)
        texts = f"{rate / 1e12:.0f} TFLOP/s", f"{sheet / 1e12:.0f} TFLOP/s"
        rows.append((f"matrix product, {dtype}", *texts, rate / sheet))
    return Table({"what": "", "measured": "", "data sheet": "", "share": ".0%"}, rows)


def table_of_times(w: Workload, lengths: Sequence[int]) -> Table:
    """The time of each step, its share of its roof, and what limits it, a row for each length."""
    rows = []
    for n in lengths:
        steps = forward(replace(w, seq_len=n))
        rows.append((n, *(f"{1e6 * s.seconds:,.0f} µs, {s.share:.0%}, {s.limit}" for s in steps)))
    return Table(dict.fromkeys(("N", *STEPS), ""), rows)


def table_of_softmax_kernels(w: Workload, lengths: Sequence[int]) -> Table:
    """Which kernel PyTorch took for softmax, and the predicted bytes over its time."""
    steps = {n: forward(replace(w, seq_len=n))[2] for n in lengths}
    return Table(
        {"N": "", "softmax's kernel": "", "GB/s": ",.0f"},
        (
            (n, ", ".join(step.timed.kernels), step.predicted.bytes_moved / step.seconds / 1e9)
            for n, step in steps.items()
        ),
    )


def table_of_records(w: Workload, records: Iterable[Record]) -> Table:
    """The ceilings of each record, and each step's share of its own roof."""
    rows = []
    for record in records:
        if found := record.ceilings:
            made_on = record.provenance
            recorded = made_on.date + (" (older code)" if record.stale else "")
            rates = found.largest["copy"] / 1e12, found.matmul["bfloat16"] / 1e12
            shares = [step.share for step in forward(w, record)]
            rows.append((made_on.device, recorded, *rates, 1e6 * found.launch, *shares))
    return Table(
        {"device": "", "recorded": "", "copy (TB/s)": ".2f", "bf16 (TFLOP/s)": ".0f"}
        | {"launch (µs)": ".0f"}
        | dict.fromkeys(STEPS, ".0%"),
        rows,
    )


def roofline() -> Picture:
    """The steps at N = 8192 where they should be and where they are, under both roofs."""
    measured = max(CEILINGS.largest.values())
    steps = forward(W)
    return figures.rooflines(
        [
            figures.Roof(f"{CARD.name}, data sheet", CARD.bandwidth, peak("float16")),
            figures.Roof("measured", measured, CEILINGS.matmul["float16"]),
        ],
        [s.at_roof for s in steps],
        [figures.Point(s.name, s.predicted.flops / s.moved, s.flops_per_second) for s in steps],
        {
            "vector units": known(CARD.peak_flops(matrix=False)),
            "softmax: its exponentials": SOFTMAX_OPS * known(CARD.special_rate),
        },
    )


def judged() -> list[Observed]:
    """All recorded steps of standard attention that compute, forward and backward."""
    return [
        Observed(step, timed, CEILINGS)
        for run in H100.runs
        if run.program == standard_attention.__name__
        for step, timed in zip(
            trace(standard_attention, run.workload, run.training).steps, run.steps, strict=True
        )
        if step.stage != "inputs" and step.flops
    ]


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    made_by = "by an older version of this code " if H100.stale else ""
    shortest = [1e6 * step.seconds for step in at(LENGTHS[0])]
    qk, scale, _, pv = zip(*(at(n) for n in LENGTHS if n >= 4096), strict=True)
    good, fair = [step.share for step in (*scale, *pv)], [step.share for step in qk]
    softmax = {n: at(n)[2] for n in LENGTHS}
    _, scaling, slow, _ = forward(W)
    return {
        "origin": f"{made_by}on {H100.provenance}",
        "card": CARD.name,
        "launch_us": 1e6 * CEILINGS.launch,
        "sheet_clock_ghz": SHEET_CLOCK / 1e9,
        "clock_ghz": CLOCK / 1e9,
        "at_clock_tflops": CLOCK / SHEET_CLOCK * peak("bfloat16") / 1e12,
        "bf16_tflops": CEILINGS.matmul["bfloat16"] / 1e12,
        "shortest_us": min(shortest),
        "longest_short_us": max(shortest),
        "softmax_512_us": 1e6 * softmax[512].seconds,
        "softmax_1024_us": 1e6 * softmax[1024].seconds,
        "h200_verdict": at(1024, H200)[2].limit,
        "h200_launch_us": 1e6 * H200_LAUNCH,
        "cached": CACHED,
        "roofline": roofline(),
        "good_least": min(good),
        "good_most": max(good),
        "qk_least": min(fair),
        "qk_most": max(fair),
        **{f"softmax_{n}": softmax[n].share for n in (2048, 4096, 8192, 16384)},
        "judged": len(judged()),
        "best": max(step.share for step in judged()),
        # in exercise 5
        "softmax_times": 1 / slow.share,
        "softmax_counted": slow.counted,
        "scaling_time": scaling.seconds / slow.seconds,
        "softmax_launch": CEILINGS.launch / slow.seconds,
        "softmax_special": slow.predicted.special / known(CARD.special_rate) / slow.seconds,
    }


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    copy, _, fill, total = CEILINGS.largest.values()
    shortest = [step.seconds for step in at(LENGTHS[0])]
    steps = {n: at(n) for n in LENGTHS}
    softmax = {n: found[2] for n, found in steps.items()}
    kernels = {n: step.timed.kernels for n, step in softmax.items()}
    _, scaling, slow, _ = forward(W)
    on_h200 = at(1024, H200)[2]
    return {
        "the record is of this card": recognise(H100.provenance.device) == CARD,
        "a copy is slower than reading alone or writing alone": copy < min(fill, total),
        "the products do not reach the data sheet": all(
            rate < peak(dtype) for dtype, rate in CEILINGS.matmul.items()
        ),
        "at full power a GPU lowers its clock": CLOCK < SHEET_CLOCK,
        "the products reached more than the data sheet's rate at that clock": (
            CEILINGS.matmul["bfloat16"] > CLOCK / SHEET_CLOCK * peak("bfloat16")
        ),
        "at N = 128 products take the longest": max(shortest[1:3]) < min(shortest[0], shortest[3]),
        "launches are longer wherever the roof is that of a cache": all(
            step.least < CEILINGS.launch
            for found in steps.values()
            for step in found
            if step.roof == "cache"
        ),
        "below N = 1024 the times do not grow with N: launches": all(
            step.limit == "launches" and step.seconds < 1.2 * first
            for n in LENGTHS
            if n < 1024
            for step, first in zip(steps[n], shortest, strict=True)
        ),
        "at 1024 the word is the same": {step.limit for step in steps[1024]} == {"launches"},
        "but softmax takes longer than at 512": softmax[1024].seconds > 1.5 * softmax[512].seconds,
        "our launch takes longer than softmax's": CEILINGS.launch > softmax[512].seconds,
        "on the H200 the word for softmax at 1024 is kernel": on_h200.limit == "kernel",
        "memory limits scaling and PV of long sequences, and QKᵀ": all(
            step.limit == "memory"
            for n in LENGTHS
            if n >= 4096
            for step in steps[n]
            if step.name != "softmax"
        ),
        "the kernel limits softmax in between": (
            [n for n, step in softmax.items() if step.limit == "kernel"] == [2048, 4096, 8192]
        ),
        "then softmax reaches most of its roof": softmax[16384].limit == "memory",
        "PyTorch chooses softmax's kernel by the length of a row": len(set(kernels.values())) > 1,
        "the slow kernel of softmax is slow on both": all(
            [s.name for s in forward(W, record) if s.limit == "kernel"] == ["softmax"]
            for record in (H100, H200)
        ),
        "none of the steps beats its roof by more than the spread of its times": all(
            share_of_roof(s.predicted, s.timed.time.high, CEILINGS) <= 1 for s in judged()
        ),
        "a launch on the H200 takes less than half as long, and the step nearly as long": (
            CEILINGS.launch > 2 * H200_LAUNCH and on_h200.seconds > 0.8 * softmax[1024].seconds
        ),
        "softmax takes far longer than scaling, for the same bytes": (
            slow.predicted.bytes_moved == scaling.predicted.bytes_moved
            and slow.seconds > 2 * scaling.seconds
        ),
        "for rows twice as long another kernel moves its bytes more than twice as fast": (
            kernels[16384] != kernels[8192] and 4 * slow.seconds > 2 * softmax[16384].seconds
        ),
    }
