"""What other kernels of a CPU allocate beside their outputs, or are known to, by no rule.

Seen beside the allocator's own events on torch 2.13. Places are below aten/src/ATen/native.
"""

import torch

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


@rule("cpu", aten.abs.default)
def absolute(kernel: Kernel) -> None:
    """Of complex numbers it makes complex ones, and takes their real part: abs, UnaryOps.cpp."""
    kernel.allocate(0)
    if kernel.inputs[0].is_complex():
        kernel.unknown("complex numbers before it takes their real part")


@rule(
    "cpu",
    *(aten.mse_loss.default, aten.smooth_l1_loss.default, aten.huber_loss.default),
    *(aten.binary_cross_entropy.default, aten.binary_cross_entropy_with_logits.default),
    aten.binary_cross_entropy_backward.default,
    *(aten.avg_pool2d_backward.default, aten._adaptive_avg_pool2d_backward.default),
    *(aten.convolution.default, aten.convolution_backward.default),
    *(aten.native_batch_norm.default, aten.native_batch_norm_backward.default),
    *(aten.im2col.default, aten.col2im.default),
    *(aten.kthvalue.default, aten.sort.default, aten.sort.stable),
    aten.masked_scatter_backward.default,
    *(aten._fft_r2c.default, aten._fft_c2c.default, aten._fft_c2r.default),
)
def more(kernel: Kernel) -> None:
    """These were seen to."""
    kernel.allocate_outputs()
    kernel.unknown("more than its outputs on a CPU")
