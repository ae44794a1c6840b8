"""What softmax, its backward pass, log-sum-exp and dropout allocate beside their outputs.

Places in PyTorch are below aten/src/ATen/native.
"""

import torch

from attnmem.prediction.kernels.reductions import LOW, dims_of, reduce
from attnmem.prediction.kernels.rules import Kernel, rule, size_of

aten = torch.ops.aten


@rule("cuda", aten.logsumexp.default)
def logsumexp(kernel: Kernel) -> None:
    """logsumexp_out_impl, ReduceOps.cpp."""
    x, result = kernel.inputs[0], kernel.outputs[0]
    dims = dims_of(kernel, 1)
    kernel.buffer("maxima", size_of(result))
    reduce(kernel, x, result, dims, accumulator=x.element_size())
    kernel.buffer("absolute maxima", size_of(result))
    kernel.buffer("infinite maxima", result.numel())
    kernel.free("infinite maxima", "absolute maxima")
    kernel.buffer("exponentials", size_of(x))
    kernel.allocate(0)
    wide, vector = (4, 8) if x.dtype in LOW else (x.element_size(), 4)
    reduce(kernel, x, result, dims, accumulator=wide, vector=vector)
    kernel.free("exponentials")


@rule("cuda", aten._softmax.default, aten._log_softmax.default)
def softmax(kernel: Kernel) -> None:
    """host_softmax, cuda/SoftMax.cu."""
    kernel.allocate(0)
    kernel.contiguous(*kernel.inputs)


@rule("cuda", aten._softmax_backward_data.default)
def softmax_backward(kernel: Kernel) -> None:
    """``Tensor tmp = grad * output`` in softmax_backward_cuda_out, cuda/SoftMax.cu."""
    grad, output = kernel.inputs[:2]
    dtype = torch.promote_types(grad.dtype, output.dtype)
    kernel.allocate(0)
    kernel.buffer("temporary inside softmax backward", output.numel() * dtype.itemsize)
    if not (grad.is_contiguous() and output.is_contiguous()):  # else so is their product
        kernel.contiguous(grad * output, output)  # host_softmax_backward


@rule("cuda", aten._log_softmax_backward_data.default)
def log_softmax_backward(kernel: Kernel) -> None:
    """host_softmax_backward, cuda/SoftMax.cu."""
    kernel.allocate(0)
    kernel.contiguous(*kernel.inputs[:2])


@rule("cuda", aten.native_dropout.default)
def dropout(kernel: Kernel) -> None:
    """The mask comes first: dropout_cuda, cuda/Dropout.cu."""
    kernel.allocate(1, 0)


@rule("cuda", aten.bernoulli.default)
def bernoulli(kernel: Kernel) -> None:
    """bernoulli_kernel, cuda/DistributionTemplates.h: chances in 32 or 64 bit."""
    chances = kernel.inputs[0]
    kernel.allocate(0)
    if chances.dtype not in (torch.float32, torch.float64):
        kernel.buffer("chances in 32 bit", 4 * chances.numel())


@rule("cpu", aten._safe_softmax.default)
@rule("cuda", aten._safe_softmax.default)
def safe_softmax(kernel: Kernel) -> None:
    """Looks for rows that are masked out whole: _safe_softmax, transformers/attention.cpp."""
    scores, weights = kernel.inputs[0], kernel.outputs[0]
    kernel.allocate(0)
    kernel.buffer("mask inside safe softmax", scores.numel())
    rows = scores.numel() // scores.shape[kernel.args[1]] if scores.numel() and scores.ndim else 1
    kernel.buffer("masked rows inside safe softmax", rows)
    kernel.buffer("zero inside safe softmax", weights.element_size())
