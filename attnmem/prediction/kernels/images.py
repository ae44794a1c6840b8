"""What pools, samples, pads and convolves images allocates on CUDA beside outputs: a rule each.

Places in PyTorch are below aten/src/ATen/native/cuda. What these kernels read must be dense, in the
order that its strides suggest: with channels last, or first.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch._prims_common import suggest_memory_format

from attnmem.prediction.kernels.rules import Kernel, rule, size_of

aten = torch.ops.aten

READ_DENSE = [
    getattr(aten, name).default
    for name in (
        *("avg_pool2d", "max_pool2d_with_indices", "upsample_bilinear2d_backward"),
        *("upsample_nearest1d", "upsample_nearest2d"),
        *("_upsample_nearest_exact1d", "_upsample_nearest_exact2d"),
        *("upsample_nearest1d_backward", "upsample_nearest2d_backward"),
        *("_upsample_nearest_exact1d_backward", "_upsample_nearest_exact2d_backward"),
    )
]
CHANNELS_FIRST = [
    getattr(aten, name).default
    for name in (
        *("reflection_pad1d", "reflection_pad2d", "reflection_pad1d_backward"),
        *("reflection_pad2d_backward", "upsample_bicubic2d_backward"),
        *("upsample_linear1d_backward", "upsample_trilinear3d_backward"),
    )
]


def _dense(kernel: Kernel, x: torch.Tensor, like: torch.Tensor) -> None:
    """A copy of ``x``, unless it is dense in the order that the strides of ``like`` suggest."""
    if not x.is_contiguous(memory_format=suggest_memory_format(like)):
        kernel.buffer("contiguous copy", size_of(x))


@rule("cuda", *READ_DENSE)
def reading_dense(kernel: Kernel) -> None:
    """DilatedMaxPool2d.cu, AveragePool2d.cu, UpSampleNearest*.cu, UpSampleBilinear2d.cu."""
    kernel.allocate_outputs()
    _dense(kernel, kernel.inputs[0], kernel.inputs[0])


@rule("cuda", *CHANNELS_FIRST)
def reading_channels_first(kernel: Kernel) -> None:
    """ReflectionPad.cu, UpSampleBicubic2d.cu, UpSampleLinear1d.cu, UpSampleTrilinear3d.cu."""
    kernel.allocate_outputs()
    kernel.contiguous(kernel.inputs[0])


@rule("cuda", aten.avg_pool2d_backward.default, aten.max_pool2d_with_indices_backward.default)
def pool_backward(kernel: Kernel) -> None:
    """AveragePool2d.cu and DilatedMaxPool2d.cu: the gradient is read as the input is."""
    grad, x = kernel.inputs[:2]
    kernel.allocate_outputs()
    _dense(kernel, x, x)
    _dense(kernel, grad, x)


@rule("cuda", aten._adaptive_avg_pool2d.default)
def adaptive_pool(kernel: Kernel) -> None:
    """adaptive_avg_pool2d_out_cuda_template, AdaptiveAveragePooling.cu: channels last as it is."""
    x = kernel.inputs[0]
    if x.ndim == 4 and suggest_memory_format(x) != torch.channels_last:
        kernel.contiguous(x)
    kernel.allocate(0)


@rule("cuda", aten._adaptive_avg_pool2d_backward.default)
def adaptive_pool_backward(kernel: Kernel) -> None:
    """adaptive_avg_pool2d_backward_out_cuda_template, AdaptiveAveragePooling.cu."""
    grad, x = kernel.inputs[:2]
    kernel.allocate(0)
    if suggest_memory_format(x) != torch.channels_last:
        kernel.contiguous(grad)


@rule("cuda", aten.im2col.default, aten.col2im.default)
def windows(kernel: Kernel) -> None:
    """im2col_cuda, Im2Col.cu, and col2im_cuda, Col2Im.cu: made as large as the input, and resized.

    A result that is smaller keeps the memory that it was made with.
    """
    x, out = kernel.inputs[0], kernel.outputs[0]
    larger = size_of(out) > size_of(x)
    if larger:
        kernel.buffer("result as large as the input", size_of(x))
    else:
        out.untyped_storage().resize_(size_of(x))
        kernel.allocate(0)
    kernel.contiguous(x)
    if larger:
        kernel.allocate(0)
        kernel.free("result as large as the input")


def _is_cudnn_s(x: torch.Tensor, grid: torch.Tensor, options: Sequence[Any]) -> bool:
    """grid_sampler, ../GridSampler.cpp: bilinear, zeros around, aligned corners, 1,024 channels."""
    kinds = {x.dtype, grid.dtype} <= {torch.float16, torch.float32, torch.float64}
    return kinds and list(options[:3]) == [0, 0, True] and x.shape[1] <= 1024


def _without_zero_strides(kernel: Kernel, x: torch.Tensor) -> None:
    """contiguousIfZeroInStrides, aten/src/ATen/cudnn/Utils.h."""
    if 0 in x.stride():
        kernel.buffer("contiguous copy", size_of(x))


@rule("cuda", aten.grid_sampler_2d.default)
def grid_sampler(kernel: Kernel) -> None:
    """cudnn_grid_sampler_forward, ../cudnn/GridSampler.cpp; GridSampler.cu copies nothing."""
    x, grid = kernel.inputs[:2]
    if _is_cudnn_s(x, grid, kernel.args[2:]):
        _without_zero_strides(kernel, x)
        kernel.contiguous(grid)
    kernel.allocate(0)


@rule("cuda", aten.grid_sampler_2d_backward.default)
def grid_sampler_backward(kernel: Kernel) -> None:
    """cudnn_grid_sampler_backward, likewise: it computes both gradients."""
    grad, x, grid = kernel.inputs[:3]
    cudnn = _is_cudnn_s(x, grid, kernel.args[3:])
    if cudnn:
        _without_zero_strides(kernel, x)
        kernel.contiguous(grid)
        _without_zero_strides(kernel, grad)
    kernel.allocate_outputs()
    if cudnn and len(kernel.outputs) == 1:
        kernel.buffer("gradient of the input", size_of(x))


@rule("cuda", aten.convolution.default)
def convolution(kernel: Kernel) -> None:
    """_convolution, ../Convolution.cpp, and cudnn_conv_suggest_memory_format, ../ConvUtils.h."""
    x, weight = kernel.inputs[:2]
    if x.ndim == 4:
        last = torch.channels_last in map(suggest_memory_format, (x, weight))
        order = torch.channels_last if last else torch.contiguous_format
        for operand in (x, weight):
            if not operand.is_contiguous(memory_format=order):
                kernel.buffer("contiguous copy", size_of(operand))
    else:
        kernel.contiguous(x)
    kernel.allocate(0)
    kernel.unknown("a workspace of cuDNN's, which no source tells")
