"""The trace beside PyTorch's MemTracker: recorded cells predicted to the byte, and time per cell.

Both run on one core of this machine, on the cells of the shipped record. MemTracker runs on fake
CPU tensors: with a torch built without CUDA, fake CUDA tensors have no backward pass.
"""

import statistics
import time
import warnings
from collections.abc import Callable

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from attnmem import Measurement, trace
from attnmem.lessons.table import Table
from attnmem.measurement.records import load
from attnmem.programs import PROGRAMS, run

BY_NAME = {program.__name__: program for program in PROGRAMS}


def traced(m: Measurement) -> int:
    """The peak that the trace predicts, in bytes."""
    return trace(BY_NAME[m.program], m.workload, m.training).peak_bytes


def tracked(m: Measurement) -> int:
    """The peak that MemTracker reports, in bytes."""
    tracker = MemTracker()
    with FakeTensorMode(), tracker:
        for _ in run(
            BY_NAME[m.program], m.workload, training=m.training, device=torch.device("cpu")
        ):
            pass
    return max(sizes["Total"] for sizes in tracker.get_tracker_snapshot("peak").values())


def compare(name: str, predict: Callable[[Measurement], int]) -> tuple[str, int, int, float]:
    """One row: cells that ran, cells that are exact, the median time in milliseconds."""
    exact, times = 0, []
    for m in load().measurements:
        if m.out_of_memory or not m.warm_up:
            continue
        begin = time.perf_counter()
        try:
            predicted = predict(m)
        except RuntimeError:  # a kernel that this machine does not have
            continue
        times.append(time.perf_counter() - begin)
        exact += predicted == m.peak_bytes
    return name, len(times), exact, 1e3 * statistics.median(times)


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(f"against {load().provenance}")
    columns = {"": "", "cells": "", "exact": "", "ms per cell": ".2f"}
    print(Table(columns, [compare("trace", traced), compare("MemTracker", tracked)]))
