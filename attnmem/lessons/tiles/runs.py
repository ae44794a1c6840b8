"""What was recorded of whole passes: peaks, bytes, times, and their shares of a roof."""

import math
from dataclasses import replace
from typing import Any

from attnmem.catalog import model, recognise
from attnmem.formulas import peak_bytes, standard_steps
from attnmem.lessons.shared import W, known
from attnmem.lessons.table import Table
from attnmem.lessons.tiles.cuts import eager_traffic, products
from attnmem.measurement import passes_record
from attnmem.measurement.passes_grid import EAGER, LENGTHS
from attnmem.measurement.passes_record import Found
from attnmem.tiles import costs
from attnmem.workload import Workload, ceil_div, dtype_name

RECORD = passes_record.load()
CARD = known(recognise(RECORD.provenance.device))
HALF = replace(W, seq_len=4096)  # where everything was counted
CUTS = ((512, None), (None, 512), (512, 512), (128, 128))
SMALL = ((128, 128), (256, 256), (512, 512))  # tiles that the launches of their operations limit
NAMES = {
    "standard": "standard",
    "tiled": "tiles, eager",
    "triton": "our kernel",
    "efficient": "efficient",
    "flash": "flash",
    "cudnn": "cuDNN",
    "compiled": "compiled",
}
LLAMA = model("Llama 3.1 8B")
TILE = (128, 128)  # the page's
SHOWN = tuple(2**power for power in range(11, 18))  # below, launches take most of the time
# Our kernel with each block size that was tried on W: seconds, and the fastest of them.
TRIED = {c: t for c, t in RECORD.blocks.items() if c.workload == W and not c.causal}
BEST_CELL = min(TRIED, key=lambda cell: TRIED[cell])
BEST = known(BEST_CELL.block)


def found(name: str, w: Workload, **options: Any) -> Found:
    """What is recorded of a program, of the eager one with its large tiles."""
    return RECORD.find(name, w, block=EAGER if name == "tiled" else None, **options)


def least(w: Workload, *, causal: bool = False) -> dict[str, float]:
    """The seconds that each part of an ideal fused forward pass takes on the recorded GPU."""
    reading, writing = RECORD.ceilings.largest["sum"], RECORD.ceilings.largest["fill"]
    flops = products(w, 2, causal=causal)
    return {
        "traffic": 3 * w.head_bytes / reading + w.head_bytes / writing,
        "products": flops / RECORD.ceilings.matmul[dtype_name(w.dtype)],
        "exponentials": flops / (4 * w.head_dim) / known(CARD.special_rate),
    }


def tile_seconds(w: Workload, block: tuple[int, int]) -> float:
    """The time of the eager tiles' forward pass, over their number."""
    seconds = known(RECORD.find("tiled", w, block=block).seconds)
    return seconds / math.prod(ceil_div(w.seq_len, size) for size in block)


def share(name: str, w: Workload, *, causal: bool = False) -> float:
    """What share of the ideal fused pass's roof the forward pass of a program reaches."""
    seconds = known(found(name, w, causal=causal).seconds)
    return max(least(w, causal=causal).values()) / seconds


def training_ratios() -> list[float]:
    """Our forward and backward pass over PyTorch's flash, from N = 4096 on."""
    return [
        known(f.seconds) / known(found("flash", c.workload, causal=c.causal, training=True).seconds)
        for c, f in RECORD.passes.items()
        if c.program == "triton" and c.training and c.workload.seq_len >= 4096 and f.seconds
    ]


def table_of_cuts() -> Table:
    """Three ways to cut: peak by formula, trace and allocator; traffic; time."""
    one = found("standard", HALF)
    moved = sum(step.bytes_moved for step in standard_steps(HALF))
    x = HALF.head_bytes
    first = peak_bytes(HALF) / x, known(one.peak_bytes) / x, moved / x, 1e3 * known(one.seconds)
    rows: list[tuple[Any, ...]] = [("standard, uncut", *first)]
    for block in CUTS:
        name = " × ".join(str(size or "all") for size in block)
        run = RECORD.find("tiled", HALF, block=block)
        peaks = costs.peak_bytes(HALF, block) / x, known(run.peak_bytes) / x
        rows.append((name, *peaks, eager_traffic(HALF, block) / x, 1e3 * known(run.seconds)))
    return Table(
        {"queries × keys": "", "peak, formula (X)": ".3f", "peak, recorded (X)": ".3f"}
        | {"moved, traced (X)": ",.0f", "time (ms)": ",.2f"},
        rows,
    )


