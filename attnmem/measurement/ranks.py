"""A record of attention that is split over the GPUs of one machine: memory, time, what is sent."""

import functools
import gc
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.testing._internal.distributed.fake_pg  # registers the backend "fake"

from attnmem.measurement.device import Provenance, provenance
from attnmem.measurement.digest import digest
from attnmem.measurement.launch import RankError, on_ranks
from attnmem.measurement.memory import Measurement, measure
from attnmem.measurement.records import DATA, JSON, PACKAGE, read, write
from attnmem.ranks import all_to_all_attention, gather_attention, ring_attention
from attnmem.ranks.transport import Group, Ring
from attnmem.workload import Workload

RANKS_RECORD = DATA / "ranks" / "nvidia-h200.json.gz"

#: What decides a recorded number, beside what is measured with.
MEASURING_CODE = (
    "ranks/blocks.py",
    "ranks/splits.py",
    "ranks/transport.py",
    "tiles/statistics.py",
    "measurement/memory.py",
    "measurement/ranks.py",
)

SPLITS = {
    "ring": ring_attention,
    "gather": gather_attention,
    "all-to-all": all_to_all_attention,
}


@dataclass(frozen=True)
class Cell:
    """One split of one workload, whose ``seq_len`` is what a rank holds."""

    split: str
    flash: bool
    workload: Workload
    training: bool = False
    causal: bool = False
    balanced: bool = False

    @property
    def program(self) -> Callable[..., torch.Tensor]:
        """The program of a rank."""
        options: dict[str, Any] = {"flash": self.flash, "causal": self.causal}
        if self.split != "all-to-all":
            options["balanced"] = self.balanced
        return functools.partial(SPLITS[self.split], **options)


@dataclass(frozen=True, kw_only=True)
class OnRank:
    """What one rank saw of one cell.

    ``seconds``: the median of its runs; ``computing``: the same where nothing is sent;
    ``outside_bytes``: what the device gave to others than PyTorch's allocator: contexts, NCCL.
    """

    memory: Measurement
    seconds: float
    computing: float
    outside_bytes: int


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A cell, and what each rank saw of it, in their order."""

    cell: Cell
    ranks: tuple[OnRank, ...]


@dataclass(frozen=True, kw_only=True)
class RanksRecord:
    """Split attention on the GPUs of one machine.

    ``link``: bytes of a block that each of two ranks sends the other -> seconds, the median.
    """

    digest: str
    provenance: Provenance
    ranks: int
    cells: tuple[Recorded, ...]
    link: dict[int, float]
    failures: tuple[str, ...]

    @property
    def stale(self) -> bool:
        """Whether the record was made by other code than the code that reads it."""
        return self.digest != code_digest()


def code_digest() -> str:
    """Of all files that a number of this record depends on."""
    return digest(PACKAGE / name for name in MEASURING_CODE)


def grid(ranks: int) -> list[Cell]:
    """The cells of a record: N from 4096 tokens to what one card can't hold, on so many ranks."""

    def workload(total: int, heads: int, head_dim: int, dtype: torch.dtype) -> Workload:
        n = total // ranks
        return Workload(batch=1, heads=heads, seq_len=n, head_dim=head_dim, dtype=dtype)

    short = [
        workload(total, 8, 64, dtype)
        for total, dtype in ((4096, torch.float16), (16384, torch.float16), (16384, torch.bfloat16))
    ]
    long = workload(131072, 32, 128, torch.bfloat16)
    # S of all heads has 103 GB here, and standard attention holds two: more than one card.
    wide = workload(65536, 12, 64, torch.float16)
    kinds = [*itertools.product(short, (False, True)), (long, True)]
    return [
        *(
            Cell(split, flash, w, training, causal, balanced)
            for (w, flash), split, training in itertools.product(kinds, SPLITS, (False, True))
            for causal, balanced in ((False, False), (True, False), (True, True))
            if not (balanced and split == "all-to-all")
        ),
        *(Cell(split, False, wide) for split in ("ring", "gather")),
    ]


