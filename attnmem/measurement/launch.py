"""Processes of one machine, a rank each: started, heard, and none of them left behind."""

import datetime
import math
import os
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

# What a rank does: told to whom to hand on what it finds, one thing at a time.
Work = Callable[[Callable[[Any], None]], None]


# Where there is a fork server, processes start as its forks, and so with all that it has imported.
PROCESSES: Any = mp.get_context(
    "forkserver" if "forkserver" in mp.get_all_start_methods() else "spawn"
)


class RankError(RuntimeError):
    """A rank has raised, died, or not answered in time; all others were ended."""


def on_ranks(
    work: Work, ranks: int, *, backend: str = "gloo", timeout_s: float = 60
) -> Iterator[tuple[int, Any]]:
    """Run ``work`` in so many processes of one group, and yield what they hand on: (rank, found).

    ``work`` is a function of a module that can be imported: the processes do not run the caller's
    script. ``backend`` is ``"gloo"``, or ``"nccl"``: then rank r has the GPU r. Raises
    :class:`RankError` when a rank raises, with its traceback, when one dies, and when none says
    anything for ``timeout_s`` seconds, beside :data:`START_S` for a first word. What was
    handed on before is yielded first, and no process is left behind, also where the caller stops
    listening.
    """
    if ranks < 1:
        raise ValueError(f"ranks must be at least 1, got {ranks}")
    with tempfile.TemporaryDirectory() as folder:
        meet = Path(folder, "store").as_uri()
        processes, pipes = [], []
        try:
            for rank in range(ranks):
                ours, theirs = PROCESSES.Pipe(duplex=False)
                place = (rank, ranks, backend, meet, timeout_s)
                process = PROCESSES.Process(target=_rank, args=(work, *place, theirs), daemon=True)
                with patch.dict(sys.modules, {"__main__": types.ModuleType("__main__")}):
                    process.start()  # it does not run the caller's script again
                theirs.close()  # so that its end is seen
                processes.append(process)
                pipes.append(ours)
            yield from _listen(processes, pipes, timeout_s)
        finally:
            for process in processes:
                process.kill()
                process.join()


#: Seconds that processes may take to start: each imports PyTorch.
START_S = 120
#: Seconds in which the others may still hand on what they have, when one has failed.
GRACE_S = 1


def _listen(processes: list[Any], pipes: list[Any], timeout_s: float) -> Iterator[tuple[int, Any]]:
    """What ranks say, until each has said that it is done, or one has failed."""
    waiting = dict(zip(pipes, range(len(pipes)), strict=True))
    patience, ended, until = START_S + timeout_s, "", math.inf
    while waiting:
        ready: list[Any] = wait(waiting, min(patience, max(0, until - time.monotonic())))
        if not ready:
            break
        patience = timeout_s
        for pipe in ready:
            rank = waiting[pipe]
            try:
                kind, found = pipe.recv()
            except EOFError:
                processes[rank].join()
                code = processes[rank].exitcode
                kind, found = "failed", f"rank {rank} has died, with exit code {code}"
            if kind == "found":
                yield rank, found
                continue
            del waiting[pipe]
            if kind == "failed" and not ended:
                ended, until = found, time.monotonic() + GRACE_S
    if ended:
        raise RankError(ended)
    if waiting:
        late = ", ".join(map(str, waiting.values()))
        raise RankError(f"no rank answered in {patience:g} s; waiting for {late}")


def _rank(
    work: Work, rank: int, ranks: int, backend: str, meet: str, timeout_s: float, tell: Any
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
            timeout=datetime.timedelta(seconds=START_S + timeout_s),
            device_id=here,
        )
        work(lambda found: tell.send(("found", found)))
        tell.send(("done", None))
        dist.destroy_process_group()
    except BaseException:
        tell.send(("failed", f"rank {rank} failed:\n{traceback.format_exc()}"))
