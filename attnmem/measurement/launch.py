"""Processes of one machine, a rank each: started, heard, and none of them left behind."""

import datetime
import os
import queue
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

# What a rank does: told to whom to hand on what it finds, one thing at a time.
Work = Callable[[Callable[[Any], None]], None]


class RankError(RuntimeError):
    """A rank has raised, died, or not answered in time; all others were ended."""


def on_ranks(
    work: Work, ranks: int, *, backend: str = "gloo", timeout_s: float = 60
) -> Iterator[tuple[int, Any]]:
    """Run ``work`` in so many processes of one group, and yield what they hand on: (rank, found).

    ``work`` can be pickled. ``backend`` is ``"gloo"``, or ``"nccl"``: then rank r has the GPU r.
    Raises :class:`RankError` when a rank raises, with its traceback, when one dies, and when none
    says anything for ``timeout_s`` seconds. What was yielded before stays with the caller, and no
    process is left behind, also where the caller stops listening.
    """
    if ranks < 1:
        raise ValueError(f"ranks must be at least 1, got {ranks}")
    context = mp.get_context("spawn")
    heard: Any = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        meet = Path(folder, "store").as_uri()
        processes = [
            context.Process(
                target=_rank, args=(work, rank, ranks, backend, meet, timeout_s, heard), daemon=True
            )
            for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        try:
            yield from _listen(processes, heard, timeout_s)
        finally:
            for process in processes:
                process.kill()
                process.join()


def _listen(processes: list[Any], heard: Any, timeout_s: float) -> Iterator[tuple[int, Any]]:
    """What ranks say, until each has said that it is done."""
    waiting, quiet_since = set(range(len(processes))), time.monotonic()
    while waiting:
        try:
            kind, rank, found = heard.get(timeout=0.2)
        except queue.Empty:
            dead = [rank for rank in waiting if not processes[rank].is_alive()]
            if dead:
                code = processes[dead[0]].exitcode
                raise RankError(f"rank {dead[0]} has died, with exit code {code}") from None
            if time.monotonic() - quiet_since > timeout_s:
                late = ", ".join(map(str, sorted(waiting)))
                raise RankError(f"no rank answered in {timeout_s} s; waiting for {late}") from None
            continue
        quiet_since = time.monotonic()
        if kind == "failed":
            raise RankError(f"rank {rank} failed:\n{found}")
        if kind == "done":
            waiting.remove(rank)
        else:
            yield rank, found


def _rank(
    work: Work, rank: int, ranks: int, backend: str, meet: str, timeout_s: float, heard: Any
) -> None:
    """What one process does."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks))
    here = torch.device("cuda", rank) if backend == "nccl" else None
    if here:
        torch.cuda.set_device(here)
    try:
        dist.init_process_group(
            backend,
            init_method=meet,
            rank=rank,
            world_size=ranks,
            timeout=datetime.timedelta(seconds=timeout_s),
            device_id=here,
        )
        work(lambda found: heard.put(("found", rank, found)))
        heard.put(("done", rank, None))
        dist.destroy_process_group()
    except BaseException:
        heard.put(("failed", rank, traceback.format_exc()))
