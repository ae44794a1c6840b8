"""The trace beside PyTorch's MemTracker: the peaks of the shipped records, predicted by both.

The records of the book, of the corpus, and of training steps, on one core of this machine.
MemTracker runs on fake CPU tensors: with a torch built without CUDA, fake CUDA tensors have no
backward pass. So it sees the CPU's kernels, and gets the CPU's autocast where a program asks for
CUDA's. What is there before a run, a model say, is told to it and taken off, as in a measurement.
"""

import argparse
import gc
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from attnmem import Measurement, trace, trace_call
from attnmem.corpus import CORPUS
from attnmem.corpus.steps import Recipe, calls, recipes
from attnmem.lessons.table import Table
from attnmem.measurement.calls import STEPS_RECORD, load_calls
from attnmem.measurement.records import CORPUS_RECORD, load
from attnmem.prediction.choice import assuming
from attnmem.programs import PROGRAMS, Program, run

# What was measured, and a call that predicts it. They are made and called one after another.
Cell = tuple[int, Callable[[], int]]

PLAIN = {program.__name__: program for program in PROGRAMS}

# All cells take minutes. These shares are prime to the number of choices, and so meet each of them.
SHARE_OF_CORPUS, SHARE_OF_RECIPES = 7, 13


def made(m: Measurement) -> Program:
    """The program that was measured, its parameters made on the default device."""
    return PLAIN.get(m.program) or CORPUS[m.program].make(m.workload)


class Fake(FakeTensorMode):
    """Fake tensors; a module that is copied, as layers are, keeps the mode of its own."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Fake":
        return self


def traced(m: Measurement) -> int:
    """The peak that the trace predicts, in bytes."""
    with torch.device("meta"):
        program = made(m)
    return trace(program, m.workload, m.training).peak_bytes


def traced_steps(chosen: list[Recipe]) -> Iterator[Cell]:
    """The steps of each recipe, and the peaks that the trace predicts."""
    for measured, call in steps(chosen, "meta"):
        yield measured, partial(traced_call, call)


def traced_call(call: Callable[[], None]) -> int:
    """The peak that the trace predicts for a call, in bytes."""
    return trace_call(call).peak_bytes


def tracked(m: Measurement) -> int:
    """The peak that MemTracker reports, in bytes."""

    def act() -> None:
        for _ in run(program, m.workload, training=m.training, device=torch.device("cpu")):
            pass

    with Fake():
        program = made(m)
        return track(act)


def tracked_steps(chosen: list[Recipe]) -> Iterator[Cell]:
    """The steps of each recipe, and the peaks that MemTracker reports."""
    # A module changes its dtype only if no weak reference to its tensors is left, as to fake ones.
    with Fake(), patch("torch.utils.weakref.getweakrefs", return_value=[]):
        for measured, call in steps(chosen, "cpu"):
            yield measured, partial(track, call)


def steps(chosen: list[Recipe], device: str) -> Iterator[tuple[int, Callable[[], None]]]:
    """The first and the second step of each recipe, after their measured peaks.

    MemTracker follows one step at a time, so the calls that take both are left out.
    """
    record = load_calls(STEPS_RECORD).calls
    for name, call in calls(chosen, device):
        if name.endswith("step"):
            yield record[name].peak_bytes, call


def track(act: Callable[[], None]) -> int:
    """What MemTracker reports for ``act`` beyond the fake tensors that are there before."""
    gc.collect()
    tracker = MemTracker()
    tracker.track_external(*(x for x in gc.get_objects() if issubclass(type(x), FakeTensor)))
    before = total(tracker, "current")
    with patch("torch.autocast", cpu_autocast), tracker:
        act()
    return total(tracker, "peak") - before


AUTOCAST = torch.autocast


def cpu_autocast(device_type: str, *args: Any, **options: Any) -> torch.autocast:
    """``torch.autocast`` for the CPU, whatever device is asked for."""
    return AUTOCAST("cpu", *args, **options)


def total(tracker: MemTracker, when: str) -> int:
    """The bytes that a tracker knows of, ``"current"`` or at the ``"peak"``."""
    return max((kinds["Total"] for kinds in tracker.get_tracker_snapshot(when).values()), default=0)


def compare(name: str, tool: str, cells: Iterable[Cell]) -> tuple[object, ...]:
    """A row: how the predictions of one tool stand to what was measured."""
    ratios, times, refused = [], [], 0
    for measured, predict in cells:
        begin = time.perf_counter()
        try:
            predicted = predict()
        except Exception:  # a kernel that this machine lacks, or what the tool can't follow
            refused += 1
            continue
        times.append(time.perf_counter() - begin)
        ratios.append(predicted / measured)
    return (
        *(name, tool, len(ratios) + refused, refused, ratios.count(1), sum(r < 1 for r in ratios)),
        *(min(ratios), statistics.median(ratios), max(ratios), 1e3 * statistics.median(times)),
    )


COLUMNS = {
    **dict.fromkeys(("record", "tool", "cells", "no answer", "exact", "too low"), ""),
    **dict.fromkeys(("least", "median", "most"), "{:.2f}×"),
    "ms per cell": ".1f",
}


def main(everything: bool) -> None:
    """Compare, and print as it goes along."""
    book = [m for m in load().measurements if m.warm_up and not m.out_of_memory]
    corpus, chosen = list(load(CORPUS_RECORD).measurements), list(recipes())
    if not everything:
        corpus, chosen = corpus[::SHARE_OF_CORPUS], chosen[::SHARE_OF_RECIPES]
        print(f"a sample, one in {SHARE_OF_CORPUS} cells of the corpus, one in", end=" ")
        print(f"{SHARE_OF_RECIPES} recipes of the steps: -- --all takes all")
    provenances = load().provenance, load(CORPUS_RECORD).provenance
    print("book:  ", provenances[0])
    print("corpus:", provenances[1])
    print("steps: ", load_calls(STEPS_RECORD).provenance)
    print(f"predicted by torch {torch.__version__}; × is predicted over measured peak", flush=True)
    gc.freeze()  # what is loaded: it need not be looked at in each cell
    rows = [
        compare(name, tool, [(m.peak_bytes, partial(predict, m)) for m in found])
        for name, found in (("book", book), ("corpus", corpus))
        for tool, predict in (("trace", traced), ("MemTracker", tracked))
    ]
    rows.append(compare("steps", "trace", traced_steps(chosen)))
    rows.append(compare("steps", "MemTracker", tracked_steps(chosen)))
    print(Table(COLUMNS, rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="every cell, not a sample")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with assuming(release=(2, 11), cudnn=91900):  # those of the records
        main(arguments.all)
