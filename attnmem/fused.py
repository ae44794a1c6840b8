"""What the fused kernels of scaled_dot_product_attention allocate for themselves.

Rules are those of :mod:`attnmem.kernels`, with their places in PyTorch's aten/src/ATen/native.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

Tensors = Sequence[torch.Tensor]

# What a kernel does, in order: it allocates an output of the operation (its index) or a buffer of
# its own (label, bytes), or frees such a buffer (its label). What is left it frees at its end.
Allocations = list[int | tuple[str, int] | str]
Rule = Callable[[Sequence[Any], Tensors, Tensors], Allocations]

MULTIPROCESSORS = 132  # of an H100 SXM and an H200 SXM

# What cuDNN's plan asks for beside the workspace that its open frontend computes. No source tells:
# it is the size of that block in the allocator's history, the same in every cell recorded with
# cuDNN 9.19 on an H100 and an H200.
CUDNN_PLAN = 256


def size_of(tensor: torch.Tensor) -> int:
    """The bytes of the elements of a tensor.

    Taught in :ref:`memory-programs`.
    """
    return tensor.numel() * tensor.element_size()


def up(size: int, multiple: int) -> int:
    """``size``, rounded up to a multiple.

    Taught in :ref:`memory-programs`.
    """
    return -(-size // multiple) * multiple


def copies(tensors: Tensors) -> list[tuple[str, int]]:
    """The buffers of a kernel that takes contiguous tensors only.

    Taught in :ref:`memory-programs`.
    """
    return [("contiguous copy", size_of(x)) for x in tensors if not x.is_contiguous()]


def flash(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """mha_fwd and num_splits_heuristic, cuda/flash_attn/flash_api.cpp.

    Taught in :ref:`memory-programs`.
    """
    batch, heads, n, d = inputs[0].shape
    if len(args) > 3 and args[3]:  # dropout makes a second state of the random generator
        return [0, 1, ("random state", 16), 3, 2, "random state"]
    splits = _flash_splits(batch * heads, n, inputs[1].shape[2], d)
    if splits == 1:
        return [0, 1, 2, 3]
    rows = splits * batch * heads * n
    accumulators: Allocations = [
        ("log-sums of the splits", 4 * rows),
        ("outputs of the splits", 4 * rows * _flash_head_dim(d)),
    ]
    return [0, 1, *accumulators, 2, 3, "log-sums of the splits", "outputs of the splits"]


def _flash_splits(heads: int, n: int, m: int, d: int) -> int:
    """In how many parts the keys are cut so that a short sequence fills the GPU."""
    blocks = up(m, width := 256 if d <= 64 else 128 if d <= 128 else 64) // width
    tiles, slots = heads * (up(n, 64) // 64), 2 * MULTIPROCESSORS
    if tiles >= 0.8 * slots:
        return 1
    efficiency = {}
    for splits in range(1, min(128, slots, blocks) + 1):
        if splits == 1 or -(-blocks // splits) != -(-blocks // (splits - 1)):
            waves = tiles * splits / slots
            efficiency[splits] = waves / -(-tiles * splits // slots)
    best = max(efficiency.values())
    return min(splits for splits, e in efficiency.items() if e >= 0.85 * best)


def _flash_head_dim(d: int) -> int:
    return up(d, 32) if d <= 128 else up(d, 64)


def flash_backward(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """_flash_attention_backward, transformers/cuda/attention_backward.cu, and mha_bwd.

    Taught in :ref:`memory-programs`.
    """
    grad, query, out = inputs[0], inputs[1], inputs[4]
    batch, heads, n, d = query.shape
    rows = batch * heads * up(n, 128)
    return [
        *copies([grad.transpose(1, 2), out.transpose(1, 2)]),
        0,
        1,
        2,
        ("row sums of dO∘O", 4 * rows),
        ("accumulator of dQ", 4 * rows * _flash_head_dim(d)),
    ]


def efficient(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """_efficient_attention_forward, transformers/cuda/attention.cu. Its seeds are on the CPU.

    Taught in :ref:`memory-programs`.
    """
    value, out = inputs[2], outputs[0]
    wide = max(inputs[0].shape[-1], value.shape[-1]) > 128 and out.element_size() == 2
    return [0, 1, *([("accumulator of O", 4 * out.numel())] if wide else [])]


def efficient_backward(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """_efficient_attention_backward, transformers/cuda/attention_backward.cu.

    Its workspace is that of mem_eff_attention/kernel_backward.h on GPUs since the A100.

    Taught in :ref:`memory-programs`.
    """
    grad, query = inputs[:2]
    batch, heads, n, d = query.shape
    half = query.element_size() == 2
    if half:
        rows, columns = (64, 64) if d <= 64 else (128, 128) if d <= 128 else (128, 64)
    else:
        rows, columns = (64, 64) if d <= 64 else (128, 64)
    tiles = (up(n, rows) // rows) * (up(d, columns) // columns)
    workspace = batch * heads * 4 * tiles * (rows * columns + 4)
    sums = 4 * batch * heads * n
    found: Allocations = [*copies([grad.transpose(1, 2)]), *range(len(outputs))]
    if half:
        found += [("row sums of dO∘O", sums)]
    elif n == 1 or heads == 1:
        found += [("dO∘O", 4 * grad.numel()), ("row sums of dO∘O", sums), "dO∘O"]
    else:  # the sums come out in another order, and are copied
        found += [("dO∘O", 4 * grad.numel()), ("sums", sums), ("row sums of dO∘O", sums)]
        found += ["sums", "dO∘O"]
    return [*found, ("workspace", workspace), "row sums of dO∘O", "workspace"]


def cudnn(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """_cudnn_attention_forward, transformers/cuda/attention.cu: the seeds come first.

    Taught in :ref:`memory-programs`.
    """
    out, log_sum, seed, offset = range(4)
    return [seed, offset, out, *([log_sum] if args[4] else []), ("workspace", CUDNN_PLAN)]


def cudnn_backward(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """run_cudnn_SDP_bprop, cudnn/MHA.cpp.

    The workspace is that of cudnn-frontend's node (get_fe_workspace_size_node) and the plan's.

    Taught in :ref:`memory-programs`.
    """
    batch, heads, n, d = inputs[1].shape
    return [0, 1, 2, ("workspace", 4 * batch * heads * n * (d + 1) + CUDNN_PLAN)]


def _cpu_tiles(args: Sequence[Any]) -> int:
    """The scores that a thread holds at a time: those of some queries and some keys."""
    n, m = args[0].shape[2], args[1].shape[2]
    return int(_cpu_queries(n) * min(512, m))


def _cpu_queries(n: int) -> int:
    return min(n, 256 if n >= 768 else 64 if n >= 192 else 32)


def flash_on_cpu(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """cpu_flash_attention, cpu/FlashAttentionKernel.cpp, in 32 bit: a buffer for each thread.

    Taught in :ref:`memory-programs`.
    """
    queries = _cpu_queries(args[0].shape[2])
    rows = queries * (2 + args[0].shape[3])
    size = 4 * torch.get_num_threads() * (_cpu_tiles(args) + rows)
    return [0, 1, ("buffers of the threads", size)]


def flash_on_cpu_backward(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """cpu_flash_attention_backward, cpu/FlashAttentionKernel.cpp, in 32 bit.

    Taught in :ref:`memory-programs`.
    """
    tiles = 2 * 4 * torch.get_num_threads() * _cpu_tiles(args[1:])
    return [
        *copies([inputs[0].transpose(1, 2)]),
        *range(len(outputs)),
        ("buffers of the threads", tiles),
        ("row sums of dO∘O", 4 * _cpu_queries(args[1].shape[2])),
    ]
