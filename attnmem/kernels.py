"""What kernels allocate and no dispatch mode sees: their own buffers, and the order of outputs.

One rule for each operation, each with the place in PyTorch's aten/src/ATen/native that it comes
from. Checked on torch 2.11 with an H100; sizes that depend on the GPU are those of its generation.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from attnmem.memory import SCALE_BYTES

aten = torch.ops.aten
Tensors = Sequence[torch.Tensor]

# What a kernel does, in order: it allocates an output of the operation (its index) or a buffer of
# its own (label, bytes), or frees such a buffer (its label). What is left it frees at its end.
Allocations = list[int | tuple[str, int] | str]
Rule = Callable[[Sequence[Any], Tensors, Tensors], Allocations]

NUMBER = "number"
MULTIPROCESSORS = 132  # of an H100 SXM and an H200 SXM


def allocations(
    op: Any, args: Sequence[Any], inputs: Tensors, outputs: Tensors, device: str
) -> Allocations:
    """What the kernel of ``op`` does on ``device``. Most allocate their outputs, in order.

    Warns, with the name of ``op``, where it is known to allocate what is not known here.
    """
    if device == "cuda" and op.overloadpacket in UNKNOWN:
        warnings.warn(
            f"{op.overloadpacket} allocates {UNKNOWN[op.overloadpacket]}; the trace leaves it out",
            stacklevel=2,
        )
    rule = (CUDA if device == "cuda" else CPU).get(op)
    found: Allocations = [*range(len(outputs))]
    if rule:
        found = rule(args, inputs, outputs)
    if device == "cpu" and op.overloadpacket in ARITHMETIC and _has_number(args):
        # The number becomes a tensor of one f64, and one of the operation's dtype
        # (TensorIterator.cpp). On a GPU both stay in CPU memory.
        return [(NUMBER, SCALE_BYTES), ("cast number", inputs[0].element_size()), *found]
    return found


def _has_number(args: Sequence[Any]) -> bool:
    return len(args) > 1 and isinstance(args[1], int | float) and not isinstance(args[1], bool)


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _copies(tensors: Tensors) -> list[tuple[str, int]]:
    return [("contiguous copy", _bytes(x)) for x in tensors if not x.is_contiguous()]


def _softmax(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """softmax_cuda_out, cuda/SoftMax.cu."""
    return [0, *_copies(inputs)]


def _softmax_backward(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """``Tensor tmp = grad * output`` in softmax_backward_cuda_out, cuda/SoftMax.cu."""
    grad, output = inputs[:2]
    dtype = torch.promote_types(grad.dtype, output.dtype)
    return [0, ("temporary inside softmax backward", output.numel() * dtype.itemsize)]


def _native_dropout(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """The mask comes first: dropout_cuda, cuda/Dropout.cu."""
    return [1, 0]


def _safe_softmax(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """Looks for rows that are masked out whole: _safe_softmax, transformers/attention.cpp."""
    scores = inputs[0]
    return [
        0,
        ("mask inside safe softmax", scores.numel()),
        ("masked rows inside safe softmax", scores.numel() // scores.shape[-1]),
        ("zero inside safe softmax", outputs[0].element_size()),
    ]


def _bmm(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """Copies operands that cuBLAS can't read: prepare_batch_matrix_for_cublas, cuda/Blas.cpp."""

    def readable(x: torch.Tensor) -> bool:
        _, rows, columns = x.shape
        _, row, column = x.stride()
        by_rows = column == 1 and row >= max(1, columns)
        return by_rows or (row == 1 and column >= max(1, rows)) or x.is_contiguous()

    return [0, *(("copy inside bmm", _bytes(x)) for x in inputs[-2:] if not readable(x))]


