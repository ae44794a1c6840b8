"""Bytes that a GPU's memory delivered and took, step by step: its hardware counters.

NVIDIA Nsight Compute reads them (the program ``ncu``). It starts this module as a program of its
own, which runs the steps once, each behind a kernel that does nothing and marks where it begins.
"""

import csv
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import attnmem.attention
from attnmem.attention import Program, run
from attnmem.speed import Each
from attnmem.workload import Workload

READ, WRITTEN = "dram__bytes_read.sum", "dram__bytes_write.sum"
MARK = "spin_kernel"  # what torch.cuda._sleep launches

# Clocks and caches are left alone: a step finds in the L2 cache what the one before left there.
NCU = ["--clock-control", "none", "--cache-control", "none", "--profile-from-start", "off"]
CSV = ["--csv", "--print-units", "base", "--metrics", f"{READ},{WRITTEN}"]

Traffic = tuple[int, int]  # bytes read from the device's memory, bytes written to it


def count_traffic(cells: Iterable[tuple[Program, Workload, bool]]) -> list[list[Traffic]]:
    """The traffic of each step of each cell (program, workload, training), on the current GPU.

    The steps are those of :func:`attnmem.trace`, without those that make Q, K and V. ``program``
    is one of :mod:`attnmem.attention`. Raises ``RuntimeError`` where ``ncu`` is not installed, or
    may not read the counters.
    """
    cells = list(cells)
    ncu = shutil.which("ncu")
    if not ncu:
        raise RuntimeError("ncu, NVIDIA Nsight Compute, must be on the PATH to count traffic")
    request = [
        (program.__name__, asdict(w) | {"dtype": str(w.dtype).removeprefix("torch.")}, training)
        for program, w, training in cells
    ]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "kernels.csv")
        command = [ncu, *NCU, *CSV, "--log-file", str(log), sys.executable, "-m", __name__]
        done = subprocess.run(command, input=json.dumps(request), text=True, capture_output=True)
        text = log.read_text() if log.exists() else ""
    if done.returncode:
        raise RuntimeError(f"ncu could not count traffic: {done.stderr[-500:]}{text[-500:]}")
    steps = _by_mark(text)
    counts = json.loads(done.stdout.splitlines()[-1])
    if sum(counts) != len(steps):
        raise RuntimeError(f"ncu saw {len(steps)} steps where {sum(counts)} were run")
    return [[steps.pop(0) for _ in range(count)] for count in counts]


def _by_mark(text: str) -> list[Traffic]:
    """From ncu's table, a row a kernel and metric, the traffic between two marks."""
    lines = text[text.index('"ID"') :].splitlines()
    steps: list[dict[str, int]] = []
    marked = set()
    for row in csv.DictReader(lines):
        if MARK in row["Kernel Name"]:
            if row["ID"] not in marked:
                marked.add(row["ID"])
                steps.append({READ: 0, WRITTEN: 0})
        elif steps:
            steps[-1][row["Metric Name"]] += int(row["Metric Value"].replace(",", ""))
    return [(step[READ], step[WRITTEN]) for step in steps]


def _run(program: Program, w: Workload, training: bool) -> int:
    """Run the steps of a cell under the profiler, a mark before each; how many there were."""
    count = 0

    def marked(op: Any, call: Callable[[], Any]) -> Any:
        nonlocal count
        count += 1
        torch.cuda._sleep(0)  # type: ignore[no-untyped-call]
        return call()

    def go(mode: Each) -> None:
        stages = run(program, w, training=training, device=torch.device("cuda"))
        next(stages)  # Q, K, V
        with mode:
            for _ in stages:
                pass

    go(Each(lambda op, call: call()))
    torch.cuda.synchronize()
    torch.cuda.profiler.start()  # type: ignore[no-untyped-call]
    go(Each(marked))
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()  # type: ignore[no-untyped-call]
    return count


def main() -> None:
    """Run the cells that :func:`count_traffic` writes to our standard input."""
    counts = []
    for name, w, training in json.load(sys.stdin):
        counts.append(_run(getattr(attnmem.attention, name), Workload(**w), training))
        torch.cuda.empty_cache()
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
