"""What an entry of the corpus is, and the two decorators that make one."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attnmem.programs import Program
from attnmem.workload import Workload


def _always(w: Workload) -> bool:
    return True


@dataclass(frozen=True)
class Entry:
    """An attention program after a public project.

    ``make`` builds the program for a workload. Its parameters and buffers are made there, on the
    default device and in the workload's dtype: ``with torch.device("meta"): entry.make(w)``.
    ``source`` names the project and the file that the program is written after. ``fits`` tells
    for which workloads the project's code runs at all.
    """

    name: str
    make: Callable[[Workload], Program]
    source: str
    fits: Callable[[Workload], bool] = _always


def program(fn: Program) -> Entry:
    """Make an entry of a plain function of Q, K and V."""
    return Entry(fn.__name__, lambda w: fn, _source(fn))


def module(make: Callable[[Workload], Program]) -> Entry:
    """Make an entry of something that builds a program for a workload: a class or a function."""
    return Entry(make.__name__, make, _source(make))


def only(fits: Callable[[Workload], bool]) -> Callable[[Entry], Entry]:
    """Restrict an entry to the workloads that the project's own code takes."""
    return lambda entry: replace(entry, fits=fits)


def _source(named: Callable[..., object]) -> str:
    """The end of a docstring, after the last colon: ``owner/project, path/of/file``."""
    _, colon, source = " ".join((named.__doc__ or "").split()).rpartition(": ")
    source = source.removesuffix(".")
    if not colon or "/" not in source or ", " not in source:
        raise ValueError(f"the docstring of {named.__name__} must end in 'owner/project, file'")
    return source


SHAPES = ((2, 4, 512, 64), (1, 3, 333, 40), (3, 8, 256, 128))

#: What every program of the corpus runs on: each shape (B, H, N, d) in each dtype.
WORKLOADS = tuple(
    Workload(batch=b, heads=h, seq_len=n, head_dim=d, dtype=dtype)
    for b, h, n, d in SHAPES
    for dtype in (torch.float16, torch.bfloat16, torch.float32)
)


# What many projects' first and last lines do.


def hidden(x: Tensor) -> Tensor:
    """``[B, H, N, d]`` to hidden states ``[B, N, H·d]``."""
    return x.transpose(1, 2).flatten(2)


def heads(x: Tensor, count: int) -> Tensor:
    """Hidden states ``[B, N, H·d]`` to ``[B, H, N, d]``."""
    b, n, width = x.shape
    return x.view(b, n, count, width // count).transpose(1, 2)


def width(w: Workload) -> int:
    """How wide hidden states are: H·d."""
    return w.heads * w.head_dim


def kv_heads(count: int) -> int:
    """How many heads of K and V ``count`` heads of Q share in pairs, or one for an odd count."""
    return count // 2 if count % 2 == 0 else 1


def side(n: int, most: int | None = None) -> int:
    """The largest divisor of n that is at most ``most``, or √n: the height of an image.

    >>> side(512), side(333), side(256), side(333, most=64)
    (16, 9, 16, 37)
    """
    return max(x for x in range(1, (most or math.isqrt(n)) + 1) if n % x == 0)


def turns(n: int, d: int, device: torch.device | None = None, base: float = 10000.0) -> Tensor:
    """The angles of rotary embeddings, ``[N, d/2]`` in float32."""
    frequencies = base ** (-torch.arange(0, d, 2, device=device).float() / d)
    return torch.outer(torch.arange(n, device=device).float(), frequencies)
