"""The corpus on this machine's CPU: how often a trace is what the allocator says.

Run by ``nox -s bench``: the smallest shape; ``-- --all`` takes every shape. Each cell is exact,
warned of, refused, or silently wrong.
"""

import sys
import time
import warnings
from collections import Counter

import torch

from attnmem import Workload, measure, trace
from attnmem.corpus import CORPUS, WORKLOADS
from attnmem.corpus.entry import Entry
from attnmem.prediction.refusal import CannotFollow


def outcome(entry: Entry, w: Workload, training: bool) -> str:
    """What a trace says of one cell, beside a run of it."""
    m = measure(entry.make(w), w, training, "cpu")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            t = trace(entry.make(w), w, training, "cpu")
        except CannotFollow:
            return "refused"
    if t.peak_bytes == m.peak_bytes:
        return "exact"
    return "warned" if said else f"silent: {t.peak_bytes / m.peak_bytes - 1:+.2%}"


def main(everything: bool) -> None:
    """Print the counts for each dtype, and each cell that is silently wrong."""
    for dtype in (torch.float32, torch.bfloat16):
        counts: Counter[str] = Counter()
        start = time.perf_counter()
        workloads = [w for w in WORKLOADS if w.dtype == dtype]
        for w in workloads if everything else [min(workloads, key=lambda w: w.score_bytes)]:
            for entry in CORPUS.values():
                for training in (False, True) if entry.fits(w) else ():
                    found = outcome(entry, w, training)
                    counts[found.partition(":")[0]] += 1
                    if found.startswith("silent"):
                        print(f"  {entry.name}, {w}, training={training}: {found}")
        print(f"{dtype} on a CPU: {dict(counts)}, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main("--all" in sys.argv[1:])
