"""One rank out of many, predicted alone: a process group that sends nothing."""

import contextlib
import sys
from collections.abc import Iterator

import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore


@contextlib.contextmanager
def as_rank(rank: int, ranks: int) -> Iterator[None]:
    """Inside, this process is ``rank`` of so many, with a default group that sends nothing.

    What arrives is not what others would have sent; shapes, memory and order are. It is PyTorch's
    own fake process group, and NCCL keeps its buffers outside of PyTorch's allocator: they are in
    no prediction.

    Raises ``ValueError`` for a rank that is not one of ``ranks``, and where there is a group.

    >>> from attnmem import Workload, trace
    >>> from attnmem.ranks import ring_attention
    >>> w = Workload(batch=1, heads=8, seq_len=1024, head_dim=64, dtype="float16")
    >>> with as_rank(0, 64):
    ...     trace(ring_attention, w).peak_bytes // w.score_bytes
    3
    """
    if not 0 <= rank < ranks:
        raise ValueError(f"rank must be one of 0 … {ranks - 1}, got {rank}")
    if dist.is_initialized():
        raise ValueError("torch.distributed has a process group: predict in a process without one")
    hook = sys.excepthook  # the group puts a rank's name before what it prints, and leaves it there
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=ranks)
    try:
        yield
    finally:
        dist.destroy_process_group()
        sys.excepthook = hook
