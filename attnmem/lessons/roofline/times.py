"""Does the time agree? Ceilings, each step's share of its roof, and what limits it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from attnmem import figures
from attnmem.catalog import recognise
from attnmem.figures.style import Picture
from attnmem.formulas import standard_steps
from attnmem.lessons.roofline.steps import (
    CARD,
    CEILINGS,
    H100,
    H200,
    LENGTHS,
    Observed,
    W,
    at,
    forward,
    known,
    where_at_roof,
)
from attnmem.lessons.table import Table
from attnmem.measurement.records import Record
from attnmem.prediction.trace import trace
from attnmem.programs import standard_attention
from attnmem.roofline import CACHED, share_of_roof
from attnmem.timeline import SOFTMAX_OPS
from attnmem.workload import Workload


def peak(dtype: str) -> float:
    """The data sheet's FLOP/s of matrix products in a dtype."""
    return known(CARD.peak_flops(matrix=True, bits=32 if dtype == "float32" else 16))


def table_of_ceilings() -> Table:
    """What the recorded device reached, beside what its data sheet promises."""
    copies = [
        {
            "what": f"{name}, 4 GiB",
            "measured": f"{rate / 1e12:.2f} TB/s",
            "data sheet": f"{CARD.bandwidth / 1e12:.2f} TB/s",
            "share": rate / CARD.bandwidth,
        }
        for name, rate in CEILINGS.largest.items()
    ]
    products = [
        {
            "what": f"matrix product, {dtype}",
            "measured": f"{rate / 1e12:.0f} TFLOP/s",
            "data sheet": f"{peak(dtype) / 1e12:.0f} TFLOP/s",
            "share": rate / peak(dtype),
        }
        for dtype, rate in CEILINGS.matmul.items()
    ]
    return Table(copies + products, {"share": ".0%"})


def table_of_times(w: Workload, lengths: Sequence[int]) -> Table:
    """The time of each step, its share of its roof, and what limits it, a row for each length."""
    return Table(
        [
            {"N": n}
            | {
                s.name: f"{1e6 * s.seconds:,.0f} µs, {s.share:.0%}, {s.limit}"
                for s in forward(replace(w, seq_len=n))
            }
            for n in lengths
        ]
    )


def table_of_softmax_kernels(w: Workload, lengths: Sequence[int]) -> Table:
    """Which kernel PyTorch took for softmax, and the predicted bytes over its time."""
    rows: list[dict[str, object]] = []
    for n in lengths:
        _, _, softmax, _ = forward(replace(w, seq_len=n))
        rate = softmax.predicted.bytes_moved / softmax.seconds
        kernels = ", ".join(softmax.timed.kernels)
        rows.append({"N": n, "softmax's kernel": kernels, "GB/s": rate / 1e9})
    return Table(rows, {"GB/s": ",.0f"})


