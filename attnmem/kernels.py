"""What kernels allocate and no dispatch mode sees: their own buffers, and the order of outputs.

One rule for each operation, each with the place in PyTorch's aten/src/ATen/native that it comes
from. Checked on torch 2.11 with an H100 and an H200, whose generation sizes that depend on the GPU
are of, and for the CPU on torch 2.13.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from attnmem import fused
from attnmem.fused import Allocations, Rule, Tensors, copies, size_of
from attnmem.memory import SCALE_BYTES

aten = torch.ops.aten
NUMBER = "number"


def allocations(
    op: Any, args: Sequence[Any], inputs: Tensors, outputs: Tensors, device: str
) -> Allocations:
    """What the kernel of ``op`` does on ``device``. Most allocate their outputs, in order.

    Warns, with the name of ``op``, where it is known to allocate what is not known here.

    Taught in :ref:`memory-own`.
    """
    if device == "cuda" and op in UNKNOWN:
        warnings.warn(f"{op} allocates {UNKNOWN[op]}; the trace leaves it out", stacklevel=2)
    rule = (CUDA if device == "cuda" else CPU).get(op)
    found: Allocations = [*range(len(outputs))]
    if rule:
        found = rule(args, inputs, outputs)
    if device == "cpu" and op.overloadpacket in ARITHMETIC:
        found = [*_cast_on_cpu(args, inputs, outputs), *found]
    return found


def _cast_on_cpu(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """Operands are cast to one dtype first: compute_types, TensorIterator.cpp.

    A number becomes a tensor of one f64 or i64. A GPU casts in registers, and keeps numbers on
    the CPU.
    """
    in_place = outputs[0] is inputs[0]
    common = torch.result_type(*args[:2]) if in_place else outputs[0].dtype
    casts: Allocations = [
        ("cast operand", x.numel() * common.itemsize) for x in inputs if x.dtype != common
    ]
    if len(args) > 1 and isinstance(args[1], int | float) and not isinstance(args[1], bool):
        number = torch.float64 if isinstance(args[1], float) else torch.int64
        cast = [("cast number", common.itemsize)] if common != number else []
        casts = [(NUMBER, SCALE_BYTES), *cast, *casts]
    return casts


def _sum(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """What is not summed in its own dtype is cast first: make_reduction, ReduceOpsUtils.h."""
    x, total = inputs[0], outputs[0]
    return [0, *([("cast operand", x.numel() * total.itemsize)] if x.dtype != total.dtype else [])]


def _sum_on_cuda(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """In 32 bit, a GPU sums 16-bit numbers without a cast: make_reduction, ReduceOpsUtils.h."""
    lower = inputs[0].dtype in (torch.float16, torch.bfloat16)
    return [0] if lower and outputs[0].dtype == torch.float32 else _sum(args, inputs, outputs)


def _logsumexp(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """logsumexp_out_impl, ReduceOps.cpp."""
    size = size_of(outputs[0])
    absolute: Allocations = [("absolute maxima", size), ("infinite maxima", outputs[0].numel())]
    return [
        ("maxima", size),
        *absolute,
        "infinite maxima",
        "absolute maxima",
        ("exponentials", size_of(inputs[0])),
        0,
        "exponentials",
    ]


def _softmax(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """softmax_cuda_out, cuda/SoftMax.cu."""
    return [0, *copies(inputs)]


def _softmax_backward(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """``Tensor tmp = grad * output`` in softmax_backward_cuda_out, cuda/SoftMax.cu."""
    grad, output = inputs[:2]
    dtype = torch.promote_types(grad.dtype, output.dtype)
    return [0, ("temporary inside softmax backward", output.numel() * dtype.itemsize)]


def _native_dropout(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """The mask comes first: dropout_cuda, cuda/Dropout.cu."""
    return [1, 0]


def _safe_softmax(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """Looks for rows that are masked out whole: _safe_softmax, transformers/attention.cpp."""
    scores = inputs[0]
    return [
        0,
        ("mask inside safe softmax", scores.numel()),
        ("masked rows inside safe softmax", scores.numel() // scores.shape[-1]),
        ("zero inside safe softmax", outputs[0].element_size()),
    ]


def _bmm(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """Copies operands that cuBLAS can't read: prepare_batch_matrix_for_cublas, cuda/Blas.cpp."""

    def readable(x: torch.Tensor) -> bool:
        _, rows, columns = x.shape
        _, row, column = x.stride()
        by_rows = column == 1 and row >= max(1, columns)
        return by_rows or (row == 1 and column >= max(1, rows)) or x.is_contiguous()

    return [0, *(("copy inside bmm", size_of(x)) for x in inputs[-2:] if not readable(x))]


