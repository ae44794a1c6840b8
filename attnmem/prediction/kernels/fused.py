"""What the fused kernels of scaled_dot_product_attention allocate: a rule each.

Places in PyTorch are below aten/src/ATen/native/transformers, where nothing else is said.
"""

from collections.abc import Sequence
from typing import Any

import torch

from attnmem.prediction.kernels.rules import Kernel, rule, size_of
from attnmem.prediction.refusal import warn
from attnmem.prediction.shapes import SHAPES
from attnmem.workload import ceil_div, round_up

aten = torch.ops.aten

MULTIPROCESSORS = 132  # of an H100 SXM and an H200 SXM

# What cuDNN's plan asks for beside the workspace that its open frontend computes. No source tells:
# it is the size of that block in the allocator's history, the same in every cell recorded with
# cuDNN 9.19 on an H100 and an H200; so is the alignment of dK and dV of every head in it.
CUDNN_PLAN = 256
CUDNN_ALIGNMENT = 128
CUDNN_KEYS = 512  # up to so many keys, a plan for one query asks for nothing


@rule("cuda", aten._scaled_dot_product_flash_attention.default)
def flash(kernel: Kernel) -> None:
    """mha_fwd and num_splits_heuristic, cuda/flash_attn/flash_api.cpp."""
    batch, heads, n, d = kernel.inputs[0].shape
    out, log_sum, state, mask = range(4)
    kernel.allocate(out, log_sum)
    dropout = len(kernel.args) > 3 and kernel.args[3]
    groups = kernel.inputs[1].shape[1]
    if n == 1 and groups < heads and not dropout:  # the heads of a group become queries
        heads, n = groups, heads // groups
    if dropout:  # a second state of the random generator
        kernel.buffer("random state", 16)
        kernel.allocate(mask, state)
        kernel.free("random state")
        return
    splits = flash_splits(batch * heads, n, kernel.inputs[1].shape[2], d)
    if splits > 1:
        rows = splits * batch * heads * n
        kernel.buffer("log-sums of the splits", 4 * rows)
        kernel.buffer("outputs of the splits", 4 * rows * flash_head_dim(d))
    kernel.allocate(state, mask)
    if splits > 1:
        kernel.free("log-sums of the splits", "outputs of the splits")


def flash_splits(heads: int, n: int, m: int, d: int) -> int:
    """In how many parts the keys are cut so that a short sequence fills the GPU."""
    blocks = ceil_div(m, 256 if d <= 64 else 128 if d <= 128 else 64)
    tiles, slots = heads * ceil_div(n, 64), 2 * MULTIPROCESSORS
    if not tiles or tiles >= 0.8 * slots:
        return 1
    efficiency = {}
    for splits in range(1, min(128, slots, blocks) + 1):
        if splits == 1 or ceil_div(blocks, splits) != ceil_div(blocks, splits - 1):
            waves = tiles * splits / slots
            efficiency[splits] = waves / ceil_div(tiles * splits, slots)
    best = max(efficiency.values())
    return min(splits for splits, e in efficiency.items() if e >= 0.85 * best)


def flash_head_dim(d: int) -> int:
    """The head dimension of flash's buffers: up to a multiple of 32, above 128 of 64."""
    return round_up(d, 32) if d <= 128 else round_up(d, 64)


@rule("cuda", aten._scaled_dot_product_flash_attention_backward.default)
def flash_backward(kernel: Kernel) -> None:
    """_flash_attention_backward, cuda/attention_backward.cu, and mha_bwd.

    For grouped heads dK and dV are computed for every head of Q, and summed.
    """
    grad, query, key, _, out = kernel.inputs[:5]
    batch, heads, n, d = query.shape
    rows = batch * heads * round_up(n, 128)
    kernel.contiguous(grad.transpose(1, 2), out.transpose(1, 2))
    kernel.allocate(0, 1, 2)
    kernel.buffer("row sums of dO∘O", 4 * rows)
    splits = ceil_div(MULTIPROCESSORS, batch * heads) if _deterministic() else 1
    kernel.buffer("accumulator of dQ", 4 * rows * flash_head_dim(d) * splits)
    if key.shape[1] != heads:
        of_every_head = query.element_size() * batch * heads * key.shape[2] * d
        kernel.buffer("dK of every head", of_every_head)
        kernel.buffer("dV of every head", of_every_head)


def _deterministic() -> bool:
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    return torch.are_deterministic_algorithms_enabled() and not warn_only


@rule("cuda", aten._scaled_dot_product_efficient_attention.default)
def efficient(kernel: Kernel) -> None:
    """_efficient_attention_forward, cuda/attention.cu. Its seeds are on the CPU."""
    query, value, out = kernel.inputs[0], kernel.inputs[2], kernel.outputs[0]
    kernel.allocate(0, 1)
    if max(query.shape[-1], value.shape[-1]) > 128 and out.element_size() == 2:
        kernel.buffer("accumulator of O", 4 * out.numel())


def _efficient_shapes(*args: Any, **options: Any) -> Any:
    """Without the seeds, which are not on the GPU."""
    found = aten._scaled_dot_product_efficient_attention.default(*args, **options)
    return *found[:2], None, None


SHAPES[aten._scaled_dot_product_efficient_attention.default] = _efficient_shapes


