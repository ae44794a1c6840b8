"""What other kernels of a CPU allocate beside their outputs.

Seen beside the allocator's own events on torch 2.13. Places are below aten/src/ATen/native.
"""

import math

import torch

from attnmem.prediction.kernels.reductions import ANY_AND_ALL, LOW, dims_of, loops
from attnmem.prediction.kernels.rules import Kernel, rule, size_of

aten = torch.ops.aten


@rule("cpu", aten.roll.default)
def roll(kernel: Kernel) -> None:
    """Axis after axis: roll_common, TensorTransformations.h."""
    for axis in range(1, len(kernel.args[1])):
        kernel.buffer(f"rolled over {axis} axes", size_of(kernel.inputs[0]))
    kernel.allocate(0)


@rule("cpu", aten._softmax.default, aten._log_softmax.default)
def softmax(kernel: Kernel) -> None:
    """Copies scores that are not contiguous: softmax_cpu_out, SoftMax.cpp."""
    kernel.allocate(0)
    kernel.contiguous(kernel.inputs[0])


@rule("cpu", aten._softmax_backward_data.default, aten._log_softmax_backward_data.default)
def softmax_backward(kernel: Kernel) -> None:
    """Likewise the gradient and the weights: softmax_backward_cpu_out, SoftMax.cpp."""
    kernel.allocate(0)
    kernel.contiguous(*kernel.inputs[:2])


@rule("cpu", aten.nansum.default, aten.linalg_vector_norm.default)
@rule("cpu", aten.prod.default, aten.prod.dim_int)
@rule("cpu", aten.cumsum.default, aten.cumprod.default, aten.logcumsumexp.default)
def sums(kernel: Kernel) -> None:
    """What is not summed in its own dtype is cast first: make_reduction, ReduceOpsUtils.h."""
    x, total = kernel.inputs[0], kernel.outputs[0]
    kernel.allocate(0)
    if x.dtype != total.dtype:
        kernel.buffer("cast operand", x.numel() * total.itemsize)


@rule("cpu", aten.sum.default, aten.sum.dim_IntList)
def sum_of(kernel: Kernel) -> None:
    """Likewise; over two loops of 16 bit through 32: should_use_acc_buffer, ReduceOps.cpp."""
    sums(kernel)
    _through_32_bit(kernel, kernel.inputs[0])


def _through_32_bit(kernel: Kernel, x: torch.Tensor) -> None:
    total = kernel.outputs[0]
    if not (x.dtype == total.dtype and x.dtype in LOW and x.numel()):
        return
    if loops(x, total, dims_of(kernel, 1)).output[:2] == (0, 0):
        kernel.buffer("sum in 32 bit", 4 * total.numel())
        kernel.buffer("operand in 32 bit", 4 * x.numel())


@rule("cpu", aten.mean.default, aten.mean.dim)
def means_on_cpu(kernel: Kernel) -> None:
    """mean_out, ReduceOps.cpp: a sum, of 16-bit numbers in 32 bit, divided by their number."""
    x, out = kernel.inputs[0], kernel.outputs[0]
    low = out.dtype in LOW
    wide = 4 if low else out.itemsize
    kernel.allocate(0)
    if low:
        kernel.buffer("sum in 32 bit", wide * out.numel())
    if low or x.dtype != out.dtype:
        kernel.buffer("cast operand", wide * x.numel())
        kernel.free("cast operand")
    kernel.buffer("how many", torch.int64.itemsize)
    kernel.buffer("cast number", wide)


def _number(kernel: Kernel, dtype: torch.dtype) -> None:
    """A whole number that arithmetic makes a tensor of, and casts."""
    kernel.buffer("number", torch.int64.itemsize)
    kernel.buffer("cast number", dtype.itemsize)


@rule("cpu", *(aten.std.correction, aten.var.correction))
def moments(kernel: Kernel) -> None:
    """Of all numbers the mean comes first: std_var_all_cpu, ReduceOps.cpp."""
    x, out = kernel.inputs[0], kernel.outputs[0]
    kernel.allocate(0)
    if out.numel() == 1 and x.numel() > 1 and x.dtype in (torch.float32, torch.float64):
        kernel.buffer("mean", out.element_size())
        _number(kernel, out.dtype)


@rule("cpu", *ANY_AND_ALL)
def truths(kernel: Kernel) -> None:
    """What is no truth is cast: allany_impl, ReduceOps.cpp."""
    x = kernel.inputs[0]
    kernel.allocate(0)
    if x.dtype not in (torch.bool, torch.uint8):
        kernel.buffer("cast operand", x.numel())


@rule("cpu", aten.logsumexp.default)
def logsumexp(kernel: Kernel) -> None:
    """logsumexp_out_impl, ReduceOps.cpp: as on a GPU, and infinity is a number."""
    x, result = kernel.inputs[0], kernel.outputs[0]
    exponentials = x.numel() * result.itemsize
    if x.dtype != result.dtype:
        kernel.buffer("cast operand", exponentials)
    kernel.buffer("maxima", size_of(result))
    kernel.buffer("absolute maxima", size_of(result))
    kernel.buffer("infinity", torch.float64.itemsize)
    kernel.buffer("cast infinity", result.itemsize if result.dtype != torch.float64 else 0)
    kernel.buffer("infinite maxima", result.numel())
    kernel.free("infinity", "cast infinity", "infinite maxima", "absolute maxima")
    kernel.buffer("exponentials", exponentials)
    kernel.allocate(0)
    _through_32_bit(kernel, x)