def table_of_records(w: Workload, records: Iterable[Record]) -> Table:
    """The ceilings of each record, and each step's share of its own roof."""
    return Table(
        [
            {
                "device": record.provenance.device,
                "recorded": record.provenance.date + (" (older code)" if record.stale else ""),
                "copy (TB/s)": ceilings.largest["copy"] / 1e12,
                "bf16 (TFLOP/s)": ceilings.matmul["bfloat16"] / 1e12,
                "launch (µs)": 1e6 * ceilings.launch,
            }
            | {s.name: s.share for s in forward(w, record)}
            for record in records
            if (ceilings := record.ceilings)
        ],
        {"copy (TB/s)": ".2f", "bf16 (TFLOP/s)": ".0f", "launch (µs)": ".0f"}
        | {step.name: ".0%" for step in standard_steps(w)},
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
        [where_at_roof(step) for step in steps],
        [
            figures.Point(
                step.name,
                step.predicted.flops / (step.read + step.written),
                step.predicted.flops / step.seconds,
            )
            for step in steps
        ],
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
    clock, sheet_clock = CEILINGS.clock["bfloat16"], known(CARD.clock_ghz) * 1e9
    shortest = [1e6 * step.seconds for step in at(LENGTHS[0])]
    qk, scale, _, pv = zip(*(at(n) for n in LENGTHS if n >= 4096), strict=True)
    good, fair = [step.share for step in (*scale, *pv)], [step.share for step in qk]
    softmax = {n: at(n)[2] for n in LENGTHS}
    _, scaling, slow, _ = forward(W)
    return {
        "origin": _made_by(H100),
        "card": CARD.name,
        "launch_us": 1e6 * CEILINGS.launch,
        "sheet_clock_ghz": sheet_clock / 1e9,
        "clock_ghz": clock / 1e9,
        "at_clock_tflops": clock / sheet_clock * peak("bfloat16") / 1e12,
        "bf16_tflops": CEILINGS.matmul["bfloat16"] / 1e12,
        "shortest_us": min(shortest),
        "longest_short_us": max(shortest),
        "softmax_512_us": 1e6 * softmax[512].seconds,
        "softmax_1024_us": 1e6 * softmax[1024].seconds,
        "h200_verdict": at(1024, H200)[2].limit,
        "h200_launch_us": 1e6 * known(H200.ceilings).launch,
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


def _made_by(record: Record) -> str:
    by = "by an older version of this code on" if record.stale else "on"
    return f"{by} {record.provenance}"


def claims() -> dict[str, bool]:
    """What the text says of these numbers: sentence -> whether it holds."""
    copy, _, fill, total = CEILINGS.largest.values()
    clock, sheet_clock = CEILINGS.clock["bfloat16"], known(CARD.clock_ghz) * 1e9
    shortest = [step.seconds for step in at(LENGTHS[0])]
    short = [at(n) for n in LENGTHS if n < 1024]
    softmax = {n: at(n)[2] for n in LENGTHS}
    kernels = {n: step.timed.kernels for n, step in softmax.items()}
    _, scaling, slow, _ = forward(W)
    on_h200 = at(1024, H200)[2]
    return {
        "the record is of this card": recognise(H100.provenance.device) == CARD,
        "a copy is slower than reading alone or writing alone": copy < min(fill, total),
        "the products do not reach the data sheet": all(
            rate < peak(dtype) for dtype, rate in CEILINGS.matmul.items()
        ),
        "at full power a GPU lowers its clock": clock < sheet_clock,
        "the products reached more than the data sheet's rate at that clock": (
            CEILINGS.matmul["bfloat16"] > clock / sheet_clock * peak("bfloat16")
        ),
        "at N = 128 the two steps that are no products take the least": (
            max(shortest[1:3]) < min(shortest[0], shortest[3])
        ),
        "launches are longer wherever the roof is that of a cache": all(
            step.least < CEILINGS.launch for n in LENGTHS for step in at(n) if step.roof == "cache"
        ),
        "below N = 1024 the times do not grow with N: launches": all(
            step.limit == "launches" and step.seconds < 1.2 * first.seconds
            for steps in short
            for step, first in zip(steps, short[0], strict=True)
        ),
        "at 1024 the word is the same": {step.limit for step in at(1024)} == {"launches"},
        "but softmax takes longer than at 512": softmax[1024].seconds > 1.5 * softmax[512].seconds,
        "our launch takes longer than softmax's": CEILINGS.launch > softmax[512].seconds,
        "on the H200 the word for softmax at 1024 is kernel": on_h200.limit == "kernel",
        "memory limits scaling and PV of long sequences, and QKᵀ": all(
            step.limit == "memory"
            for n in LENGTHS
            if n >= 4096
            for step in at(n)
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
        "a launch differs from machine to machine": (
            CEILINGS.launch > 2 * known(H200.ceilings).launch
        ),
        "none of the steps beats its roof by more than the spread of its times": all(
            share_of_roof(s.predicted, s.timed.time.high, CEILINGS) <= 1 for s in judged()
        ),
        "a launch on the H200 takes less than half as long, and the step nearly as long": (
            known(H200.ceilings).launch < CEILINGS.launch / 2
            and on_h200.seconds > 0.8 * softmax[1024].seconds
        ),
        "softmax takes far longer than scaling, for the same bytes": (
            slow.predicted.bytes_moved == scaling.predicted.bytes_moved
            and slow.seconds > 2 * scaling.seconds
        ),
        "for rows twice as long another kernel moves its bytes more than twice as fast": (
            kernels[16384] != kernels[8192] and 4 * slow.seconds > 2 * softmax[16384].seconds
        ),
    }
