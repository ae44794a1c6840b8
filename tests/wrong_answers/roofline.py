"""Wrong answers that readers typically give, and what the check must say to them."""

from dataclasses import replace

import torch

from attnmem import Workload, standard_attention
from attnmem.catalog import accelerator
from attnmem.formulas import standard_steps
from attnmem.measurement import records
from attnmem.roofline import attainable_seconds

W = Workload(batch=1, heads=12, seq_len=16384, head_dim=64, dtype=torch.float16)
SCALING = records.load().timed(standard_attention, W).steps[4].time.seconds

WIDE = replace(W, seq_len=8192, head_dim=128)
PRODUCT = records.load().timed(standard_attention, WIDE).steps[3].time.seconds
MOVED = 2 * WIDE.head_bytes + WIDE.score_bytes
RATES = records.load().ceilings.largest
ARITHMETIC = 2 * WIDE.score_elements * 128 / records.load().ceilings.matmul["float16"]
MEMORY = 2 * WIDE.head_bytes / RATES["sum"] + WIDE.score_bytes / RATES["fill"]

VERDICTS = dict(
    zip("ABCDEF", ("memory", "kernel", "launches", "compute", "launches", "kernel"), strict=True)
)
SUSPECTS = {"A": "bytes", "B": "bandwidth", "C": "launches", "D": "exponentials"} | dict.fromkeys(
    "EF", "nothing"
)

CARD = accelerator("B200")


def parts(w):
    rate = CARD.peak_flops(matrix=True, bits=8 * w.element_bytes)
    return (
        4 * w.head_bytes / CARD.bandwidth,
        4 * w.score_elements * w.head_dim / rate,
        w.score_elements / CARD.special_rate,
    )


def unfused(w):
    return sum(attainable_seconds(step, CARD) for step in standard_steps(w))


WRONG = [
    ("roofline-1", W.score_bytes / SCALING / 1e9, "reads S and writes S"),
    ("roofline-1", W.score_elements / SCALING / 1e9, "that is GFLOP/s"),
    ("roofline-1", 4 * W.score_bytes / SCALING / 1e9, "2 bytes, not 4"),
    ("roofline-1", 16 * W.score_bytes / SCALING / 1e9, "a byte has 8 bits"),
    ("roofline-1", 2 * W.score_bytes / SCALING / 2**30, "1 GB is 10⁹ bytes"),
    ("roofline-1", 2 * W.score_bytes / SCALING / 1e12, "the unit that is asked for, one step"),
    ("roofline-1", 2 * 16384**2 * 2 / SCALING / 1e9, "number of heads"),
    ("roofline-1", 3350, "data sheet's rate"),
    ("roofline-2", MOVED / 3.35e12 / PRODUCT, "data sheet's bandwidth"),
    ("roofline-2", ARITHMETIC / PRODUCT, "this is the shorter"),
    ("roofline-2", MOVED / RATES["sum"] / PRODUCT, "at the rate of the fill"),
    ("roofline-2", MOVED / RATES["copy"] / PRODUCT, "a copy reads and writes in turn"),
    ("roofline-2", WIDE.score_bytes / RATES["fill"] / PRODUCT, "Q and K are read"),
    ("roofline-2", (MEMORY + ARITHMETIC) / PRODUCT, "not the sum"),
    ("roofline-2", PRODUCT / MEMORY, "turn the fraction over"),
    ("roofline-2", 100 * MEMORY / PRODUCT, "in per cent"),
    ("roofline-3", VERDICTS | {"A": "kernel"}, "for: A. .*within some per cent"),
    ("roofline-3", VERDICTS | {"B": "memory"}, "for: B. .*comes near the time"),
    ("roofline-3", VERDICTS | {"C": "memory", "D": "memory"}, "for: C, D. .*the roof has a name"),
    ("roofline-3", VERDICTS | {"E": "kernel", "F": "launches"}, "for: E, F. .*longer of least"),
    ("roofline-3", list(VERDICTS.values()), "expected a dict, got list"),
    ("roofline-4", lambda w: 2 * w.head_bytes, "each operand once"),
    ("roofline-4", lambda w: w.seq_len / 128 * w.seq_len / 256 * w.head_bytes, "number of tiles"),
    ("roofline-4", lambda w: w.score_bytes, "what the tiles write"),
    ("roofline-4", lambda w: w.seq_len / 64 * w.head_bytes, "a tile has two sides"),
    ("roofline-4", lambda w: w.seq_len / 128 * w.head_bytes, "a tile has 128 rows of one"),
    ("roofline-4", lambda w: w.seq_len / 256 + w.seq_len / 128, "how often"),
    (
        "roofline-4",
        lambda w: 3 * w.seq_len / 256 * w.head_bytes / w.heads,
        "too small by a factor of H, the number of heads",
    ),
    ("roofline-5", SUSPECTS | {"A": "bandwidth", "B": "bytes"}, "for: A, B. .*in less time"),
    ("roofline-5", SUSPECTS | {"C": "nothing"}, "it explain at most"),
    ("roofline-5", SUSPECTS | {"E": "exponentials"}, "an intensity belongs to the step"),
    ("roofline-5", SUSPECTS | {"F": "bytes"}, "what is alive, not what moves"),
    ("roofline-5", "bytes", "expected a dict, got str 'bytes'"),
    ("roofline-6", 64, "K and V: 2X"),
    ("roofline-6", 2 * 4096 / 65, "Q is received, too"),
    ("roofline-6", 2 * 4096 / 63, "O is written"),
    ("roofline-6", 65, "how many blocks is it"),
    ("roofline-6", 32, "the number of blocks"),
    ("roofline-7", lambda w: unfused(w) / parts(w)[0], "as if only bytes took time"),
    (
        "roofline-7",
        lambda w: (6 * w.score_bytes + 4 * w.head_bytes) / (4 * w.head_bytes),
        "ratio of bytes",
    ),
    ("roofline-7", lambda w: unfused(w) / sum(parts(w)), "the longest counts"),
    ("roofline-7", lambda w: unfused(w) / max(parts(w)[:2]), "each exponential"),
    ("roofline-7", lambda w: unfused(w) / max(parts(w)[::2]), "the products are still"),
    ("roofline-7", lambda w: unfused(w) / max(parts(w)[1:]), "still move"),
    ("roofline-7", lambda w: max(parts(w)) / unfused(w), "turn the fraction over"),
    (
        "roofline-7",
        lambda w: (6 * w.score_bytes + 4 * w.head_bytes) / CARD.bandwidth / max(parts(w)),
        "not each of the four",
    ),
]