def record(
    path: Path, cells: Sequence[Cell], ranks: int, backend: str = "nccl", timeout_s: float = 120
) -> Sequence[str]:
    """Measure the cells on so many ranks, write the record, and return what failed.

    What was found before a rank failed is written.
    """
    found: dict[int, dict[int, OnRank]] = {}
    link: dict[int, float] = {}
    failures: list[str] = []
    work = functools.partial(_work, tuple(cells), "cuda" if backend == "nccl" else "cpu")
    try:
        for rank, (place, thing) in on_ranks(work, ranks, backend=backend, timeout_s=timeout_s):
            if isinstance(thing, OnRank):
                found.setdefault(place, {})[rank] = thing
            elif rank == 0:
                link[place] = thing
    except RankError as error:
        failures.append(str(error))
    whole = {place: seen for place, seen in found.items() if len(seen) == ranks}
    made = RanksRecord(
        digest=code_digest(),
        provenance=provenance("cuda" if backend == "nccl" else "cpu"),
        ranks=ranks,
        cells=tuple(
            Recorded(cell=cells[place], ranks=tuple(seen[rank] for rank in range(ranks)))
            for place, seen in sorted(whole.items())
        ),
        link=link,
        failures=tuple(failures),
    )
    write(made, path)
    return failures


def load_ranks(path: Path = RANKS_RECORD) -> RanksRecord:
    """Read a record that :func:`record` wrote. Raises ``OSError`` if it is not there."""
    content = read(path)
    for cell in content["cells"]:
        for seen in cell["ranks"]:
            seen["memory"]["provenance"] = content["provenance"]
    return JSON.structure(content, RanksRecord)


def _work(cells: Iterable[Cell], device: str, tell: Callable[[Any], None]) -> None:
    """What a rank does: the link first, then each cell."""
    where = torch.device(device, torch.cuda.current_device()) if device == "cuda" else device
    where = torch.device(where)
    gc.freeze()  # each run collects garbage several times: it need not look at all of this
    quiet = dist.new_group(backend="cpu:fake,cuda:fake")
    for power in range(20, 31, 2) if device == "cuda" else (12,):
        block = torch.empty(2**power, dtype=torch.uint8, device=where)
        tell((block.nbytes, _seconds(functools.partial(_pass_on, block), where)))
        del block
    for place, cell in enumerate(cells):
        memory = measure(cell.program, cell.workload, cell.training, where)
        tell(
            (
                place,
                OnRank(
                    memory=replace(memory, program=cell.split),
                    seconds=_seconds(_call(cell, None, where), where),
                    computing=_seconds(_call(cell, quiet, where), where),
                    outside_bytes=_outside(where),
                ),
            )
        )


def _pass_on(block: torch.Tensor) -> None:
    for _ in Ring(None).blocks(block):
        pass


def _call(cell: Cell, group: Group, where: torch.device) -> Callable[[], object]:
    """Forward, and backward if the cell trains, on tensors that are there."""
    q, k, v = (
        torch.randn(shape, dtype=cell.workload.dtype, device=where, requires_grad=cell.training)
        for shape in cell.workload.shapes
    )
    do = torch.randn_like(q)

    def call() -> None:
        with torch.set_grad_enabled(cell.training):
            o = cell.program(q, k, v, group=group)
        if cell.training:
            torch.autograd.grad(o, (q, k, v), do)

    return call


def _seconds(act: Callable[[], object], where: torch.device, runs: int = 7) -> float:
    """The median time of ``act``, on all ranks at once, after two that warm up."""
    times = []
    for _ in range(runs + 2):
        dist.barrier(device_ids=[where.index] if where.type == "cuda" else None)
        _wait(where)
        start = time.perf_counter()
        act()
        _wait(where)
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def _wait(where: torch.device) -> None:
    if where.type == "cuda":
        torch.cuda.synchronize(where)


def _outside(where: torch.device) -> int:
    if where.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(where)
    return total - free - torch.cuda.memory_reserved(where)
