"""What kernels allocate and no dispatch mode sees: their own buffers, and the order of outputs.

A rule for each operation, with the place in PyTorch's source that it comes from. Checked on torch
2.11 with an H100 and an H200, whose generation sizes that depend on the GPU are of, and for the
CPU on torch 2.13.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from attnmem.prediction.kernels import fused, ordinary
from attnmem.prediction.kernels.ordinary import NUMBER
from attnmem.prediction.kernels.rules import RULES, Kernel, Tensors

__all__ = ["NUMBER", "UNKNOWN", "fused", "kernel_of", "ordinary"]

aten = torch.ops.aten

# What is known to be allocated, and not how much of it.
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


def kernel_of(
    op: Any, args: Sequence[Any], inputs: Tensors, outputs: Tensors, device: str
) -> Kernel:
    """The kernel that ``op`` is on ``device``, with what it allocates: see :class:`Kernel`.

    Without a rule it allocates its outputs, in order. Warns, with the name of ``op``, where it is
    known to allocate what is not known here.
    """
    if device == "cuda" and op in UNKNOWN:
        warnings.warn(f"{op} allocates {UNKNOWN[op]}; the trace leaves it out", stacklevel=2)
    kernel = Kernel(args, inputs, outputs)
    RULES[device].get(op, Kernel.allocate_outputs)(kernel)
    return kernel
