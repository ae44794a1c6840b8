"""What products, sums on a CPU and other arithmetic allocate beside their outputs.

Places in PyTorch are below aten/src/ATen/native.
"""

import functools

import torch

from attnmem.prediction.kernels.reductions import LOW, dims_of, loops
from attnmem.prediction.kernels.rules import Kernel, rule, size_of

aten = torch.ops.aten


@rule("cpu", aten.sum.default, aten.sum.dim_IntList)
def sums(kernel: Kernel) -> None:
    """What is not summed in its own dtype is cast first: make_reduction, ReduceOpsUtils.h.

    16-bit numbers are summed in 32 bit along two loops: should_use_acc_buffer, ReduceOps.cpp.
    """
    x, total = kernel.inputs[0], kernel.outputs[0]
    kernel.allocate(0)
    if x.dtype != total.dtype:
        kernel.buffer("cast operand", x.numel() * total.itemsize)
    elif x.dtype in LOW and x.numel() and loops(x, total, dims_of(kernel, 1)).output[:2] == (0, 0):
        kernel.buffer("sum in 32 bit", 4 * total.numel())
        kernel.buffer("cast operand", 4 * x.numel())


@rule("cuda", aten.mm.default, aten.addmm.default)
def mm(kernel: Kernel) -> None:
    """Copies matrices that cuBLAS can't read: prepare_matrix_for_cublas, cuda/Blas.cpp."""
    kernel.allocate(0)
    for matrix in reversed(kernel.inputs[-2:]):
        if _readable(matrix) or aten.is_non_overlapping_and_dense.default(matrix):
            continue
        kernel.buffer("copy inside mm", size_of(matrix))


@rule("cuda", aten.bmm.default, aten.baddbmm.default)
def bmm(kernel: Kernel) -> None:
    """Copies operands that cuBLAS can't read: prepare_batch_matrix_for_cublas, cuda/Blas.cpp.

    cuBLAS has the columns first: where the result has rows, the second operand comes first.
    """
    kernel.allocate(0)
    operands = kernel.inputs[-2:]
    for operand in operands if kernel.outputs[0].shape[2] == 1 else reversed(operands):
        _, rows, columns = operand.shape
        _, row, column = operand.stride()
        by_rows = column == 1 and row >= max(1, columns)
        by_columns = row == 1 and column >= max(1, rows)
        if not (by_rows or by_columns or operand.is_contiguous()):
            kernel.buffer("copy inside bmm", size_of(operand))


@rule("cuda", aten.pow.Tensor_Scalar)
def power_by_number(kernel: Kernel) -> None:
    """pow_Tensor_Scalar_out, Pow.cpp: a kernel without buffers, but for complex numbers."""
    kernel.allocate(0)
    if kernel.outputs[0].is_complex():
        kernel.unknown("casts to complex numbers")


@rule("cuda", aten.abs.default, aten.angle.default)
def complex_to_real(kernel: Kernel) -> None:
    """unary_op_impl_with_complex_to_float_out, UnaryOps.cpp: first as a complex number."""
    x = kernel.inputs[0]
    kernel.allocate(0)
    if x.is_complex():
        kernel.buffer("complex result", size_of(x))


@rule("cuda", aten.fill_.Tensor)
def fill(kernel: Kernel) -> None:
    """``fill_``, Fill.cpp: a value on the CPU is handed over with the launch."""
    kernel.allocate_outputs()


NUMBER = "number"
ARITHMETIC = [
    getattr(getattr(aten, name + suffix), overload)
    for name in ("add", "sub", "mul", "div", "rsub", "fmod", "remainder", "floor_divide")
    for suffix in ("", "_")
    if hasattr(aten, name + suffix)
    for overload in getattr(aten, name + suffix).overloads()
]
COMPARISONS = [
    getattr(getattr(aten, name), overload)
    for name in ("eq", "ne", "lt", "le", "gt", "ge")
    for overload in ("Scalar", "Tensor")
]
BINARY = [
    getattr(getattr(aten, name), overload)
    for name in ("maximum", "minimum", "pow", "clamp", "clamp_min", "clamp_max", "atan2", "where")
    for overload in getattr(aten, name).overloads()
    if overload in ("default", "self", "Tensor", "Tensor_Tensor")
]


