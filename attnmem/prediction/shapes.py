"""Shapes of results, faster: PyTorch writes its own for these in Python, half a trace's cost."""

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten
META = torch.device("meta")


def _randn(size: Any, *, device: Any = None, **options: Any) -> torch.Tensor:
    make = torch.empty if device == META else torch.randn  # on the CPU it has values
    return make(size, device=device, **options)


def _bmm(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    fits = x.dim() == y.dim() == 3 and x.shape[::2] == y.shape[:2] and x.dtype == y.dtype
    if not fits:
        return aten.bmm.default(x, y)  # type: ignore[no-any-return]  # it says what is wrong
    return torch.empty((*x.shape[:2], y.shape[2]), dtype=x.dtype, device=META)


def _softmax_backward(
    grad: torch.Tensor, output: torch.Tensor, dim: int, dtype: torch.dtype
) -> torch.Tensor:
    return torch.empty(grad.shape, dtype=dtype, device=META)


def _arithmetic(op: Any) -> Callable[..., torch.Tensor]:
    def shape(x: torch.Tensor, other: Any) -> torch.Tensor:
        if not (x.is_floating_point() and isinstance(other, int | float)):
            return op(x, other)  # type: ignore[no-any-return]
        if x.is_contiguous():
            return torch.empty(x.shape, dtype=x.dtype, device=META)
        return torch.empty_like(x)

    return shape


SHAPES: dict[Any, Callable[..., torch.Tensor]] = {
    aten.bmm.default: _bmm,
    aten.mul.Tensor: _arithmetic(aten.mul.Tensor),
    aten.div.Tensor: _arithmetic(aten.div.Tensor),
    aten.randn.default: _randn,
    aten.randn_like.default: torch.empty_like,
    aten._softmax_backward_data.default: _softmax_backward,
}
