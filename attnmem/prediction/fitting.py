"""Where a run dies on a card that is too small: the first allocation that does not fit."""

from dataclasses import dataclass

from attnmem.prediction.allocator import CachingAllocator, _Block, printed_size, segment_size
from attnmem.prediction.modules import OUTSIDE
from attnmem.prediction.trace import Trace
from attnmem.timeline import Event


@dataclass(frozen=True)
class DoesNotFit:
    """The allocation that fails, and what is taken then. All in bytes.

    ``place`` is that of ``event`` in the trace's timeline, ``module`` the innermost that made it.
    ``tried`` is what is asked of the driver, ``allocated`` and ``reserved`` are what an error
    message would print, with what was there before the run. Where not even that fits, ``place`` is
    ``None``.
    """

    place: int | None
    event: Event
    module: str
    tried: int
    allocated: int
    reserved: int

    def __str__(self) -> str:
        by = "" if self.module == OUTSIDE else f", {self.module}"
        where = "before the run" if self.place is None else f"event {self.place}{by}"
        unused = printed_size(self.reserved - self.allocated)
        return (
            f"{self.event.label} ({where}): tried to allocate {printed_size(self.tried)}\n"
            f"{printed_size(self.allocated)} allocated, {unused} reserved but unallocated"
        )


class _FullError(Exception):
    """The driver has no such segment."""


class _Card(CachingAllocator):
    """The allocator on a card of so many bytes.

    Before it gives up, it gives segments back that are wholly free: release_cached_blocks in
    PyTorch's c10/cuda/CUDACachingAllocator.cpp.
    """

    def __init__(self, memory_bytes: int) -> None:
        super().__init__()
        self.memory_bytes = memory_bytes

    def _segment(self, size: int, small: bool) -> _Block:
        if self.reserved + segment_size(size) > self.memory_bytes:
            for rank, block in list(self._firsts.items()):
                if block.free and not block.after:
                    self._free[block.small].remove((block.size, block.address, block))
                    self.reserved -= block.size
                    del self._firsts[rank]
        if self.reserved + segment_size(size) > self.memory_bytes:
            raise _FullError
        return super()._segment(size, small)


def first_that_does_not_fit(t: Trace, memory_bytes: int) -> DoesNotFit | None:
    """The first allocation of a run that a card with ``memory_bytes`` has no room for, or ``None``.

    Replays PyTorch's CUDA allocator. ``memory_bytes`` are those that PyTorch can get: a card's,
    without what the driver and cuBLAS (:meth:`~attnmem.prediction.trace.Trace.workspace_bytes`)
    keep. What was there before the run, parameters, is placed first.

    Raises ``ValueError`` for ``memory_bytes`` below 0, and for the trace of a run on a CPU, where
    the system decides.

    >>> from attnmem import Workload, standard_attention, trace
    >>> w = Workload(batch=1, heads=12, seq_len=8192, head_dim=64, dtype="float16")
    >>> t = trace(standard_attention, w)
    >>> found = first_that_does_not_fit(t, 3 * 2**30)
    >>> found.event.label, found.place, found.tried
    ('S', 4, 1610612736)
    >>> first_that_does_not_fit(t, 4 * 2**30)
    """
    if memory_bytes < 0:
        raise ValueError(f"memory_bytes must be at least 0, got {memory_bytes}")
    if t.device != "cuda":
        raise ValueError(f"t must be the trace of a run on cuda, got one on {t.device}")
    card = _Card(memory_bytes)
    blocks: dict[int, _Block] = {}
    before = [(block, Event("what was there", size, 0)) for block, size in t._existing.items()]
    events = [*before, *zip(t._blocks, t.timeline, strict=True)]
    modules = ["before the run"] * len(before) + list(t._modules)
    for place, ((block, event), module) in enumerate(zip(events, modules, strict=True)):
        if event.bytes < 0:
            card.free(blocks.pop(block))
            continue
        try:
            blocks[block] = card.allocate(event.bytes)
        except _FullError:
            own = place - len(before)
            tried = segment_size(event.bytes)
            where = own if own >= 0 else None
            return DoesNotFit(where, event, module, tried, card.allocated, card.reserved)
    return None