@rule("cuda", aten._scaled_dot_product_efficient_attention_backward.default)
def efficient_backward(kernel: Kernel) -> None:
    """_efficient_attention_backward, cuda/attention_backward.cu.

    Its workspace is that of cuda/mem_eff_attention/kernel_backward.h on GPUs since the A100.
    """
    grad, query = kernel.inputs[:2]
    batch, heads, n, _ = query.shape
    half = query.element_size() == 2
    sums = 4 * batch * heads * n
    kernel.contiguous(grad.transpose(1, 2))
    kernel.allocate_outputs()
    if half:
        kernel.buffer("row sums of dO∘O", sums)
    else:
        kernel.buffer("dO∘O", 4 * grad.numel())
        if n == 1 or heads == 1:
            kernel.buffer("row sums of dO∘O", sums)
        else:  # the sums come out in another order, and are copied
            kernel.buffer("sums", sums)
            kernel.buffer("row sums of dO∘O", sums)
            kernel.free("sums")
        kernel.free("dO∘O")
    kernel.buffer("workspace", _efficient_workspace(query, kernel.inputs[3]))
    kernel.free("row sums of dO∘O", "workspace")


def _efficient_workspace(query: torch.Tensor, value: torch.Tensor) -> int:
    """Params::workspace_size: tiles of dQ, and of dK and dV if they do not stay in registers."""
    batch, heads, n, d = query.shape
    m, d_v = value.shape[2:]
    widest, half = max(d, d_v), query.element_size() == 2
    if widest <= 64:
        rows, columns = 64, 64
    else:
        rows, columns = (128, 128) if half and widest <= 128 else (128, 64)
    numbers = ceil_div(n, rows) * ceil_div(d, columns) * (rows * columns + 4)
    if half and widest > 128:
        splits = 1 if _deterministic() else efficient_splits(batch * heads, m)
        numbers += splits * columns * (round_up(d, rows) + round_up(d_v, rows))
    return 4 * batch * heads * numbers


def efficient_splits(heads: int, m: int) -> int:
    """In how many parts, of 64 or more, the keys of wide heads (d > 128, 16 bit) are cut."""
    return max(1, min(ceil_div(m, 64), 200 // max(1, heads)))


@rule("cuda", aten._scaled_dot_product_cudnn_attention.default)
def cudnn(kernel: Kernel) -> None:
    """_cudnn_attention_forward, cuda/attention.cu: the seeds come first."""
    out, log_sum, seed, offset = range(4)
    kernel.allocate(seed, offset, out)
    if kernel.args[4]:
        kernel.allocate(log_sum)
    query, key = kernel.inputs[:2]
    if not all(x.numel() for x in kernel.inputs[:3]):
        return
    if query.shape[2] > 1:
        kernel.buffer("workspace", CUDNN_PLAN)
    elif key.shape[2] > CUDNN_KEYS:
        warn(
            f"cuDNN allocates a workspace for one query and more than {CUDNN_KEYS} keys; the trace "
            "leaves it out. Choose another kernel with torch.nn.attention.sdpa_kernel"
        )


@rule("cuda", aten._scaled_dot_product_cudnn_attention_backward.default)
def cudnn_backward(kernel: Kernel) -> None:
    """run_cudnn_SDP_bprop, native/cudnn/MHA.cpp.

    The workspace is that of cudnn-frontend's node (get_fe_workspace_size_node), softmax_sum and
    dQ_accum, and the plan's. For grouped heads the plan holds dK and dV for every head of Q:
    dK_fullhead and dV_fullhead in cudnn-frontend's scaled_dot_product_flash_attention.h.
    """
    grad, query, key, value = kernel.inputs[:4]
    batch, heads, n, d = query.shape
    kernel.allocate(0, 1, 2)
    if not all(x.numel() for x in kernel.inputs[:4]):
        return
    if grad.stride(-1) != 1:
        kernel.buffer("contiguous copy", size_of(grad))
    of_every_head = sum(
        round_up(size_of(x) // x.shape[1] * heads, CUDNN_ALIGNMENT)
        for x in (key, value)
        if x.shape[1] != heads
    )
    kernel.buffer("workspace", 4 * batch * heads * n * (d + 1) + of_every_head + CUDNN_PLAN)


def _cpu_queries(n: int) -> int:
    """So many queries a thread takes at a time, and 512 keys."""
    return min(n, 256 if n >= 768 else 64 if n >= 192 else 32)


def _copied_on_cpu(kernel: Kernel, masks: Sequence[torch.Tensor]) -> None:
    """A mask whose rows are not dense; one that repeats a number is read as it is."""
    for mask in masks:
        if mask.stride(-1) not in (0, 1):
            kernel.buffer("contiguous copy", size_of(mask))


@rule("cpu", aten._scaled_dot_product_flash_attention_for_cpu.default)
def flash_on_cpu(kernel: Kernel) -> None:
    """cpu_flash_attention, native/cpu/FlashAttentionKernel.cpp, in 32 bit: buffers of threads."""
    query, key = kernel.args[:2]
    queries = _cpu_queries(query.shape[2])
    of_a_thread = queries * (min(512, key.shape[2]) + 2 + query.shape[3])
    kernel.allocate(0, 1)
    _copied_on_cpu(kernel, kernel.inputs[3:])
    kernel.buffer("buffers of the threads", 4 * torch.get_num_threads() * of_a_thread)


@rule("cpu", aten._scaled_dot_product_flash_attention_for_cpu_backward.default)
def flash_on_cpu_backward(kernel: Kernel) -> None:
    """cpu_flash_attention_backward, native/cpu/FlashAttentionKernel.cpp, in 32 bit."""
    query, key = kernel.args[1:3]
    queries = _cpu_queries(query.shape[2])
    tiles = 2 * queries * min(512, key.shape[2])
    kernel.contiguous(kernel.inputs[0].transpose(1, 2))
    kernel.allocate_outputs()
    _copied_on_cpu(kernel, kernel.inputs[6:])
    kernel.buffer("buffers of the threads", 4 * torch.get_num_threads() * tiles)
    kernel.buffer("row sums of dO∘O", 4 * queries)
