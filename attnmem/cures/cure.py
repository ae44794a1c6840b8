"""What a cure is: programs before and after a change, and the run on which they are compared."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from attnmem.programs import Program
from attnmem.workload import Workload


def workloads(**sizes: Any) -> tuple[Workload, ...]:
    """The page's workload first, then two others, with some ``sizes`` instead of theirs."""
    shapes = ((2, 12, 2048, 64), (1, 12, 4096, 64), (3, 4, 333, 40))
    names = "batch", "heads", "seq_len", "head_dim"
    found = (
        Workload(**{"dtype": torch.float16} | dict(zip(names, shape, strict=True)) | sizes)
        for shape in shapes
    )
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True, kw_only=True)
class Cure:
    """A change of a few lines that saves memory.

    ``before``, and each of ``after``: a function of Q, K and V, or a module that is made for a
    workload. ``symptom``, ``cause`` and ``change``: a few words each. ``workloads``: on which they
    are compared, ``modes``: whether training, or not, or both. ``random``: the outputs differ from
    run to run. ``compiled``: no prediction is made.
    """

    name: str
    symptom: str
    cause: str
    change: str
    before: Callable[..., Any]
    after: tuple[Callable[..., Any], ...]
    modes: tuple[bool, ...]
    workloads: tuple[Workload, ...] = field(default_factory=workloads)
    random: bool = False
    compiled: bool = False

    @property
    def versions(self) -> tuple[Callable[..., Any], ...]:
        """All programs, the one before first."""
        return self.before, *self.after


def made(version: Callable[..., Any], w: Workload) -> Program:
    """The program that a version is for a workload, its parameters on the default device."""
    if not isinstance(version, type):
        return version
    program: Any = version(w)
    program.__name__ = version.__name__
    return program  # type: ignore[no-any-return]