def table_of_traffic() -> Table:
    """Our kernel's bytes by its loop and by the counters, over N."""
    rows = []
    for n in (512, 1024, 4096, 8192, 16384, 32768):
        w = replace(W, seq_len=n)
        run, asked = found("triton", w), costs.received(w, BEST[0] or n)
        got, read = known(run.received), known(run.read)
        rows.append((n, asked / w.head_bytes, got / asked, read / w.head_bytes))
    return Table(
        {"N": "", "the loop asks for (X)": ",.0f", "received / asked": ".4f"}
        | {"read from memory (X)": ".2f"},
        rows,
    )


def table_of_programs() -> Table:
    """Peak, bytes and time of the programs of which the page speaks; tiles are small ones."""
    shown = {name: found(name, HALF) for name in ("standard", "triton", "flash", "cudnn")}
    shown["tiled"] = RECORD.find("tiled", HALF, block=TILE)
    return Table(FORWARD, [_forward(NAMES[name], shown[name]) for name in NAMES if name in shown])


FORWARD = {"program": "", "peak (X)": ".2f", "memory (X)": ",.1f", "received (X)": ",.0f"}
FORWARD |= {"forward (ms)": ",.4g"}


def _forward(title: str, run: Found) -> tuple[str | float | None, ...]:
    x = HALF.head_bytes
    moved = None if run.read is None else (run.read + known(run.written)) / x
    received = run.received and run.received / x
    return title, known(run.peak_bytes) / x, moved, received, 1e3 * known(run.seconds)


def table_of_passes() -> Table:
    """The same of each program that was recorded, its share of the roof, and time with backward."""
    rows = []
    for name, title in NAMES.items():
        train = found(name, HALF, training=True)
        more = share(name, HALF), 1e3 * known(train.seconds)
        rows.append((*_forward(title, found(name, HALF)), *more))
    return Table(FORWARD | {"share of roof": ".0%", "with backward (ms)": ".2f"}, rows)


def peak_lines() -> tuple[dict[str, dict[int, float]], dict[str, dict[int, float]]]:
    """Peaks of standard attention and of our kernel over N: by formula, and recorded."""
    across = {n: replace(W, seq_len=n) for n in SHOWN}
    lines: dict[str, dict[int, float]] = {
        "standard": {n: peak_bytes(w) for n, w in across.items()},
        "our kernel": {n: kernel_peak(w) for n, w in across.items()},
    }
    dots: dict[str, dict[int, float]] = {
        NAMES[name]: {
            n: known(found(name, w).peak_bytes) for n, w in across.items() if n in LENGTHS
        }
        for name in ("standard", "triton")
    }
    return lines, dots


def kernel_peak(w: Workload) -> int:
    """4X + L: Q, K, V, O and a number a row."""
    return 4 * w.head_bytes + 4 * w.batch * w.heads * w.seq_len


def times() -> dict[str, dict[int, float]]:
    """The forward seconds of programs over N."""
    return {
        NAMES[name]: {
            n: known(found(name, replace(W, seq_len=n)).seconds) for n in SHOWN if n in LENGTHS
        }
        for name in ("standard", "triton", "flash", "cudnn")
    }


def standard_over_ours() -> list[float]:
    """How many times as long standard attention takes, where our kernel's launches don't show."""
    found = times()
    ours = found["our kernel"].items()
    return [found["standard"][n] / seconds for n, seconds in ours if n >= 4096]


def tried() -> tuple[dict[int, float], dict[int, float]]:
    """Received bytes over the queries of a block: as much as its loop asks for, and more."""
    as_asked: dict[int, float] = {}
    more: dict[int, float] = {}
    for cell in TRIED:
        queries = known(known(cell.block)[0])
        size = known(RECORD.passes[cell].received)
        good = size < 1.01 * costs.received(W, queries)
        (as_asked if good else more)[queries] = size
    return dict(sorted(as_asked.items())), more


def case_seconds(name: str) -> float:
    """Seconds of one layer of the case, if a program is as fast as in the record, causal."""
    return products(LLAMA.workload(), 2, causal=True) / case_rate(name)


def case_rate(name: str) -> float:
    """The FLOP/s of a recorded program at the case's head dimension, causal."""
    like = replace(W, seq_len=32768, head_dim=LLAMA.head_dim)
    return products(like, 2, causal=True) / known(found(name, like, causal=True).seconds)
