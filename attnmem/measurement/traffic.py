"""Bytes that a GPU's memory delivered and took, step by step: its hardware counters.

NVIDIA Nsight Compute reads them (the program ``ncu``). It starts this module as a program of its
own, which runs the steps once, each behind a kernel that does nothing and marks where it begins.
"""

import csv
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

import attnmem.programs
from attnmem.measurement.timing import Each
from attnmem.programs import Program, run
from attnmem.workload import Workload, dtype_name

READ, WRITTEN = "dram__bytes_read.sum", "dram__bytes_write.sum"
RECEIVED = "l1tex__m_xbar2l1tex_read_bytes.sum"
MARK = "spin_kernel"  # what torch.cuda._sleep launches

# Clocks and caches are left alone: a step finds in the L2 cache what the one before left there.
NCU = ["--clock-control", "none", "--cache-control", "none", "--profile-from-start", "off"]
CSV = ["--csv", "--print-units", "base", "--print-kernel-base", "function"]

# More counters than the hardware has at once would run each kernel again, with other caches.
PASSES = ((READ, WRITTEN), (RECEIVED,))


@dataclass
class Traffic:
    """Bytes that a step read from the device's memory and wrote to it, and its kernels' names.

    ``received``: bytes that the multiprocessors got through the L2 cache.
    """

    read: int = 0
    written: int = 0
    received: int = 0
    kernels: list[str] = field(default_factory=list)


def count_traffic(cells: Iterable[tuple[Program, Workload, bool]]) -> list[list[Traffic]]:
    """The traffic of each step of each cell (program, workload, training), on the current GPU.

    The steps are those of a trace, without those that make Q, K and V. When the first of them
    begins, nothing of the run is in the L2 cache, and all there is clean. ``program``
    is one of :mod:`attnmem.programs`. Raises ``RuntimeError`` where ``ncu`` is not installed, or
    may not read the counters, or answers in another form than expected.
    """
    cells = list(cells)
    memory, cache = (_run_under_ncu(cells, metrics) for metrics in PASSES)
    for seen, other in zip(itertools.chain(*memory), itertools.chain(*cache), strict=True):
        seen.received = other.received
    return memory


def _run_under_ncu(
    cells: list[tuple[Program, Workload, bool]], metrics: Sequence[str]
) -> list[list[Traffic]]:
    ncu = shutil.which("ncu")
    if not ncu:
        raise RuntimeError("ncu, NVIDIA Nsight Compute, must be on the PATH to count traffic")
    request = [
        (program.__name__, asdict(w) | {"dtype": dtype_name(w.dtype)}, training)
        for program, w, training in cells
    ]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "kernels.csv")
        log_to = ["--log-file", str(log)]
        metrics_of = ["--metrics", ",".join(metrics)]
        command = [ncu, *NCU, *CSV, *metrics_of, *log_to, sys.executable, "-m", __name__]
        done = subprocess.run(command, input=json.dumps(request), text=True, capture_output=True)
        text = log.read_text() if log.exists() else ""
    if done.returncode:
        raise RuntimeError(f"ncu could not count traffic: {done.stderr[-500:]}{text[-500:]}")
    try:
        steps = _by_mark(text)
    except (KeyError, ValueError) as error:
        raise RuntimeError(f"ncu printed no table that we know: {text[-500:]}") from error
    counts = json.loads(done.stdout.splitlines()[-1])
    if sum(counts) != len(steps):
        raise RuntimeError(f"ncu saw {len(steps)} steps where {sum(counts)} were run")
    return [[steps.pop(0) for _ in range(count)] for count in counts]


def _by_mark(text: str) -> list[Traffic]:
    """From ncu's table, a row a kernel and metric, the traffic between two marks."""
    lines = text[text.index('"ID"') :].splitlines()
    steps: list[Traffic] = []
    for _, rows in itertools.groupby(csv.DictReader(lines), key=lambda row: row["ID"]):
        metrics = {row["Metric Name"]: row for row in rows}
        values = {name: int(row["Metric Value"].replace(",", "")) for name, row in metrics.items()}
        kernel = next(iter(metrics.values()))["Kernel Name"]
        if MARK in kernel:
            steps.append(Traffic())
        elif steps:
            step = steps[-1]
            step.read += values.get(READ, 0)
            step.written += values.get(WRITTEN, 0)
            step.received += values.get(RECEIVED, 0)
            step.kernels.append(kernel)
    return steps


def _run(program: Program, w: Workload, training: bool) -> int:
    """Run the steps of a cell under the profiler, a mark before each; how many there were."""
    count = 0
    cache = torch.cuda.get_device_properties().L2_cache_size
    others = torch.zeros(4 * cache, dtype=torch.uint8, device="cuda")

    def marked(op: Any, call: Callable[[], Any]) -> Any:
        nonlocal count
        count += 1
        torch.cuda._sleep(0)  # type: ignore[no-untyped-call]
        return call()

    device = torch.device("cuda")
    for _ in run(program, w, training=training, device=device):
        pass  # a warm-up
    stages = run(program, w, training=training, device=device)
    next(stages)  # Q, K, V
    others.max()  # reading pushes out of the L2 cache what was there
    torch.cuda.synchronize()
    torch.cuda.profiler.start()  # type: ignore[no-untyped-call]
    with Each(marked):
        for _ in stages:
            pass
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()  # type: ignore[no-untyped-call]
    return count


def main() -> None:
    """Run the cells that :func:`count_traffic` writes to our standard input."""
    counts = []
    for name, w, training in json.load(sys.stdin):
        counts.append(_run(getattr(attnmem.programs, name), Workload(**w), training))
        torch.cuda.empty_cache()
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
