"""What a run does, in order: its events in memory, and its steps. Predicted or measured."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal
from unittest import mock

import torch

#: Operations per element of softmax, by convention: compare for the maximum, subtract, exp, add
#: to the sum, divide. Source: Yuan et al. 2024, arXiv 2402.16363, Table 1 (1.25 FLOP/B in 16 bit).
SOFTMAX_OPS = 5

#: Of its backward, dS = P∘(dP − rowsum(dP∘P)): multiply, add to the sum, subtract, multiply.
SOFTMAX_BACKWARD_OPS = 4


Stage = Literal["inputs", "forward", "backward", "update"]


@dataclass(frozen=True)
class Event:
    """One allocation (``bytes`` > 0) or release (< 0), and the bytes ``live`` after it."""

    label: str
    bytes: int
    live: int


def events(sizes: Iterable[int]) -> tuple[Event, ...]:
    """Events from sizes in bytes, allocations > 0 and releases < 0, in order; without labels.

    >>> [event.live for event in events([4, 2, -4])]
    [4, 6, 2]
    """
    live = itertools.accumulate(sizes := list(sizes))
    return tuple(Event("", size, after) for size, after in zip(sizes, live, strict=True))


@dataclass(frozen=True)
class Step:
    """One step of a program: its FLOPs, and the bytes that it reads and writes.

    Each operand is counted once and in its own dtype, as if the step were one kernel that reads
    its inputs from the device's memory and writes its result there. Softmax's backward on CUDA is
    two kernels, and counts what they pass on. ``matrix`` tells whether matrix products do the
    arithmetic, ``dtype`` what is written, ``special`` how many exponentials, sines and the like
    an unfused step has. ``stage`` is ``"backward"`` where autograd's backward pass takes the step,
    ``"inputs"`` where the run makes Q, K, V or dO, ``"update"`` where an optimizer does, else
    ``"forward"``.

    >>> import torch
    >>> scaling = Step("scale", 2**20, 2**21, 2**21, matrix=False, dtype=torch.float16)
    >>> scaling.bytes_moved, scaling.intensity
    (4194304, 0.25)
    """

    name: str
    flops: int
    bytes_read: int
    bytes_written: int
    matrix: bool
    dtype: torch.dtype
    special: int = 0
    stage: Stage = "forward"

    @property
    def bytes_moved(self) -> int:
        """Bytes read and written."""
        return self.bytes_read + self.bytes_written

    @property
    def intensity(self) -> float:
        """Arithmetic intensity, in FLOPs per byte moved.

        Raises ``ZeroDivisionError`` for a step that moves nothing.
        """
        return self.flops / self.bytes_moved


@functools.cache
def step_name(op: Any) -> str:
    """What PyTorch calls an operation, without the underscores around it.

    >>> step_name(torch.ops.aten._softmax.default)
    'softmax'
    """
    return str(op.overloadpacket.__name__).strip("_")


@functools.cache
def touches_data(op: Any) -> bool:
    """Whether an operation does more than to allocate, or to look at its input another way.

    >>> touches_data(torch.ops.aten.bmm.default), touches_data(torch.ops.aten.transpose.int)
    (True, False)
    """
    return not op.is_view and not step_name(op).startswith(("empty", "new_empty", "unsafe_view"))


def in_backward() -> bool:
    """Whether autograd is running a backward pass."""
    return torch._C._current_graph_task_id() != -1


def stage_after(ended: str) -> Stage:
    """The stage of what happens now in a run whose stage ``ended`` is its last that has ended."""
    if in_backward():
        return "backward"
    return "forward" if ended == "inputs" else "inputs"


@contextlib.contextmanager
def before_backward(act: Callable[[], None]) -> Iterator[None]:
    """Call ``act`` before each backward pass that starts inside, but for one within another."""
    engine = torch.autograd.graph._engine_run_backward

    def run_backward(*args: Any, **options: Any) -> Any:
        if not in_backward():
            act()
        return engine(*args, **options)

    with (
        mock.patch.object(torch.autograd, "_engine_run_backward", run_backward),
        mock.patch.object(torch.autograd.graph, "_engine_run_backward", run_backward),
    ):
        yield
