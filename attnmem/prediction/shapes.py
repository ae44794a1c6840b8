"""Shapes and strides of results that PyTorch's own without data give late, or in another order.

It writes some of them in Python: half a trace's cost, and not always with a kernel's strides.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch._prims_common import compute_elementwise_output_strides

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


def _iterated(op: Any) -> Callable[..., torch.Tensor]:
    """The strides of a TensorIterator, which come from its first operand: TensorIterator.cpp."""

    def shape(*args: Any, **options: Any) -> torch.Tensor:
        out = op(*args, **options)
        operands = [x for x in args if isinstance(x, torch.Tensor)]
        expanded = torch.broadcast_tensors(*operands)  # type: ignore[no-untyped-call]
        strides = compute_elementwise_output_strides(*expanded)
        return torch.empty_strided(out.shape, strides, dtype=out.dtype, device=META)

    return shape


def _dense(op: Any) -> Callable[..., torch.Tensor]:
    """``set_output_raw_strided`` without strides, or ``zeros_like`` in the legacy format."""

    def shape(*args: Any, **options: Any) -> torch.Tensor:
        out = op(*args, **options)
        return torch.empty(out.shape, dtype=out.dtype, device=META)

    return shape


def _weight_norm(v: torch.Tensor, g: torch.Tensor, dim: int = 0) -> tuple[torch.Tensor, ...]:
    """weight_norm_cuda, native/cuda/WeightNorm.cu: the norms of 16-bit weights are in 32 bit."""
    wide = torch.float32 if g.dtype.itemsize == 2 else g.dtype
    return torch.empty_like(v), torch.empty_like(g, dtype=wide)


def _overloads(names: str) -> list[Any]:
    return [
        getattr(getattr(aten, packet), overload)
        for packet, overload in (name.split(".") for name in names.split())
    ]


ITERATED = _overloads("""
    elu_backward.default hardsigmoid_backward.default hardswish_backward.default
    hardtanh_backward.default logit_backward.default softplus_backward.default heaviside.default
    logaddexp.default logaddexp2.default logical_and.default logical_or.default
    logical_xor.default xlogy.Tensor special_xlog1py.default copysign.Tensor floor_divide.default
""")
DENSE = _overloads("""
    _log_softmax_backward_data.default mse_loss_backward.default smooth_l1_loss_backward.default
    huber_loss_backward.default pow.Scalar isin.Tensor_Tensor isin.Tensor_Scalar
""")
SHAPES: dict[Any, Callable[..., Any]] = {
    aten.bmm.default: _bmm,
    aten.mul.Tensor: _arithmetic(aten.mul.Tensor),
    aten.div.Tensor: _arithmetic(aten.div.Tensor),
    aten.randn.default: _randn,
    aten.randn_like.default: torch.empty_like,
    aten._softmax_backward_data.default: _softmax_backward,
    aten._weight_norm_interface.default: _weight_norm,
    **{op: _iterated(op) for op in ITERATED},
    **{op: _dense(op) for op in DENSE},
}