@rule("cpu", aten.pow.Scalar)
def power_of_number_on_cpu(kernel: Kernel) -> None:
    """pow_Scalar_out, Pow.cpp: the base becomes a tensor of one f64 or i64."""
    base, exponent, out = kernel.args[0], kernel.inputs[0], kernel.outputs[0]
    kernel.allocate(0)
    if base == 1:
        return
    number = torch.float64 if isinstance(base, float) else torch.int64
    kernel.buffer("base", number.itemsize)
    if number != out.dtype:
        kernel.buffer("cast base", out.itemsize)
    if exponent.dtype != out.dtype:
        kernel.buffer("cast operand", exponent.numel() * out.itemsize)


@rule("cpu", aten.tril.default, aten.triu.default, aten.tril_.default, aten.triu_.default)
def triangle(kernel: Kernel) -> None:
    """checkTrilTriuBatchContiguous, TriangularOps.cpp: matrices one after another."""
    x = kernel.inputs[0]
    kernel.allocate(0)
    one_after_another = x.new_empty(x.shape).stride()[:-2]
    if x.stride()[:-2] != one_after_another:
        kernel.contiguous(x)


def _statistics(kernel: Kernel, x: torch.Tensor, weight: torch.Tensor | None) -> None:
    """Means and deviations of 16-bit numbers are in 16 bit, unless weights are in 32."""
    if x.itemsize == 2 and (weight is None or weight.dtype == x.dtype):
        for out in kernel.outputs[1:]:
            out.untyped_storage().resize_(x.itemsize * out.numel())


@rule("cpu", aten.native_layer_norm.default)
def layer_norm(kernel: Kernel) -> None:
    """layer_norm_cpu, layer_norm.cpp; param_scalar_type, cpu/mixed_data_type.h."""
    _statistics(kernel, kernel.inputs[0], kernel.args[2])
    kernel.contiguous(*kernel.inputs)
    kernel.allocate_outputs()


@rule("cpu", aten.native_layer_norm_backward.default)
def layer_norm_backward(kernel: Kernel) -> None:
    """layer_norm_backward_cpu, and LayerNormBackwardKernelImplInternal, cpu/layer_norm_kernel.cpp.

    Each thread sums the gradients of weights for itself.
    """
    grad, x = kernel.inputs[:2]
    kernel.contiguous(x)
    kernel.allocate_outputs()
    kernel.contiguous(grad)
    rows, mask = kernel.args[2], kernel.args[7]
    if x.numel() and any(mask[1:]):
        numbers = 2 * torch.get_num_threads() * math.prod(rows)
        kernel.buffer("sums of threads", numbers * kernel.outputs[-1].itemsize)


@rule("cpu", aten.native_group_norm.default)
def group_norm(kernel: Kernel) -> None:
    """native_group_norm, group_norm.cpp."""
    _statistics(kernel, kernel.inputs[0], kernel.args[1])
    kernel.allocate_outputs()


@rule("cpu", aten.native_group_norm_backward.default)
def group_norm_backward(kernel: Kernel) -> None:
    """GroupNormBackwardKernelImplInternal, cpu/group_norm_kernel.cpp: sums in 32 bit."""
    batch, channels = kernel.args[5:7]
    kernel.allocate_outputs()
    wide = max(4, kernel.inputs[1].itemsize)
    kernel.buffer("sums of dY∘X", batch * channels * wide)
    kernel.buffer("sums of dY", batch * channels * wide)


@rule("cpu", aten.log_sigmoid_forward.default)
def log_sigmoid(kernel: Kernel) -> None:
    """log_sigmoid_forward_cpu, Activation.cpp."""
    kernel.allocate_outputs()
    kernel.contiguous(kernel.inputs[0])


@rule("cpu", aten.unfold_backward.default)
def unfold_backward(kernel: Kernel) -> None:
    """_make_unfold_backward_iter_over_grad_out, UnfoldBackward.h: a range over the axis."""
    kernel.allocate(0)
    sizes, dim = kernel.args[1:3]
    if sizes:
        kernel.buffer("range", 8 * sizes[dim])


@rule("cpu", aten.fill_.Tensor, aten.fill_.Scalar)
def fill(kernel: Kernel) -> None:
    """fill_out, Fill.cpp: nothing."""


@rule("cpu", aten.repeat.default)
def repeat(kernel: Kernel) -> None:
    """An order of the dimensions is computed with tensors: repeat, TensorShape.cpp."""
    dims = 8 * len(kernel.args[1])
    kernel.allocate(0)
    kernel.buffer("range", dims)
    kernel.buffer("number of dimensions", 8)
    kernel.buffer("range after it", dims)
    kernel.free("number of dimensions")
    kernel.buffer("order", 2 * dims)


@rule("cpu", aten.abs.default)
def absolute(kernel: Kernel) -> None:
    """Of complex numbers it makes complex ones, and takes their real part: abs, UnaryOps.cpp."""
    kernel.allocate(0)
    if kernel.inputs[0].is_complex():
        kernel.unknown("complex numbers before it takes their real part")
