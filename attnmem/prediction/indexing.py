"""What Python hands over where a tensor is indexed: C++ makes tensors of it that no mode sees.

Places in PyTorch are in csrc/autograd/python_variable_indexing.cpp.
"""

from collections.abc import Callable
from typing import Any

import torch

from attnmem.prediction.refusal import refuse_reading


def _is_table(part: Any) -> bool:
    """Whether ``part`` is numbers that become one index: sequenceToVariable."""
    if type(part).__name__ == "ndarray":
        return bool(part.ndim > 0 and part.dtype.kind in "iu")
    if not isinstance(part, list | tuple | range) or not part:
        return False
    return all(type(x) is int or _is_table(x) for x in part)


def _seen(index: Any, here: torch.device) -> Any:
    """The index, with tensors in the places of lists of numbers; ``None`` if it has none."""

    def table(part: Any) -> Any:
        # torch.tensor copies behind the back of every mode; a copy of the copy is seen.
        return torch.tensor(part, device=here).clone() if _is_table(part) else part

    if isinstance(index, tuple):
        return tuple(map(table, index)) if any(map(_is_table, index)) else None
    # A list with a sequence in it is a tuple: treatSequenceAsTuple.
    whole = _is_table(index) and not any(isinstance(x, list | tuple | range) for x in index)
    return table(index) if whole else None


def get(x: torch.Tensor, index: Any) -> Any:
    """``x[index]``."""
    seen = _seen(index, x.device)
    return NotImplemented if seen is None else x[seen]


def put(device: str) -> Callable[[torch.Tensor, Any, Any], Any]:
    """``x[index] = value``: on a GPU a number stays on the CPU, THPVariable_setitem."""

    def route(x: torch.Tensor, index: Any, value: Any) -> Any:
        seen = _seen(index, x.device)
        number = device == "cuda" and isinstance(value, int | float | complex)
        if seen is None and not number:
            return NotImplemented
        if number:
            value = torch.tensor(value, dtype=x.dtype)
        x.__setitem__(index if seen is None else seen, value)
        return None

    return route


def one_hot(device: str) -> Callable[..., Any]:
    """one_hot, native/Onehot.cpp: under a mode it compares with a range."""

    def route(x: torch.Tensor, num_classes: int = -1) -> Any:
        if not x.numel():
            return NotImplemented
        if num_classes < 0:
            raise refuse_reading("one_hot without num_classes")
        if device == "cpu":
            torch.aminmax(x)
        zeros = torch.zeros(*x.shape, num_classes, dtype=x.dtype, device=x.device)
        return zeros.scatter_(-1, x.unsqueeze(-1), 1)

    return route
