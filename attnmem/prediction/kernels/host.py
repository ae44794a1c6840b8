"""What other kernels of a CPU allocate beside their outputs, or are known to, by no rule.

Seen beside the allocator's own events on torch 2.13. Places are below aten/src/ATen/native.
"""

import torch

from attnmem.prediction.kernels.norms import euclidean_distance
from attnmem.prediction.kernels.reductions import LOW
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


@rule("cpu", aten.logsumexp.default)
def logsumexp(kernel: Kernel) -> None:
    """logsumexp_out_impl, ReduceOps.cpp: as on a GPU, and infinity is a number."""
    x, result = kernel.inputs[0], kernel.outputs[0]
    kernel.buffer("maxima", size_of(result))
    kernel.buffer("absolute maxima", size_of(result))
    kernel.buffer("infinity", torch.float64.itemsize)
    kernel.buffer("cast infinity", x.itemsize)
    kernel.buffer("infinite maxima", result.numel())
    kernel.free("infinity", "cast infinity", "infinite maxima", "absolute maxima")
    kernel.buffer("exponentials", size_of(x))
    kernel.allocate(0)
    kernel.free("exponentials")


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
    weights = [out for out in kernel.outputs if out.ndim < x.ndim]
    if weights:
        kernel.buffer("sums of threads", 2 * torch.get_num_threads() * size_of(weights[0]))


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


SCATTERS = [
    getattr(getattr(aten, name + suffix), overload)
    for name, overloads in (
        ("scatter", ("src", "value")),
        ("scatter_add", ("default",)),
        ("scatter_reduce", ("two",)),
    )
    for suffix in ("", "_")
    for overload in overloads
]
ROWS = 16  # threshold in can_use_expanded_index_path, TensorAdvancedIndexing.cpp


@rule("cpu", aten.gather.default, *SCATTERS)
def scattered(kernel: Kernel) -> None:
    """create_acc_buffer, cpu/ScatterGatherKernel.cpp: results in 16 bit are made in 32.

    Of whole rows, each thread makes one at a time; rows that are gathered are copied.
    """
    dim, index = kernel.args[1:3]
    of_rows = dim == 0 and index.stride()[:1] == (1,) and not any(index.stride()[1:])
    gathers = len(kernel.args) < 4 or isinstance(kernel.args[3], bool)
    _in_32_bit(kernel, of_rows, index, gathers)


@rule("cpu", aten.index_add.default, aten.index_add_.default)
def index_add(kernel: Kernel) -> None:
    """``index_add_cpu_``, TensorAdvancedIndexing.cpp: scatters along the first or last."""
    x, dim, _, source = kernel.args[:4]
    if x.ndim > 1 and dim % x.ndim in (0, x.ndim - 1):
        _in_32_bit(kernel, dim % x.ndim == 0, source)
    else:
        kernel.allocate(0)


def _in_32_bit(kernel: Kernel, of_rows: bool, index: torch.Tensor, gathers: bool = False) -> None:
    out = kernel.outputs[0]
    kernel.allocate(0)
    if out.dtype not in LOW or not index.numel():
        return
    row = index.numel() // index.shape[0] if index.ndim else 1
    if not (of_rows and out.is_contiguous()):
        kernel.buffer("results in 32 bit", 4 * out.numel())
    elif not gathers:
        threads = torch.get_num_threads()
        kernel.buffer("rows in 32 bit", 4 * (threads * row if row >= ROWS else out.numel()))


@rule("cpu", aten._euclidean_dist.default)
def distances(kernel: Kernel) -> None:
    """As on a GPU."""
    euclidean_distance(kernel)


@rule("cpu", aten.repeat.default)
def repeat(kernel: Kernel) -> None:
    """Four small tensors of sizes, which the allocator's events show for any shape."""
    sizes = 8 * kernel.outputs[0].ndim
    kernel.allocate(0)
    kernel.buffer("sizes", sizes)
    kernel.buffer("a size", 8)
    kernel.buffer("more sizes", sizes)
    kernel.free("a size")
    kernel.buffer("sizes and strides", 2 * sizes)
    kernel.free("sizes", "more sizes", "sizes and strides")


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
