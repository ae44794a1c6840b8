"""Cures for a program that runs out of memory: each a few lines, before and after the change.

>>> from attnmem import trace
>>> from attnmem.cures import CURES
>>> cure = CURES["names"]
>>> [trace(program, cure.workloads[0]).peak_bytes for program in cure.versions]
[629145600, 421527552, 226492416]
"""

from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

import torch

from attnmem.cures import compiled, kernels, loss, names, training
from attnmem.cures.cure import Cure, made
from attnmem.programs import Program
from attnmem.workload import Workload

__all__ = ["CURES", "Cell", "Cure", "cells", "made"]


def _cures(*places: ModuleType) -> dict[str, Cure]:
    return {cure.name: cure for place in places for cure in place.CURES}


#: The cures by name, in the order in which the book tells them.
CURES: dict[str, Cure] = _cures(kernels, names, training, loss, compiled)


class Cell(NamedTuple):
    """One run: the program by name, and what :func:`attnmem.prediction.trace.trace` takes."""

    name: str
    program: Program
    workload: Workload
    training: bool


def cells(device: str | torch.device = "meta") -> Iterator[Cell]:
    """Every run of every cure, before and after, each once; parameters are made on ``device``."""
    runs = dict.fromkeys(
        (version, w, mode)
        for cure in CURES.values()
        for version in cure.versions
        for w in cure.workloads
        for mode in cure.modes
    )
    for version, w, mode in runs:
        with torch.device(device):
            program = made(version, w)
        yield Cell(version.__name__, program, w, mode)
