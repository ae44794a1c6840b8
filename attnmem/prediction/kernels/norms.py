"""What norms, distances, rolls and powers on CUDA allocate beside their outputs: a rule each.

Places in PyTorch are below aten/src/ATen/native/cuda, where nothing else is said.
"""

import math

import torch

from attnmem.prediction.kernels.fused import MULTIPROCESSORS
from attnmem.prediction.kernels.reductions import LOW, reduce
from attnmem.prediction.kernels.rules import Kernel, rule, size_of
from attnmem.workload import ceil_div

aten = torch.ops.aten


@rule("cuda", aten.native_layer_norm.default, "attnmem.rms_norm.default")
def norm(kernel: Kernel) -> None:
    """layer_norm_cuda and _fused_rms_norm_cuda, layer_norm_kernel.cu: expect_contiguous.

    The second is attnmem's own where a program is traced: attnmem/prediction/composites.py.
    """
    kernel.contiguous(*kernel.inputs)
    kernel.allocate_outputs()


@rule("cuda", aten.native_layer_norm_backward.default, "attnmem.rms_norm_backward.default")
def norm_backward(kernel: Kernel) -> None:
    """layer_norm_backward_cuda and LaunchGammaBetaBackwardCUDAKernel, layer_norm_kernel.cu.

    Many short rows are summed in blocks of 32 rows, and the sums by an operation of their own.
    """
    grad, x = kernel.inputs[:2]
    shape = kernel.args[2]
    width = math.prod(shape.shape if isinstance(shape, torch.Tensor) else shape or [x.shape[-1]])
    kernel.contiguous(x)
    kernel.allocate_outputs()
    kernel.contiguous(grad)
    rows = x.numel() // width if width else 0
    if not rows or not (rows > 64 * 1024 and width // 32 < MULTIPROCESSORS // 2):
        return
    blocks = min(32 * 1024 // ceil_div(width, 32), ceil_div(rows, 32))
    wants_dx = len(kernel.args) < 8 or kernel.args[7][0]
    weights = kernel.outputs[1 if wants_dx else 0 :]
    for at, out in enumerate(weights):
        kernel.buffer(f"blocks of sums {at}", blocks * width * out.element_size())
    for at, out in enumerate(weights):
        of_blocks = torch.empty(blocks, width, dtype=out.dtype, device="meta")
        kernel.buffer(f"sum {at}", size_of(out))
        vector = 8 if out.element_size() == 2 else 4
        wide = 4 if out.dtype in LOW else out.element_size()
        reduce(kernel, of_blocks, out.view(-1), [0], accumulator=wide, vector=vector)
        kernel.free(f"sum {at}")


@rule("cuda", aten.native_group_norm.default)
def group_norm(kernel: Kernel) -> None:
    """GroupNormKernelImplInternal, group_norm_kernel.cu: a factor and a term of each channel."""
    x, (weight, bias) = kernel.inputs[0], kernel.args[1:3]
    batch, channels, inner = kernel.args[3:6]
    kernel.allocate_outputs()
    if inner > 1 and x.numel() and (weight is not None or bias is not None):
        wide = batch * channels * (4 if x.dtype in LOW else x.element_size())
        kernel.buffer("factors", wide)
        kernel.buffer("terms", wide)


@rule("cuda", aten.native_group_norm_backward.default)
def group_norm_backward(kernel: Kernel) -> None:
    """GroupNormBackwardKernelImplInternal and GroupNorm1dBackward, group_norm_kernel.cu."""
    x, weight = kernel.args[1], kernel.args[4]
    batch, channels, inner, groups, mask = kernel.args[5:10]
    kernel.allocate_outputs()
    if not x.numel():
        return
    wide = 4 if x.dtype in LOW else x.element_size()
    kernel.buffer("sums of dY∘X", batch * channels * wide)
    kernel.buffer("sums of dY", batch * channels * wide)
    if mask[0]:
        kernel.buffer("second factors", batch * groups * wide)
        kernel.buffer("terms", batch * groups * wide)
        if weight is not None and inner > 1:
            kernel.buffer("first factors", batch * channels * wide)
        kernel.free("terms", "second factors")


@rule("cuda", aten.native_batch_norm.default)
def batch_norm(kernel: Kernel) -> None:
    """_batch_norm_impl_index, ../Normalization.cpp, takes cuDNN's for the means of a batch."""
    kernel.allocate_outputs()
    if kernel.args[5] and kernel.inputs[0].ndim > 2:
        kernel.unknown("a workspace of cuDNN's, which a source does not tell")


@rule("cuda", aten._weight_norm_interface.default)
@rule("cuda", aten._weight_norm_interface_backward.default)
def weight_norm(kernel: Kernel) -> None:
    """weight_norm_cuda and weight_norm_backward_cuda, WeightNorm.cu."""
    kernel.allocate_outputs()


@rule("cpu", aten._euclidean_dist.default)
@rule("cuda", aten._euclidean_dist.default)
def euclidean_distance(kernel: Kernel) -> None:
    """_euclidean_dist, ../Distance.cpp: ∥x∥² + ∥y∥² − 2xy, as one product of matrices."""
    for at, x in enumerate(kernel.inputs[:2]):
        norms = size_of(x) // x.shape[-1]
        kernel.buffer("squares", size_of(x))
        kernel.buffer(f"norms {at}", norms)
        kernel.free("squares")
        kernel.buffer(f"ones {at}", norms)
    for at, x in enumerate(kernel.inputs[:2]):
        if not at:
            kernel.buffer("-2x", size_of(x))
        kernel.buffer(f"joined {at}", size_of(x) + 2 * size_of(x) // x.shape[-1])
        kernel.free(f"ones {at}", f"norms {at}", *([] if at else ["-2x"]))
    kernel.allocate_outputs()


@rule("cuda", aten.pow.Scalar)
def power(kernel: Kernel) -> None:
    """pow_Scalar_out, ../Pow.cpp: the base becomes a tensor of one f64 or i64."""
    kernel.allocate(0)
    if kernel.args[0] != 1:
        kernel.buffer("base", 8)


@rule("cuda", aten.roll.default)
def roll(kernel: Kernel) -> None:
    """roll_cuda, TensorTransformations.cu; roll_common rolls axis after axis."""
    x = kernel.inputs[0]
    for axis in range(1, len(kernel.args[1])):
        if axis == 1:
            kernel.contiguous(x)
        kernel.buffer(f"rolled over {axis} axes", size_of(x))
        if axis == 1 and not x.is_contiguous():
            kernel.free("contiguous copy")
    if len(kernel.args[1]) == 1:
        kernel.contiguous(x)
    kernel.allocate(0)


@rule("cuda", aten.unfold_backward.default)
def unfold_backward(kernel: Kernel) -> None:
    """_make_unfold_backward_iter_over_grad_out, ../UnfoldBackward.h: a range over the axis."""
    kernel.allocate(0)
    sizes, dim = kernel.args[1:3]
    kernel.buffer("range", 8 * sizes[dim])


@rule("cuda", aten.log_sigmoid_forward.default)
def log_sigmoid(kernel: Kernel) -> None:
    """log_sigmoid_forward_cuda, Activation.cpp: its second output is the CPU's, here empty."""
    kernel.outputs[1].untyped_storage().resize_(0)
    kernel.allocate(0)
