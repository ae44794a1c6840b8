"""scaled_dot_product_attention on CUDA: which kernel it takes, and what that allocates.

Rules are those of :mod:`attnmem.kernels`, with their places in PyTorch's aten/src/ATen/native.
"""

import collections
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

aten = torch.ops.aten
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


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Choose a kernel as select_sdp_backend in transformers/cuda/sdp_utils.cpp does."""
    d, half = query.shape[-1], query.element_size() == 2
    training = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    common: dict[str, Any] = {"dropout_p": dropout_p, "is_causal": is_causal, "scale": scale}
    plain = query.ndim == 4 and value.shape[-1] == d and not enable_gqa
    cuda: Any = torch.backends.cuda
    flash = cuda.flash_sdp_enabled() and plain and half and d <= 256 and attn_mask is None
    cudnn = cuda.cudnn_sdp_enabled() and plain and half and d % 8 == 0 and d <= 256
    if attn_mask is not None:
        attn_mask = _additive(attn_mask, query.dtype)
    if cudnn:
        if cuda.flash_sdp_enabled() or cuda.mem_efficient_sdp_enabled():
            warnings.warn(
                "scaled_dot_product_attention takes cuDNN on Hopper and Blackwell if its version "
                "is above 9.15, else another kernel; the trace takes cuDNN. Choose with "
                "torch.nn.attention.sdpa_kernel",
                stacklevel=2,
            )
        return _first(
            aten._scaled_dot_product_cudnn_attention(
                query, key, value, attn_mask, training, **common
            )
        )
    if flash:
        pad = -d % 8  # pad_last_dim in transformers/attention.cpp
        if pad:
            query, key, value = (F.pad(x, (0, pad)) for x in (query, key, value))
            common["scale"] = 1 / math.sqrt(d) if scale is None else scale
        out = _first(aten._scaled_dot_product_flash_attention(query, key, value, **common))
        return out[..., :d] if pad else out
    if cuda.mem_efficient_sdp_enabled() and plain and d % (8 if half else 4) == 0:
        attn_mask = _padded(attn_mask)
        return _first(
            aten._scaled_dot_product_efficient_attention(
                query, key, value, attn_mask, training, **common
            )
        )
    if not cuda.math_sdp_enabled():
        raise RuntimeError("no enabled kernel of scaled_dot_product_attention takes these inputs")
    if attn_mask is not None or is_causal or dropout_p:
        return _math(query, key, value, attn_mask, **common)
    return aten._scaled_dot_product_attention_math(
        query, key, value, enable_gqa=enable_gqa, **common
    )[0]


def _math(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
) -> torch.Tensor:
    """_scaled_dot_product_attention_math of transformers/attention.cpp, as it goes on CUDA.

    PyTorch's own adds the mask out of place where it sees a dispatch mode, and has another dropout
    for tensors without data.
    """
    root = math.sqrt(1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    half = query.dtype.itemsize == 2
    q, k, v = (x.float() if half else x for x in (query, key, value))
    scaled = q * root
    if is_causal:
        shape = q.shape[-2], k.shape[-2]
        mask = torch.ones(shape, dtype=torch.bool, device=q.device).tril()
        mask = _additive(mask, q.dtype)
    weights = scaled @ (k.transpose(-2, -1) * root)
    if mask is not None:
        weights += mask
    weights = torch._safe_softmax(weights, -1)
    if dropout_p:
        weights = torch.dropout(weights, dropout_p, True)
    _second_output = weights.to(query.dtype)  # nobody takes it, but it is made
    out = (weights @ v).to(query.dtype)
    del weights, scaled  # the order matters to nobody but a reader of the allocator's history
    return out


def _first(outputs: Sequence[Any]) -> Any:
    """O, of a kernel's outputs. The others end in their order, as in C++."""
    rest = collections.deque(outputs)
    del outputs
    out = rest.popleft()
    while rest:
        rest.popleft()
    return out


def _additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask to add, of a bool one: convert_boolean_attn_mask, transformers/attention.cpp."""
    if mask.dtype != torch.bool:
        return mask
    return torch.where(mask, 0.0, torch.scalar_tensor(-math.inf, dtype=dtype, device=mask.device))


def _padded(mask: torch.Tensor | None) -> torch.Tensor | None:
    """The kernel wants rows of the mask to begin at multiples of 8: pad_bias, attention.cpp."""
    if mask is None or mask.shape[-1] % 8 == 0:
        return mask
    return F.pad(mask, (0, -mask.shape[-1] % 8))[..., : mask.shape[-1]]


def size_of(tensor: torch.Tensor) -> int:
    """The bytes of the elements of a tensor."""
    return tensor.numel() * tensor.element_size()


def up(size: int, multiple: int) -> int:
    """``size``, rounded up to a multiple."""
    return -(-size // multiple) * multiple


def copies(tensors: Tensors) -> list[tuple[str, int]]:
    """The buffers of a kernel that takes contiguous tensors only."""
    return [("contiguous copy", size_of(x)) for x in tensors if not x.is_contiguous()]


def flash(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """mha_fwd and num_splits_heuristic, cuda/flash_attn/flash_api.cpp."""
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
    """_flash_attention_backward, transformers/cuda/attention_backward.cu, and mha_bwd."""
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
    """_efficient_attention_forward, transformers/cuda/attention.cu. Its seeds are on the CPU."""
    value, out = inputs[2], outputs[0]
    wide = max(inputs[0].shape[-1], value.shape[-1]) > 128 and out.element_size() == 2
    return [0, 1, *([("accumulator of O", 4 * out.numel())] if wide else [])]


def efficient_backward(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
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
    """_cudnn_attention_forward, transformers/cuda/attention.cu: the seeds come first."""
    out, log_sum, seed, offset = range(4)
    return [seed, offset, out, *([log_sum] if args[4] else []), ("workspace", CUDNN_PLAN)]


def cudnn_backward(args: Sequence[Any], inputs: Tensors, outputs: Tensors) -> Allocations:
    """run_cudnn_SDP_bprop, cudnn/MHA.cpp.

    The workspace is that of cudnn-frontend's node (get_fe_workspace_size_node) and the plan's.
    """
    batch, heads, n, d = inputs[1].shape
    return [0, 1, 2, ("workspace", 4 * batch * heads * n * (d + 1) + CUDNN_PLAN)]
