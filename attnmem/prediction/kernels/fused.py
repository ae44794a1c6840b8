"""What the fused kernels of scaled_dot_product_attention allocate: a rule each.

Places in PyTorch are below aten/src/ATen/native/transformers, where nothing else is said.
"""

import torch

from attnmem.prediction.kernels.rules import Kernel, rule
from attnmem.workload import ceil_div, round_up

aten = torch.ops.aten

MULTIPROCESSORS = 132  # of an H100 SXM and an H200 SXM

# What cuDNN's plan asks for beside the workspace that its open frontend computes. No source tells:
# it is the size of that block in the allocator's history, the same in every cell recorded with
# cuDNN 9.19 on an H100 and an H200.
CUDNN_PLAN = 256


@rule("cuda", aten._scaled_dot_product_flash_attention.default)
def flash(kernel: Kernel) -> None:
    """mha_fwd and num_splits_heuristic, cuda/flash_attn/flash_api.cpp."""
    batch, heads, n, d = kernel.inputs[0].shape
    out, log_sum, state, mask = range(4)
    kernel.allocate(out, log_sum)
    if len(kernel.args) > 3 and kernel.args[3]:  # dropout: a second state of the random generator
        kernel.buffer("random state", 16)
        kernel.allocate(mask, state)
        kernel.free("random state")
        return
    splits = _flash_splits(batch * heads, n, kernel.inputs[1].shape[2], d)
    if splits > 1:
        rows = splits * batch * heads * n
        kernel.buffer("log-sums of the splits", 4 * rows)
        kernel.buffer("outputs of the splits", 4 * rows * _flash_head_dim(d))
    kernel.allocate(state, mask)
    if splits > 1:
        kernel.free("log-sums of the splits", "outputs of the splits")


def _flash_splits(heads: int, n: int, m: int, d: int) -> int:
    """In how many parts the keys are cut so that a short sequence fills the GPU."""
    blocks = ceil_div(m, 256 if d <= 64 else 128 if d <= 128 else 64)
    tiles, slots = heads * ceil_div(n, 64), 2 * MULTIPROCESSORS
    if tiles >= 0.8 * slots:
        return 1
    efficiency = {}
    for splits in range(1, min(128, slots, blocks) + 1):
        if splits == 1 or ceil_div(blocks, splits) != ceil_div(blocks, splits - 1):
            waves = tiles * splits / slots
            efficiency[splits] = waves / ceil_div(tiles * splits, slots)
    best = max(efficiency.values())
    return min(splits for splits, e in efficiency.items() if e >= 0.85 * best)


def _flash_head_dim(d: int) -> int:
    return round_up(d, 32) if d <= 128 else round_up(d, 64)


@rule("cuda", aten._scaled_dot_product_flash_attention_backward.default)
def flash_backward(kernel: Kernel) -> None:
    """_flash_attention_backward, cuda/attention_backward.cu, and mha_bwd."""
    grad, query, out = kernel.inputs[0], kernel.inputs[1], kernel.inputs[4]
    batch, heads, n, d = query.shape
    rows = batch * heads * round_up(n, 128)
    kernel.contiguous(grad.transpose(1, 2), out.transpose(1, 2))
    kernel.allocate(0, 1, 2)
    kernel.buffer("row sums of dO∘O", 4 * rows)
    kernel.buffer("accumulator of dQ", 4 * rows * _flash_head_dim(d))


@rule("cuda", aten._scaled_dot_product_efficient_attention.default)
def efficient(kernel: Kernel) -> None:
    """_efficient_attention_forward, cuda/attention.cu. Its seeds are on the CPU."""
    query, value, out = kernel.inputs[0], kernel.inputs[2], kernel.outputs[0]
    kernel.allocate(0, 1)
    if max(query.shape[-1], value.shape[-1]) > 128 and out.element_size() == 2:
        kernel.buffer("accumulator of O", 4 * out.numel())


@rule("cuda", aten._scaled_dot_product_efficient_attention_backward.default)
def efficient_backward(kernel: Kernel) -> None:
    """_efficient_attention_backward, cuda/attention_backward.cu.

    Its workspace is that of cuda/mem_eff_attention/kernel_backward.h on GPUs since the A100.
    """
    grad, query = kernel.inputs[:2]
    batch, heads, n, d = query.shape
    half = query.element_size() == 2
    if half:
        rows, columns = (64, 64) if d <= 64 else (128, 128) if d <= 128 else (128, 64)
    else:
        rows, columns = (64, 64) if d <= 64 else (128, 64)
    tiles = ceil_div(n, rows) * ceil_div(d, columns)
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
    kernel.buffer("workspace", batch * heads * 4 * tiles * (rows * columns + 4))
    kernel.free("row sums of dO∘O", "workspace")


@rule("cuda", aten._scaled_dot_product_cudnn_attention.default)
def cudnn(kernel: Kernel) -> None:
    """_cudnn_attention_forward, cuda/attention.cu: the seeds come first."""
    out, log_sum, seed, offset = range(4)
    kernel.allocate(seed, offset, out)
    if kernel.args[4]:
        kernel.allocate(log_sum)
    kernel.buffer("workspace", CUDNN_PLAN)


@rule("cuda", aten._scaled_dot_product_cudnn_attention_backward.default)
def cudnn_backward(kernel: Kernel) -> None:
    """run_cudnn_SDP_bprop, native/cudnn/MHA.cpp.

    The workspace is that of cudnn-frontend's node (get_fe_workspace_size_node) and the plan's.
    """
    batch, heads, n, d = kernel.inputs[1].shape
    kernel.allocate(0, 1, 2)
    kernel.buffer("workspace", 4 * batch * heads * n * (d + 1) + CUDNN_PLAN)


def _cpu_queries(n: int) -> int:
    """So many queries a thread takes at a time, and 512 keys."""
    return min(n, 256 if n >= 768 else 64 if n >= 192 else 32)


@rule("cpu", aten._scaled_dot_product_flash_attention_for_cpu.default)
def flash_on_cpu(kernel: Kernel) -> None:
    """cpu_flash_attention, native/cpu/FlashAttentionKernel.cpp, in 32 bit: buffers of threads."""
    query, key = kernel.args[:2]
    queries = _cpu_queries(query.shape[2])
    of_a_thread = queries * (min(512, key.shape[2]) + 2 + query.shape[3])
    kernel.allocate(0, 1)
    kernel.buffer("buffers of the threads", 4 * torch.get_num_threads() * of_a_thread)


@rule("cpu", aten._scaled_dot_product_flash_attention_for_cpu_backward.default)
def flash_on_cpu_backward(kernel: Kernel) -> None:
    """cpu_flash_attention_backward, native/cpu/FlashAttentionKernel.cpp, in 32 bit."""
    query, key = kernel.args[1:3]
    queries = _cpu_queries(query.shape[2])
    tiles = 2 * queries * min(512, key.shape[2])
    kernel.contiguous(kernel.inputs[0].transpose(1, 2))
    kernel.allocate_outputs()
    kernel.buffer("buffers of the threads", 4 * torch.get_num_threads() * tiles)
    kernel.buffer("row sums of dO∘O", 4 * queries)
