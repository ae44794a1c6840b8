"""What products, sums on a CPU and other arithmetic allocate beside their outputs.

Places in PyTorch are below aten/src/ATen/native.
"""

import torch

from attnmem.prediction.kernels.rules import Kernel, rule, size_of

aten = torch.ops.aten


@rule("cpu", aten.sum.default, aten.sum.dim_IntList)
def sums(kernel: Kernel) -> None:
    """What is not summed in its own dtype is cast first: make_reduction, ReduceOpsUtils.h."""
    x, total = kernel.inputs[0], kernel.outputs[0]
    kernel.allocate(0)
    if x.dtype != total.dtype:
        kernel.buffer("cast operand", x.numel() * total.itemsize)


@rule("cuda", aten.bmm.default)
def bmm(kernel: Kernel) -> None:
    """Copies operands that cuBLAS can't read: prepare_batch_matrix_for_cublas, cuda/Blas.cpp."""
    kernel.allocate(0)
    for operand in kernel.inputs[-2:]:
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


NUMBER = "number"
ARITHMETIC = [
    getattr(getattr(aten, name + suffix), overload)
    for name in ("add", "sub", "mul", "div")
    for suffix in ("", "_")
    for overload in getattr(aten, name + suffix).overloads()
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