@rule("cpu", *ARITHMETIC)
def arithmetic_on_cpu(kernel: Kernel) -> None:
    """Operands are cast to one dtype first: compute_types, TensorIterator.cpp.

    A number becomes a tensor of one f64 or i64. A GPU casts in registers, and keeps numbers on
    the CPU.
    """
    args, inputs, outputs = kernel.args, kernel.inputs, kernel.outputs
    in_place = outputs[0] is inputs[0]
    common = torch.result_type(*args[:2]) if in_place else outputs[0].dtype
    if len(args) > 1 and isinstance(args[1], int | float) and not isinstance(args[1], bool):
        number = torch.float64 if isinstance(args[1], float) else torch.int64
        kernel.buffer(NUMBER, number.itemsize)
        if common != number:
            kernel.buffer("cast number", common.itemsize)
    for operand in inputs:
        if operand.dtype != common:
            kernel.buffer("cast operand", operand.numel() * common.itemsize)
    kernel.allocate_outputs()


@rule("cpu", *COMPARISONS)
def comparisons_on_cpu(kernel: Kernel) -> None:
    """Likewise, but that the number goes before what it was cast to: comparison_op, BinaryOps.cpp.

    ``wrapped_scalar_tensor_and_check_convert`` there makes the number a tensor.
    """
    x, other = kernel.args[:2]
    common = torch.result_type(x, other)
    for operand in kernel.inputs:
        if operand.dtype != common:
            kernel.buffer("cast operand", operand.numel() * common.itemsize)
    if isinstance(other, torch.Tensor):
        kernel.allocate(0)
        return
    number = torch.float64 if isinstance(other, float) else torch.int64
    kernel.buffer("compared number", number.itemsize)
    if common != number:
        kernel.buffer("cast number", common.itemsize)
    kernel.allocate(0)
    kernel.free("compared number")


@rule("cpu", *BINARY)
def of_one_dtype(kernel: Kernel) -> None:
    """What has not the result's dtype is cast first: compute_types, TensorIterator.cpp."""
    out = kernel.outputs[0]
    for operand in kernel.inputs:
        if operand.dtype not in (out.dtype, torch.bool):
            kernel.buffer("cast operand", operand.numel() * out.itemsize)
    kernel.allocate(0)


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


@rule("cpu", aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default)
def products_on_cpu(kernel: Kernel) -> None:
    """Copies matrices that BLAS can't read, one at a time: ``addmm_impl_cpu_``, LinearAlgebra.cpp.

    So does a product of batches, if one is such a matrix and they are not tiny:
    ``bmm_out_or_baddbmm_`` there.
    """
    kernel.allocate(0)
    if kernel.outputs[0].dtype in LOW and _has_16_bit_products():
        kernel.unknown("what oneDNN packs for 16-bit products on this machine's CPU")
    matrices = kernel.inputs[-2:]
    copied = [x for x in matrices if not _readable(x)]
    x, y = matrices
    batches = x.shape[0] if x.ndim == 3 else 1
    if not copied or not x.numel() or (x.ndim == 3 and x[0].numel() * y.shape[-1] < 400):
        return
    for _ in range(batches):
        labels = [f"copied matrix {at}" for at in range(len(copied))]
        for label, matrix in zip(labels, copied, strict=True):
            kernel.buffer(label, size_of(matrix) // batches)
        kernel.free(*labels)


@functools.cache
def _has_16_bit_products() -> bool:
    """use_mkldnn_matmul, mkldnn/Matmul.cpp."""
    onednn = torch.ops.mkldnn
    return onednn._is_mkldnn_bf16_supported() or onednn._is_mkldnn_fp16_supported()  # type: ignore[no-any-return]


def _readable(x: torch.Tensor) -> bool:
    (rows, columns), (row, column) = x.shape[-2:], x.stride()[-2:]
    by_rows = column == 1 and row >= max(1, columns)
    return by_rows or (row == 1 and column >= max(1, rows))
