"""Does the time agree? Ceilings, each step's share of its roof, what limits it, and softmax."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch

from attnmem import figures
from attnmem.catalog import Accelerator, recognise
from attnmem.figures.style import Picture
from attnmem.formulas import standard_steps
from attnmem.lessons.intensity import WITH_VECTOR_RATE, limited_by_arithmetic
from attnmem.lessons.roofline import steps
from attnmem.lessons.roofline.steps import (
    CARD,
    CEILINGS,
    H100,
    H200,
    LENGTHS,
    Observed,
    at,
    forward,
)
from attnmem.lessons.shared import W, known, made
from attnmem.lessons.table import Table
from attnmem.measurement.records import Record
from attnmem.measurement.timing import PRODUCTS
from attnmem.prediction.trace import trace
from attnmem.programs import standard_attention
from attnmem.roofline import CACHED, NEAR, ridge_point, share_of_roof
from attnmem.timeline import SOFTMAX_OPS
from attnmem.workload import Workload

WIDE, FULL = replace(W, head_dim=256), replace(W, dtype=torch.float32)
MAPPED = (512, 4096, 8192)  # at 1024 and 2048 caches help, at 16384 the rule is wrong of softmax
# Bytes that a thread loads at a time in 16 bit, by the source of the kernel.
LOADS = {"cunn_SoftMaxForwardReg": W.element_bytes, "cunn_SoftMaxForwardSmem": 16}
LAUNCH, LAUNCH_H200 = CEILINGS.launch, known(H200.ceilings).launch


def table_of_ceilings() -> Table:
    """What each recorded GPU reached, beside what its data sheet promises."""
    columns = []
    for record, card in zip(steps.RECORDS, steps.CARDS, strict=True):
        found = known(record.ceilings)
        column: dict[str, tuple[float, float | None]] = {}
        for name, rate in found.largest.items():
            column[f"{name}, 4 GiB (TB/s)"] = rate / 1e12, card.bandwidth / 1e12
        for dtype, rate in found.matmul.items():
            column[f"product, {dtype} (TFLOP/s)"] = rate / 1e12, peak(dtype, card) / 1e12
        for dtype, clock in found.clock.items():
            of_sheet = known(card.clock_ghz) if dtype != "float32" else None  # of the 16-bit rate
            column[f"clock after it, {dtype} (GHz)"] = clock / 1e9, of_sheet
        columns.append(column)
    here, newer = columns
    names = "H100", "data sheet", "H200", "its sheet"
    return Table(
        {"what": ""} | dict.fromkeys(names, ",.2f"),
        ((what, *here[what], *newer.get(what, (None, None))) for what in here),
    )


def peak(dtype: str, card: Accelerator = CARD) -> float:
    """The data sheet's FLOP/s of matrix products in a dtype."""
    return known(card.peak_flops(matrix=True, bits=32 if dtype == "float32" else 16))


def table_of_times(cases: Mapping[str, Workload], record: Record = H100) -> Table:
    """The time of each step, its share of its roof, and what limits it, a row for each case."""
    return Table(
        dict.fromkeys(("case", *steps.STEPS), ""),
        (
            (
                case,
                *(
                    f"{1e6 * s.seconds:,.0f} µs, {s.share:.0%}, {s.limit}"
                    for s in forward(w, record)
                ),
            )
            for case, w in cases.items()
        ),
    )


def table_of_softmax(lengths: Sequence[int]) -> Table:
    """How much a thread of softmax's kernel loads at a time, and its times, a row a length."""
    rows = []
    for n in lengths:
        step = at(n)[2]
        (kernel,) = step.timed.kernels
        times = 1e3 * step.roof[1], 1e3 * step.seconds
        rows.append((n, f"{LOADS[kernel]} bytes", *times, step.share))
    forms = {"roof (ms)": ".3f", "took (ms)": ".3f", "share": ".0%"}
    return Table({"N": "", "a thread loads": ""} | forms, rows)


def softmax(seq_len: int) -> tuple[Observed, Observed, Observed]:
    """The step as it is, in 32 bit, and on the other GPU."""
    w = replace(W, seq_len=seq_len)
    full = replace(w, dtype=torch.float32)
    return forward(w)[2], forward(full)[2], forward(w, H200)[2]


def gains(seq_len: int) -> tuple[float, ...]:
    """What share of each step's time the GPU with the faster memory saves; softmax comes last."""
    qk, scale, slow, pv = (
        1 - newer.seconds / step.seconds
        for step, newer in zip(at(seq_len), at(seq_len, H200), strict=True)
    )
    return qk, scale, pv, slow


