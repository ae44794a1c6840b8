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
import torch.nn.functional as F
import torch.testing._internal.distributed.fake_pg  # registers the backend "fake"
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnmem.measurement.device import Provenance, provenance
from attnmem.measurement.digest import digest
from attnmem.measurement.launch import RankError, on_ranks
from attnmem.measurement.memory import Measurement, measure
from attnmem.measurement.records import DATA, JSON, PACKAGE, read, write
from attnmem.programs import standard_attention
from attnmem.ranks import all_to_all_attention, gather_attention, ring_attention
from attnmem.ranks.context import context_parallel_attention
from attnmem.ranks.transport import Group, Ring
from attnmem.workload import Workload

RANKS_RECORD = DATA / "ranks" / "nvidia-h200.json.gz"

#: What decides a recorded number, beside what is measured with.
MEASURING_CODE = (
    "programs.py",
    "ranks/blocks.py",
    "ranks/context.py",
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
#: PyTorch's own, which are flash, causal and balanced. They choose their group themselves.
PYTORCH = {
    "context_parallel allgather": functools.partial(context_parallel_attention),
    "context_parallel alltoall": functools.partial(context_parallel_attention, rotate="alltoall"),
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
        if self.split in PYTORCH:
            return PYTORCH[self.split]
        options: dict[str, Any] = {"flash": self.flash, "causal": self.causal}
        if self.split != "all-to-all":
            options["balanced"] = self.balanced
        return functools.partial(SPLITS[self.split], **options)

    @property
    def alone(self) -> Callable[..., torch.Tensor]:
        """The same attention in one process, of all tokens."""
        if self.flash:
            return functools.partial(_flash, is_causal=self.causal)
        return lambda q, k, v: standard_attention(q, k, v, causal=self.causal)[0]


@dataclass(frozen=True, kw_only=True)
class OnRank:
    """What one rank saw of one cell.

    ``seconds``: the median of its runs; ``computing``: the same where nothing is sent, ``None``
    of PyTorch's splits; ``alone``: of all tokens on this device, ``None`` if they do not fit.
    """

    memory: Measurement
    seconds: float
    computing: float | None
    alone: float | None


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A cell, and what each rank saw of it, in their order."""

    cell: Cell
    ranks: tuple[OnRank, ...]


@dataclass(frozen=True, kw_only=True)
class RanksRecord:
    """Split attention on the GPUs of one machine.

    ``link``: bytes of a block that each rank sends the next one -> seconds, the median.
    ``outside_bytes``: what the device of rank 0 gave to others than PyTorch's allocator (its
    context, NCCL), moment -> bytes.
    """

    digest: str
    provenance: Provenance
    ranks: int
    cells: tuple[Recorded, ...]
    link: dict[int, float]
    outside_bytes: dict[str, int]
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
        *(
            Cell(split, True, w, training, causal=True, balanced=True)
            for split, w, training in itertools.product(PYTORCH, (*short, long), (False, True))
        ),
    ]


def record(
    path: Path, cells: Sequence[Cell], ranks: int, backend: str = "nccl", timeout_s: float = 120
) -> Sequence[str]:
    """Measure the cells on so many ranks, write the record, and return what failed.

    What was found before a rank failed is written.
    """
    seen: dict[Cell, dict[int, OnRank]] = {cell: {} for cell in cells}
    link: dict[int, float] = {}
    outside: dict[str, int] = {}
    failures: list[str] = []
    work = functools.partial(_work, tuple(cells), "cuda" if backend == "nccl" else "cpu")
    try:
        for rank, (key, found) in on_ranks(work, ranks, backend=backend, timeout_s=timeout_s):
            if isinstance(key, Cell):
                seen[key][rank] = found
            elif rank == 0:
                (link if isinstance(key, int) else outside)[key] = found
    except RankError as error:
        failures.append(str(error))
    made = RanksRecord(
        digest=code_digest(),
        provenance=provenance("cuda" if backend == "nccl" else "cpu"),
        ranks=ranks,
        cells=tuple(
            Recorded(cell=cell, ranks=tuple(of_ranks[rank] for rank in range(ranks)))
            for cell, of_ranks in seen.items()
            if len(of_ranks) == ranks
        ),
        link=link,
        outside_bytes=outside,
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
    on_gpu = device == "cuda"
    where = torch.device(device, torch.cuda.current_device()) if on_gpu else torch.device(device)
    gc.freeze()  # each run collects garbage several times: it need not look at all of this
    quiet = dist.new_group(backend="cpu:fake,cuda:fake")
    for power in range(20, 31, 2) if on_gpu else (12,):
        block = torch.empty(2**power, dtype=torch.uint8, device=where)
        tell((block.nbytes, _seconds(functools.partial(_pass_on, block, None), where)))
    tell(("one group", _outside(where)))
    another = dist.new_group()
    _pass_on(block, another)
    tell(("another group", _outside(where)))
    del block
    for cell in cells:
        memory = measure(cell.program, cell.workload, cell.training, where)
        sending, computing = _call(cell, where), None
        if cell.split in SPLITS:
            computing = _seconds(functools.partial(sending, group=quiet), where)
        on_rank = OnRank(
            memory=replace(memory, program=cell.split),
            seconds=_seconds(sending, where),
            computing=computing,
            alone=_alone(replace(cell, split="", balanced=False), where),
        )
        tell((cell, on_rank))
    tell(("all cells", _outside(where)))


def _pass_on(block: torch.Tensor, group: Group) -> None:
    for _ in Ring(group).blocks(block):
        pass


@functools.cache  # of all splits
def _alone(cell: Cell, where: torch.device) -> float | None:
    """The time of all tokens on one device, or ``None`` where they do not fit there."""
    ranks = dist.get_world_size()
    whole = replace(cell.workload, seq_len=ranks * cell.workload.seq_len)
    call = _call(replace(cell, workload=whole), where, cell.alone)
    try:
        call()
    except (torch.OutOfMemoryError, MemoryError):
        return None
    finally:
        gc.collect()
    return _seconds(call, where)


def _call(cell: Cell, where: torch.device, program: Any = None) -> Callable[..., object]:
    """Forward, and backward if the cell trains, on tensors that are there."""
    q, k, v = (
        torch.randn(shape, dtype=cell.workload.dtype, device=where, requires_grad=cell.training)
        for shape in cell.workload.shapes
    )
    do = torch.randn_like(q)

    def call(**options: Any) -> None:
        with torch.set_grad_enabled(cell.training):
            o = (program or cell.program)(q, k, v, **options)
        if cell.training:
            torch.autograd.grad(o, (q, k, v), do)

    return call


def _flash(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, is_causal: bool) -> torch.Tensor:
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)


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