def _shape_of_softmax_backward(
    grad: torch.Tensor, output: torch.Tensor, dim: int, dtype: torch.dtype
) -> torch.Tensor:
    return torch.empty_like(grad, dtype=dtype, memory_format=torch.contiguous_format)


def _shape_of_arithmetic(op: Any) -> Callable[..., torch.Tensor]:
    def shape(x: torch.Tensor, other: Any) -> torch.Tensor:
        scaled = x.is_floating_point() and isinstance(other, int | float)
        return torch.empty_like(x) if scaled else op(x, other)

    return shape


# PyTorch's own shape functions for these are Python, and half the cost of a trace.
SHAPES: dict[Any, Callable[..., torch.Tensor]] = {
    aten.mul.Tensor: _shape_of_arithmetic(aten.mul.Tensor),
    aten.div.Tensor: _shape_of_arithmetic(aten.div.Tensor),
    aten.randn.default: torch.empty,
    aten.randn_like.default: torch.empty_like,
    aten._softmax_backward_data.default: _shape_of_softmax_backward,
}

ARITHMETIC = {
    getattr(aten, name + suffix) for name in ("add", "sub", "mul", "div") for suffix in ("", "_")
}
CPU: dict[Any, Rule] = {
    aten._safe_softmax.default: _safe_softmax,
    aten._scaled_dot_product_flash_attention_for_cpu.default: fused.flash_on_cpu,
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default: fused.flash_on_cpu_backward,
    aten.sum.default: _sum,
    aten.sum.dim_IntList: _sum,
}
CUDA: dict[Any, Rule] = {
    aten._safe_softmax.default: _safe_softmax,
    aten._softmax.default: _softmax,
    aten._softmax_backward_data.default: _softmax_backward,
    aten.native_dropout.default: _native_dropout,
    aten.sum.default: _sum_on_cuda,
    aten.sum.dim_IntList: _sum_on_cuda,
    aten.logsumexp.default: _logsumexp,
    aten.bmm.default: _bmm,
    aten._scaled_dot_product_flash_attention.default: fused.flash,
    aten._scaled_dot_product_flash_attention_backward.default: fused.flash_backward,
    aten._scaled_dot_product_efficient_attention.default: fused.efficient,
    aten._scaled_dot_product_efficient_attention_backward.default: fused.efficient_backward,
    aten._scaled_dot_product_cudnn_attention.default: fused.cudnn,
    aten._scaled_dot_product_cudnn_attention_backward.default: fused.cudnn_backward,
}
UNKNOWN = {
    aten.sort.default: "buffers for sorting",
    aten.sort.stable: "buffers for sorting",
    aten.topk.default: "buffers for sorting",
    aten._unsafe_index_put.default: "buffers for sorting indices",
    aten.embedding_dense_backward.default: "buffers for sorting indices",
    aten.cumsum.default: "buffers for scanning",
    aten.cumprod.default: "buffers for scanning",
    # Up to some kB, where all is reduced to one number.
    aten.sum.default: "a buffer for the sums of blocks",
    aten.mean.default: "a buffer for the sums of blocks",
    aten.max.default: "a buffer for the maxima of blocks",
    aten.min.default: "a buffer for the minima of blocks",
}
