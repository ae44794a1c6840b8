"""What products, powers and other arithmetic allocate beside their outputs.

Places in PyTorch are below aten/src/ATen/native.
"""

import functools
from typing import Any

import torch

from attnmem.prediction.kernels.reductions import LOW
from attnmem.prediction.kernels.rules import Kernel, Tensors, rule, size_of

aten = torch.ops.aten


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
        if not (_readable(operand) or operand.is_contiguous()):
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
NUMBERS = {bool: torch.bool, int: torch.int64, float: torch.float64, complex: torch.complex128}


def _overloads(names: str) -> list[Any]:
    packets = [getattr(aten, name + end, None) for name in names.split() for end in ("", "_")]
    return [getattr(packet, x) for packet in packets if packet for x in packet.overloads()]


# A number beside a tensor becomes a tensor of its own: wrapped_scalar_tensor.
ARITHMETIC = _overloads("add sub rsub mul div remainder fmod copysign floor_divide")
COMPARISONS = _overloads("eq ne lt le gt ge")
BITWISE = _overloads("bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift")
SHIFTS = _overloads("__lshift__ __rshift__ __ilshift__ __irshift__")


@rule("cpu", *ARITHMETIC, *COMPARISONS, *BITWISE, *SHIFTS)
def arithmetic_on_cpu(kernel: Kernel) -> None:
    """As :func:`elementwise_on_cpu`. A number becomes a tensor of one f64 or i64.

    A GPU casts in registers, and keeps numbers on the CPU.
    """
    args, common = kernel.args, _common(kernel)
    number = NUMBERS.get(type(args[1])) if len(args) > 1 else None
    if number:
        kernel.buffer(NUMBER, number.itemsize)
    _cast(kernel, kernel.inputs, common)
    if number not in (None, common):
        kernel.buffer("cast number", common.itemsize)
    kernel.allocate_outputs()


def elementwise_on_cpu(kernel: Kernel) -> None:
    """Operands are cast to one dtype first: compute_types, TensorIterator.cpp."""
    _cast(kernel, kernel.inputs, _common(kernel))
    kernel.allocate_outputs()


@rule("cpu", aten.where.self)
def choice_on_cpu(kernel: Kernel) -> None:
    """Likewise, but for the condition."""
    _cast(kernel, kernel.inputs[1:], kernel.outputs[0].dtype)
    kernel.allocate_outputs()


@rule("cpu", *_overloads("masked_fill"))
def masked_fill_on_cpu(kernel: Kernel) -> None:
    """What is filled in is read as a number: ``masked_fill__cpu``, TensorAdvancedIndexing.cpp."""
    kernel.allocate_outputs()


def _cast(kernel: Kernel, operands: Tensors, common: torch.dtype) -> None:
    out = kernel.outputs[0] if kernel.outputs else None
    for operand in operands:
        if operand.dtype != common:
            if operand is not out or operand is kernel.args[0]:
                kernel.buffer("cast operand", operand.numel() * common.itemsize)
            if operand is out:  # given
                kernel.buffer("result before its cast", operand.numel() * common.itemsize)


def _common(kernel: Kernel) -> torch.dtype:
    args, inputs, outputs = kernel.args, kernel.inputs, kernel.outputs
    if not outputs:
        return inputs[0].dtype
    given = any(x is outputs[0] for x in inputs)
    if given or outputs[0].dtype == torch.bool:
        return torch.result_type(*args[:2]) if len(args) > 1 else inputs[0].dtype
    return outputs[0].dtype


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