def rest(record: Record) -> float:
    """The seconds of all steps but softmax, at N = 8192."""
    return sum(s.seconds for s in forward(W, record) if s.predicted.name != "softmax")


def over_roof() -> Picture:
    """The steps at N = 8192 on both GPUs: what the roof allows, and what they took."""
    columns = zip(*(forward(W, record) for record in steps.RECORDS), strict=True)
    names = [card.name.split()[0] for card in steps.CARDS]
    return figures.over_roof(
        {
            column[0].predicted.name: {
                name: (step.roof[1], step.seconds) for name, step in zip(names, column, strict=True)
            }
            for column in columns
        }
    )


def shares() -> Picture:
    """Each step's share of its roof and what limits it, over lengths, and for a large head."""
    cases = {str(n): replace(W, seq_len=n) for n in MAPPED} | {f"{W.seq_len},\nd = 256": WIDE}
    columns = zip(*map(forward, cases.values()), strict=True)
    found = {c[0].predicted.name: [(s.share, s.limit) for s in c] for c in columns}
    return figures.shares(found, list(cases), "sequence length N")


def roofline() -> Picture:
    """The steps at N = 8192 where they should be and where they are, under both roofs."""
    found = forward(W)
    should = [
        figures.Point(s.predicted.name, s.predicted.intensity, s.predicted.flops / s.roof[1])
        for s in found
    ]
    are = [
        figures.Point(p.name, p.intensity / s.counted, s.rates[1])
        for p, s in zip(should, found, strict=True)
    ]
    roofs = [
        figures.Roof(f"{CARD.name}, data sheet", CARD.bandwidth, peak("float16")),
        figures.Roof("measured", max(CEILINGS.largest.values()), CEILINGS.matmul["float16"]),
    ]
    levels = {
        "vector units": known(CARD.peak_flops(matrix=False)),
        "softmax: its exponentials": SOFTMAX_OPS * known(CARD.special_rate),
    }
    return figures.rooflines(roofs, should, are, levels)


