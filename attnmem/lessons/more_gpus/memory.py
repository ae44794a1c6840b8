"""What each way to split holds and sends: closed forms, traces of one rank, and the record."""

import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any

from attnmem import figures
from attnmem.catalog import model
from attnmem.lessons.table import Table
from attnmem.measurement.memory import Measurement
from attnmem.measurement.ranks import SPLITS, Cell, Recorded, load_ranks
from attnmem.prediction.kernels.fused import CUDNN_PLAN
from attnmem.prediction.ranks import as_rank
from attnmem.prediction.trace import Trace, trace
from attnmem.workload import Workload

RECORD = load_ranks()
OURS = [made for made in RECORD.cells if made.cell.split in SPLITS]
LLAMA = model("Llama 3 8B")
RANKS = (1, 2, 4, 8, 16, 32, 64)
MILLION = 2**20
STATE = 16  # bytes of a random generator's state, of dropout that is not there
LONG = 65536  # tokens of a rank in the longest cells of the record


def find(split: str, n: int = LONG, *, flash: bool = True, **options: bool) -> Recorded:
    """The first recorded cell with so many tokens a rank; ``options`` are fields of a cell."""
    wanted = {"training": False, "causal": False, "balanced": False} | options
    for made in RECORD.cells:
        cell = made.cell
        if (cell.split, cell.flash, cell.workload.seq_len) == (split, flash, n) and all(
            getattr(cell, name) == value for name, value in wanted.items()
        ):
            return made
    raise LookupError(f"no recorded cell {split}, {n}, flash={flash}, {wanted}")


WIDE = find("ring", 32768, flash=False)  # S of all its tokens is larger than a card


def row_bytes(w: Workload) -> int:
    """L: the bytes of a 32-bit number for each of this rank's rows."""
    return 4 * w.batch * w.heads * w.seq_len


def flash_peak(split: str, ranks: int, *, training: bool = False) -> tuple[int, int]:
    """How many x and how many L a rank holds at its peak, with flash blocks and no mask."""
    inside = ranks > 2  # a step in which one block leaves and one arrives while rows are merged
    if split == "ring":
        return (24 + 2 * inside, 2) if training else (13 + 2 * inside, 8)
    if split == "gather":
        return (18 + 4 * ranks, 2) if training else (11 + 2 * ranks, 8)
    return (15, 2) if training else (7, 0)


def by_formula(cell: Cell, ranks: int) -> int:
    """The peak of a rank without a mask, in bytes, by hand; of standard blocks, forward only."""
    w = cell.workload
    if not cell.flash:  # a block's S in the inputs' type and in 32 bit, and blocks of K and V
        own = 5 + 2 * (ranks if cell.split == "gather" else min(ranks - 1, 2))
        return 3 * w.score_bytes + own * w.head_bytes + 2 * row_bytes(w)
    x, columns = flash_peak(cell.split, ranks, training=cell.training)
    fused = cell.split == "all-to-all"  # PyTorch's own call, which is cuDNN here
    state = STATE if fused or cell.training else 0
    return x * w.head_bytes + columns * row_bytes(w) + state + fused * CUDNN_PLAN


@cache
def traced(cell: Cell, rank: int, ranks: int) -> Trace:
    """One rank of so many, on CUDA."""
    with as_rank(rank, ranks), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cuDNN's choice depends on its version
        return trace(cell.program, cell.workload, cell.training, "cuda")


def as_recorded(t: Trace, found: Measurement) -> bool:
    """Whether a rank's allocations and releases are the trace's; a test replays its peaks.

    After the last allocation the interpreter chooses the order of releases.
    """
    sizes = [event.bytes for event in t.timeline]
    measured = [event.bytes for event in found.timeline]
    count = max(i for i, size in enumerate(sizes) if size > 0) + 1
    return sizes[:count] == measured[:count] and sorted(sizes) == sorted(measured)


def table_of_memory() -> Table:
    """The peak of each split on two ranks: its formula, and GB, as traces and allocators say."""
    named = {
        f"{split}, {run}": find(split, training=training)
        for run, training in (("forward", False), ("training", True))
        for split in SPLITS
    } | {f"{split}, standard": find(split, 32768, flash=False) for split in ("ring", "gather")}
    rows = []
    for name, made in named.items():
        rows.append((name, in_letters(made.cell, 2), by_formula(made.cell, 2) / 1e9))
    return Table({"split": "", "formula": "", "GB": ".3f"}, rows)


def in_letters(cell: Cell, ranks: int) -> str:
    """The formula as it is read: 13x + 8L."""
    if not cell.flash:
        own = (by_formula(cell, ranks) - 3 * cell.workload.score_bytes) // cell.workload.head_bytes
        return f"3S/{ranks**2} + {own}x + 2L"
    x, columns = flash_peak(cell.split, ranks, training=cell.training)
    return f"{x}x + {columns}L" if columns else f"{x}x"


def part(seq_len: int, ranks: int) -> int:
    """x: the bytes of a rank's part of Q, of one layer of Llama 3 8B."""
    return LLAMA.workload(seq_len).head_bytes // ranks


def sent(split: str, seq_len: int, ranks: int) -> float | None:
    """The bytes that a rank of Llama 3 8B sends in a forward pass of one layer, or ``None``.

    For more ranks than heads of keys, all-to-all repeats these.
    """
    x, groups = part(seq_len, ranks), LLAMA.heads // LLAMA.kv_heads
    if split != "all-to-all":
        return 2 * (ranks - 1) * x / groups
    if ranks > LLAMA.heads:
        return None
    return (2 + 2 * max(1 / groups, ranks / LLAMA.heads)) * x * (ranks - 1) / ranks


def table_of_ranks() -> Table:
    """One layer of Llama 3 8B at a million tokens: what ranks hold and send, in MB."""
    rows = []
    for ranks in RANKS:
        moved = [sent(way, MILLION, ranks) for way in ("ring", "all-to-all")]
        sizes = (part(MILLION, ranks), *moved)
        rows.append((ranks, *(None if size is None else size / 1e6 for size in sizes)))
    names = ("x", "ring sends", "all-to-all sends")
    return Table({"R": ""} | dict.fromkeys(names, ",.0f"), rows)


def peaks_figure() -> Any:
    """Peaks of a rank at the same local length, over the ranks: lines by trace, recorded dots."""
    ranks = (2, 4, 8, 16)
    lines: dict[str, Mapping[int, float]] = {}
    dots: dict[str, Mapping[int, float]] = {}
    for split in SPLITS:
        made = find(split)
        w = made.cell.workload
        lines[split] = {r: traced(made.cell, 0, r).peak_bytes / w.head_bytes for r in ranks}
        dots[split] = {2: made.ranks[0].memory.peak_allocated_bytes / w.head_bytes}
    return figures.rank_peaks(lines, dots)


def waiting() -> list[float]:
    """By how many x the requested peak of a rank of a ring is above that of its tensors."""
    return [
        (on.memory.peak_bytes - on.memory.peak_allocated_bytes) / made.cell.workload.head_bytes
        for made in OURS
        for on in made.ranks
        if made.cell.split == "ring"
    ]
