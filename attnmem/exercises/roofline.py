"""The exercises of the chapter roofline."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from attnmem.catalog import accelerator
from attnmem.exercises.kinds import Choice, Exercise, Function, Number, named
from attnmem.formulas import standard_steps
from attnmem.measurement.records import SHIPPED, Record, load
from attnmem.programs import flash_sdpa, standard_attention
from attnmem.roofline import Ceilings, attainable_seconds, limited_by, measured_roof
from attnmem.timeline import Step
from attnmem.workload import Workload

W = Workload(batch=1, heads=12, seq_len=8192, head_dim=64, dtype=torch.float16)
QK, SCALE, SOFTMAX = range(3)

H100, H200 = load(SHIPPED), load(SHIPPED.with_name("nvidia-h200.json"))


def _ceilings(record: Record) -> Ceilings:
    assert record.ceilings is not None
    return record.ceilings


def _step(w: Workload, index: int, record: Record = H100) -> tuple[Step, float]:
    """A step of the forward pass, and its recorded seconds."""
    steps = record.timed(standard_attention, w).steps[3:]  # the first three make Q, K and V
    return standard_steps(w)[index], steps[index].time.seconds


# Exercise 1: scaling moves S twice.
LONG = replace(W, seq_len=16384)
SCALE_GB_S = 2 * LONG.score_bytes / _step(LONG, SCALE)[1] / 1e9

# Exercise 2
PRODUCT, SECONDS = _step(replace(W, head_dim=128), QK)
RATES, PRODUCTS = _ceilings(H100).largest, _ceilings(H100).matmul["float16"]
SHARE = measured_roof(PRODUCT, _ceilings(H100))[1] / SECONDS

# Exercise 3: a step on a device.
CASES = {
    "A": (LONG, SCALE, H100),
    "B": (W, SOFTMAX, H100),
    "C": (replace(W, seq_len=256), QK, H100),
    "D": (replace(W, head_dim=256), QK, H100),
    "E": (replace(W, seq_len=1024), SOFTMAX, H100),
    "F": (replace(W, seq_len=1024), SOFTMAX, H200),
}


def _verdict(w: Workload, index: int, record: Record) -> str:
    return limited_by(*_step(w, index, record), _ceilings(record))


# Exercise 6: what the multiprocessors received in flash, in X.
FUSED = replace(W, seq_len=4096)
RECEIVED = (H100.timed(flash_sdpa, FUSED).steps[-1].received or 0) / FUSED.head_bytes

# Exercise 7: a card, and workloads for which the longest of the three kinds of work differs.
CARD = accelerator("B200")
SHAPES = (
    replace(W, seq_len=8192, head_dim=64, dtype=torch.float16),
    replace(W, seq_len=8192, head_dim=256, dtype=torch.bfloat16),
    replace(W, seq_len=128, head_dim=96, dtype=torch.float16),
    replace(W, seq_len=4096, head_dim=64, dtype=torch.float32),
)


def _gain(
    w: Workload,
    kinds: Sequence[str] = ("traffic", "products", "exponentials"),
    combine: Callable[[list[float]], float] = max,
) -> float:
    """By how much an ideal fused kernel is faster than four ideal steps, if this is its work."""
    rate, special = CARD.peak_flops(matrix=True, bits=8 * w.element_bytes), CARD.special_rate
    assert rate
    assert special
    seconds = {
        "traffic": 4 * w.head_bytes / CARD.bandwidth,
        "products": 4 * w.score_elements * w.head_dim / rate,
        "exponentials": w.score_elements / special,
    }
    return _unfused(w) / combine([seconds[kind] for kind in kinds])


def _unfused(w: Workload) -> float:
    return sum(attainable_seconds(step, CARD) for step in standard_steps(w))


def _gain_of_bytes(w: Workload) -> float:
    return (6 * w.score_bytes + 4 * w.head_bytes) / (4 * w.head_bytes)


EXERCISES: tuple[Exercise, ...] = (
    Number(
        right=SCALE_GB_S,
        unit="GB/s",
        mistakes={
            "the scaling reads S and writes S: both move": SCALE_GB_S / 2,
            "that is GFLOP/s: each entry is one multiplication, and moves 2e bytes": SCALE_GB_S / 4,
            "in f16 an entry has 2 bytes, not 4": SCALE_GB_S * 2,
            "that is the data sheet's rate; what did this step reach?": accelerator(
                "H100 SXM"
            ).bandwidth_gb_s,
        },
        factors={"the number of heads": LONG.heads},
    ),
    Number(
        right=SHARE,
        unit="of the roof",
        mistakes={
            "that is its share of the data sheet's bandwidth; the roof is measured": (
                PRODUCT.bytes_moved / accelerator("H100 SXM").bandwidth / SECONDS
            ),
            "the roof is the longer of two times, and this is the shorter, of the arithmetic": (
                PRODUCT.flops / PRODUCTS / SECONDS
            ),
            "what the product writes moves at the rate of the fill": (
                PRODUCT.bytes_moved / RATES["sum"] / SECONDS
            ),
            "a copy reads and writes in turn, and is slower: take the sum and the fill": (
                PRODUCT.bytes_moved / RATES["copy"] / SECONDS
            ),
            "Q and K are read, beside the scores that are written": (
                PRODUCT.bytes_written / RATES["fill"] / SECONDS
            ),
            "bytes and arithmetic go on at the same time: the longer counts, not the sum": (
                SHARE + PRODUCT.flops / PRODUCTS / SECONDS
            ),
            "that is the time over the least time: turn the fraction over": 1 / SHARE,
            "that is in per cent: 1 is the roof": 100 * SHARE,
        },
    ),
    Choice(
        right={case: _verdict(*where) for case, where in CASES.items()},
        mistakes={
            "A": "A: the time is within some per cent of the least time.",
            "B": "B: neither the least time nor a launch comes near the time.",
            "C": "C: is the least time near the time? If not, is a launch?",
            "D": "D: two thirds of the roof are near it, and the roof has a name.",
            "E": "E: the least time is not near the time; is a launch?",
            "F": "F: is one of the two, least time or launch, near the time?",
        },
    ),
    Function(
        right=lambda w: (w.seq_len / 128 + w.seq_len / 256) * w.head_bytes,
        mistakes={
            "that is each operand once, as if one tile held all scores of a head": (
                lambda w: 2 * w.head_bytes
            ),
            "that is the number of tiles in a head, times X; a tile takes only some rows": (
                lambda w: w.seq_len**2 / (128 * 256) * w.head_bytes
            ),
            "that is the number of tiles in a head, times 2X; a tile takes only some rows": (
                lambda w: w.seq_len**2 / (128 * 256) * 2 * w.head_bytes
            ),
            "that is what the tiles write: S": lambda w: w.score_bytes,
            "a tile has two sides: 128 rows of one operand, 256 of the other": (
                lambda w: 2 * w.seq_len / 128 * w.head_bytes
            ),
            "a tile has 128 rows of one operand, too: the other is taken more often": (
                lambda w: 2 * w.seq_len / 256 * w.head_bytes
            ),
            "that is how often; each time it is X bytes": lambda w: 3 * w.seq_len / 256,
        },
    ),
    Choice(
        right={
            "A": "bytes",
            "B": "bandwidth",
            "C": "launches",
            "D": "exponentials",
            "E": "nothing",
            "F": "nothing",
        },
        mistakes={
            "A": "A: what do these counters count?",
            "B": "B: the same bytes, in less time: what can they do?",
            "C": "C: how much of the time can it explain at most?",
            "D": "D: how much of the time can they explain at most?",
            "E": "E: an intensity belongs to the step; a fast and a slow kernel have the same.",
            "F": "F: a peak says what is alive, not what moves, nor how fast.",
        },
    ),
    Number(
        right=round(2 * FUSED.seq_len / (RECEIVED - 1)),
        unit="queries",
        mistakes={
            "each block takes K and V: 2X": FUSED.seq_len / (RECEIVED - 1),
            "Q is received, too: X": 2 * FUSED.seq_len / RECEIVED,
            "O is written, not received": 2 * FUSED.seq_len / (RECEIVED - 2),
            "that is what is received, in X: how many blocks is it?": RECEIVED,
            "that is the number of blocks in a head: how many queries are in each?": (
                (RECEIVED - 1) / 2
            ),
        },
    ),
    Function(
        right=_gain,
        mistakes={
            "that is the ratio of bytes; a fused kernel still computes": _gain_of_bytes,
            "that is as if only bytes took time: products and exponentials do, too": (
                lambda w: _gain(w, ["traffic"])
            ),
            "an ideal kernel does the three kinds of work at the same time: the longest counts": (
                lambda w: _gain(w, combine=sum)
            ),
            "each exponential is still computed, by units of their own": (
                lambda w: _gain(w, ("traffic", "products"))
            ),
            "the products are still computed; for large d they take longest": (
                lambda w: _gain(w, ("traffic", "exponentials"))
            ),
            "Q, K, V and O still move; for short sequences they take longest": (
                lambda w: _gain(w, ("products", "exponentials"))
            ),
            "that is the share of the time that is left: turn the fraction over": (
                lambda w: 1 / _gain(w)
            ),
            "not each of the four steps is limited by memory: in f32, the products are not": (
                lambda w: (
                    _gain(w) * (6 * w.score_bytes + 4 * w.head_bytes) / CARD.bandwidth / _unfused(w)
                )
            ),
        },
        inputs=lambda: named(SHAPES),
    ),
)