@cache
def judged() -> dict[str, list[Observed]]:
    """All recorded steps of standard attention that compute, forward and backward, by their roof.

    Products in the very shape of one of the ceiling's are apart, under ``"own"``.
    """
    found: dict[str, list[Observed]] = {"own": []}
    for run in (run for run in H100.runs if run.program == standard_attention.__name__):
        w = run.workload
        own = (w.heads, w.seq_len, w.seq_len, w.head_dim) in PRODUCTS
        predicted = trace(standard_attention, w, run.training).steps
        for step, timed in zip(predicted, run.steps, strict=True):
            if step.stage != "inputs" and step.flops:
                observed = steps.observe(step, timed, CEILINGS)
                twin = own and step.matrix and step.bytes_read > step.bytes_written  # as PV does
                found.setdefault("own" if twin else observed.roof[0], []).append(observed)
    return found


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    qk, scale, _, pv = zip(*(at(n) for n in LENGTHS if n >= 4096), strict=True)
    good, fair = [step.share for step in (*scale, *pv)], [step.share for step in qk]
    short, (_, scaling, slow, _) = at(512)[0], forward(W)
    _, full, newer = softmax(W.seq_len)
    whole, whole_h200 = (
        known(record.timed(standard_attention, W).whole).seconds for record in steps.RECORDS
    )
    moved = scaling.predicted.bytes_moved
    starts = [step.seconds for n in LENGTHS if n < 1024 for step in at(n)[1:3]]
    *others, gain_long = gains(16384)
    of_softmax = slow.seconds / sum(step.seconds for step in forward(W))
    more_bandwidth = steps.NEWER.bandwidth / CARD.bandwidth
    kept = newer.seconds / slow.seconds
    of_whole = of_softmax * kept + (1 - of_softmax) / more_bandwidth
    return {
        "origin": f"{'by an older version of this code ' * H100.stale}on {H100.provenance}",
        "origin_h200": f"{'by an older version of this code ' * H200.stale}on {H200.provenance}",
        "made": made(H100),
        "made_both": made(*steps.RECORDS),
        "more_bandwidth": more_bandwidth,
        "of_softmax": of_softmax,
        "of_rest": 1 - of_softmax,
        "softmax_kept": kept,
        "of_whole": of_whole,
        "faster_expected": 1 / of_whole,
        "faster_h200": whole / whole_h200,
        "whole_ms": 1e3 * whole,
        "whole_h200_ms": 1e3 * whole_h200,
        "scale_gb": moved / 1e9,
        "half_gb": scaling.predicted.bytes_read / 1e9,
        "sheet_tbs": CARD.bandwidth / 1e12,
        "read_tbs": CEILINGS.largest["sum"] / 1e12,
        "write_tbs": CEILINGS.largest["fill"] / 1e12,
        "least_ms": 1e3 * moved / CARD.bandwidth,
        "scale_ms": 1e3 * scaling.seconds,
        "scale_roof_ms": 1e3 * scaling.roof[1],
        "scale_share": scaling.share,
        "softmax_ms": 1e3 * slow.seconds,
        "softmax_roof_ms": 1e3 * slow.roof[1],
        "softmax_longer": at(16384)[2].seconds / slow.seconds,
        "softmax_f32_ms": 1e3 * full.seconds,
        "softmax_f32_more": full.seconds / slow.seconds - 1,
        "softmax_gain": 1 - kept,
        "softmax_gain_long": gain_long,
        "others_gain_long": min(others),
        "softmax_faster": at(16384)[2].rates[0] / slow.rates[0],
        "launch_us": 1e6 * LAUNCH,
        "launch_ms": 1e3 * LAUNCH,
        "short_roof_ms": 1e3 * short.roof[1],
        "short_took_ms": 1e3 * short.seconds,
        "starts_least_us": 1e6 * min(starts),
        "starts_most_us": 1e6 * max(starts),
        "launch_h200_us": 1e6 * LAUNCH_H200,
        "cached": CACHED,
        "over_roof": over_roof(),
        "shares": shares(),
        "roofline": roofline(),
        "good_least": min(good),
        "good_most": max(good),
        "qk_least": min(fair),
        "qk_most": max(fair),
        "softmax_8192": slow.share,
        "judged": sum(map(len, judged().values())),
        **{f"judged_{roof}": len(found) for roof, found in judged().items()},
        **{f"best_{roof}": max(s.share for s in found) for roof, found in judged().items()},
        "wide": standard_steps(WIDE)[0].intensity,
        "f16_tflops": CEILINGS.matmul["float16"] / 1e12,
        "sheet_balance": ridge_point(CARD, matrix=True),
        "balance_fill": CEILINGS.matmul["float16"] / CEILINGS.largest["fill"],
        "balance_sum": CEILINGS.matmul["float16"] / CEILINGS.largest["sum"],
        **{f"fp32_{d}": n for d, n in limited_by_arithmetic(FULL, WITH_VECTOR_RATE).items()},
        "cards": len(WITH_VECTOR_RATE),
        # in exercise 5
        "softmax_times": 1 / slow.share,
        "softmax_counted": slow.counted,
        "scaling_time": scaling.seconds / slow.seconds,
        "softmax_launch": LAUNCH / slow.seconds,
        "softmax_special": slow.predicted.special / known(CARD.special_rate) / slow.seconds,
    }


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    found = numbers()
    by_length = {n: at(n) for n in LENGTHS}
    limits = {n: [step.limit for step in row] for n, row in by_length.items()}
    _, scaling, slow, _ = forward(W)
    on_h200, here = at(1024, H200)[2], at(1024)[2]
    wide, (qk_full, *full) = forward(WIDE), forward(FULL)
    return {
        "the records are of these cards": all(
            recognise(record.provenance.device) == card
            for record, card in zip(steps.RECORDS, steps.CARDS, strict=True)
        ),
        "an H200 has more bandwidth, and attention runs hardly faster": (
            found["more_bandwidth"] > 1.4 and 1 < found["faster_h200"] < 1.2
        ),
        "the products do not reach the data sheet, nor the clock that of the sheet": all(
            rate < peak(dtype) and CEILINGS.clock[dtype] < 1e9 * known(CARD.clock_ghz)
            for dtype, rate in CEILINGS.matmul.items()
        ),
        "a copy is slower than reading alone or writing alone": (
            CEILINGS.largest["copy"] < min(CEILINGS.largest["fill"], CEILINGS.largest["sum"])
        ),
        "launches are longer wherever the roof is that of a cache": all(
            step.roof[1] < LAUNCH
            for row in by_length.values()
            for step in row
            if step.roof[0] == "cache"
        ),
        "our rule says memory of three steps of N = 8192, of four of 16384, of none of up to 512": (
            limits[16384] == ["memory"] * 4
            and limits[8192] == ["memory", "memory", "kernel", "memory"]
            and {limit for n in LENGTHS if n < 1024 for limit in limits[n]} == {"launches"}
        ),
        "but softmax of 16384 waits for its kernel: the H200 says so, and gains only elsewhere": (
            at(16384, H200)[2].limit == "kernel"
            and abs(found["softmax_gain_long"]) < 0.02
            and found["others_gain_long"] > 0.15
        ),
        "its share is just above two thirds": 0 < at(16384)[2].share - NEAR < 0.06,
        "at N = 1024 the scaling reaches its roof, and the rest says launches": (
            limits[1024] == ["launches", "memory", "launches", "launches"]
        ),
        "scaling and softmax start in less than a tiny product": (
            found["starts_most_us"] < found["launch_us"]
        ),
        "below N = 1024 the times do not grow with N": all(
            max(step.seconds for step in column) < 1.2 * column[0].seconds
            for column in zip(*(by_length[n] for n in LENGTHS if n < 1024), strict=True)
        ),
        "of the three examples a launch, memory and the kernel are the limit": (
            [at(512)[0].limit, scaling.limit, slow.limit] == ["launches", "memory", "kernel"]
        ),
        "the kernel limits softmax wherever the map shows a time that launches do not limit": all(
            limits[n][2] == ("launches" if n == 512 else "kernel") for n in MAPPED
        ),
        "of the four steps only softmax takes more than a third as long as its roof beyond it": (
            [step.predicted.name for step in forward(W) if step.seconds > 4 / 3 * step.roof[1]]
            == ["softmax"]
        ),
        "on an H200 the others are faster by an eighth, and softmax takes nearly as long": (
            min(gains(W.seq_len)[:3]) > 1 / 8 > 0.05 > gains(W.seq_len)[3]
        ),
        "memory is the roof of all four on both": {
            step.roof[0] for record in steps.RECORDS for step in forward(W, record)
        }
        == {"memory"},
        "no rate of memory reaches the data sheet": (
            max(CEILINGS.largest.values()) < CARD.bandwidth
        ),
        "at 1024 and 2048 steps find a part of their bytes in the cache, and not from 4096 on": (
            all(min(step.counted for step in at(n)) < 0.8 for n in (1024, 2048))
            and all(min(step.counted for step in at(n)) > 0.9 for n in MAPPED[1:])
        ),
        "the rest of the puzzle gains a little less than memory": (
            1.3 < rest(H100) / rest(H200) < found["more_bandwidth"]
        ),
        "the whole takes a little more than the sum of its steps on the H200": (
            1 < found["whole_h200_ms"] / sum(1e3 * s.seconds for s in forward(W, H200)) < 1.02
        ),
        "at d = 256 the products lie between the balance of writing and that of reading": (
            found["balance_fill"] < found["wide"] < found["balance_sum"]
        ),
        "there arithmetic limits QKᵀ, and memory PV; softmax waits for its kernel": (
            [step.limit for step in wide] == ["compute", "memory", "kernel", "memory"]
        ),
        "in 32 bit arithmetic limits PV, and QKᵀ falls just short of our two thirds": (
            [step.limit for step in full] == ["memory", "kernel", "compute"]
            and qk_full.roof[0] == "compute"
            and 0 < NEAR - qk_full.share < 0.01
        ),
        "softmax's slow kernel is slow on both": all(
            [s.predicted.name for s in forward(W, record) if s.limit == "kernel"] == ["softmax"]
            for record in steps.RECORDS
        ),
        "its time follows elements, not bytes": all(
            full.seconds < 1.2 * half.seconds for half, full, _ in map(softmax, (4096, 8192))
        ),
        "twice the length is four times the bytes": (
            at(16384)[2].predicted.bytes_moved == 4 * slow.predicted.bytes_moved
        ),
        "and a faster memory gains next to nothing": 0 < found["softmax_gain"] < 0.05,
        "no step beats its roof by more than the spread of its times": all(
            share_of_roof(s.predicted, s.timed.time.high, CEILINGS) <= 1
            for row in judged().values()
            for s in row
        ),
        "only products of a ceiling's own shape reach it": (
            found["best_memory"] < 0.98 and found["best_compute"] < found["best_own"]
        ),
        "the next best has four times the FLOPs of one of them: twice as long": (
            max(judged()["compute"], key=lambda s: s.share).predicted.flops
            in [4 * s.predicted.flops for s in judged()["own"]]
        ),
        "a launch on the H200 takes less than half as long, and the step nearly as long": (
            LAUNCH > 2 * LAUNCH_H200 and on_h200.seconds > 0.8 * here.seconds
        ),
        "softmax moves the bytes of the scaling, and takes far longer": (
            slow.predicted.bytes_moved == scaling.predicted.bytes_moved
            and slow.seconds > 2 * scaling.seconds
        ),
        "for rows twice as long another kernel moves its bytes more than twice as fast": (
            at(16384)[2].timed.kernels != slow.timed.kernels and found["softmax_faster"] > 2
        ),
    }