def _flash(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """mha_fwd and num_splits_heuristic, cuda/flash_attn/flash_api.cpp."""
    batch, heads, n, d = inputs[0].shape
    splits = _flash_splits(batch * heads, n, inputs[1].shape[2], d)
    if splits == 1 or (len(args) > 3 and args[3]):
        return [0, 1, 2, 3]
    rows = splits * batch * heads * n
    accumulators: Allocations = [
        ("log-sums of the splits", 4 * rows),
        ("outputs of the splits", 4 * rows * _flash_head_dim(d)),
    ]
    return [0, 1, *accumulators, 2, 3, "log-sums of the splits", "outputs of the splits"]


def _flash_splits(heads: int, n: int, m: int, d: int) -> int:
    """In how many parts the keys are cut so that a short sequence fills the GPU."""
    blocks = _up(m, width := 256 if d <= 64 else 128 if d <= 128 else 64) // width
    tiles, slots = heads * (_up(n, 64) // 64), 2 * MULTIPROCESSORS
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
    return _up(d, 32) if d <= 128 else _up(d, 64)


def _flash_backward(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """_flash_attention_backward, transformers/cuda/attention_backward.cu, and mha_bwd."""
    grad, query, out = inputs[0], inputs[1], inputs[4]
    batch, heads, n, d = query.shape
    rows = batch * heads * _up(n, 128)
    return [
        *_copies([grad.transpose(1, 2), out.transpose(1, 2)]),
        0,
        1,
        2,
        ("row sums of dO∘O", 4 * rows),
        ("accumulator of dQ", 4 * rows * _flash_head_dim(d)),
    ]


def _efficient(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """_efficient_attention_forward, transformers/cuda/attention.cu. Its seeds are on the CPU."""
    value, out = inputs[2], outputs[0]
    wide = max(inputs[0].shape[-1], value.shape[-1]) > 128 and out.element_size() == 2
    return [0, 1, *([("accumulator of O", 4 * out.numel())] if wide else [])]


def _efficient_backward(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """_efficient_attention_backward, transformers/cuda/attention_backward.cu.

    Its workspace is that of mem_eff_attention/kernel_backward.h on GPUs since the A100.
    """
    grad, query = inputs[:2]
    batch, heads, n, d = query.shape
    half = query.element_size() == 2
    if half:
        rows, columns = (64, 64) if d <= 64 else (128, 128) if d <= 128 else (128, 64)
    else:
        rows, columns = (64, 64) if d <= 64 else (128, 64)
    tiles = (_up(n, rows) // rows) * (_up(d, columns) // columns)
    workspace = batch * heads * 4 * tiles * (rows * columns + 4)
    sums = 4 * batch * heads * n
    found: Allocations = [*_copies([grad.transpose(1, 2)]), *range(len(outputs))]
    if half:
        found += [("row sums of dO∘O", sums)]
    elif n == 1 or heads == 1:
        found += [("dO∘O", 4 * grad.numel()), ("row sums of dO∘O", sums), "dO∘O"]
    else:  # the sums come out in another order, and are copied
        found += [("dO∘O", 4 * grad.numel()), ("sums", sums), ("row sums of dO∘O", sums)]
        found += ["sums", "dO∘O"]
    return [*found, ("workspace", workspace), "row sums of dO∘O", "workspace"]


def _cudnn(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """_cudnn_attention_forward, transformers/cuda/attention.cu: the seeds come first."""
    out, log_sum, seed, offset = range(4)
    return [seed, offset, out, *([log_sum] if args[4] else [])]


def _cudnn_backward(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """run_cudnn_SDP_bprop, cudnn/MHA.cpp.

    The workspace is that of cudnn-frontend's node (get_fe_workspace_size_node).
    """
    batch, heads, n, d = inputs[1].shape
    return [0, 1, 2, ("workspace", 4 * batch * heads * n * (d + 1))]


ARITHMETIC = {
    getattr(aten, name + suffix) for name in ("add", "sub", "mul", "div") for suffix in ("", "_")
}
CPU: dict[Any, Rule] = {aten._safe_softmax.default: _safe_softmax}
CUDA: dict[Any, Rule] = CPU | {
    aten._softmax.default: _softmax,
    aten._softmax_backward_data.default: _softmax_backward,
    aten.native_dropout.default: _native_dropout,
    aten.bmm.default: _bmm,
    aten._scaled_dot_product_flash_attention.default: _flash,
    aten._scaled_dot_product_flash_attention_backward.default: _flash_backward,
    aten._scaled_dot_product_efficient_attention.default: _efficient,
    aten._scaled_dot_product_efficient_attention_backward.default: _efficient_backward,
    aten._scaled_dot_product_cudnn_attention.default: _cudnn,
    aten._scaled_dot_product_cudnn_attention_backward.default: _cudnn_backward,
}
UNKNOWN = {
    aten._scaled_dot_product_cudnn_attention: "a workspace whose size only cuDNN knows",
    aten._scaled_dot_product_cudnn_attention_backward: "some more workspace, as only cuDNN knows",
    aten.sort: "buffers for sorting",
    aten.topk: "buffers for sorting",
    aten.logsumexp: "a copy of its input",
    aten.cumsum: "buffers for scanning",
}
