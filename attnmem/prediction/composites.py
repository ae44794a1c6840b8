"""Operations that are one kernel, or another path, on a GPU, and several on shapes alone."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from attnmem.prediction.choice import kernel_for
from attnmem.prediction.refusal import refuse, warn

FAST_PATH = (
    "{} takes a fast path in eval() that a prediction can't follow. Switch it off with "
    "torch.backends.mha.set_fastpath_enabled(False), for the run on the device too"
)


@torch.library.custom_op("attnmem::rms_norm", mutates_args=())
def fused_rms_norm(
    x: torch.Tensor, shape: Sequence[int], weight: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """``_fused_rms_norm_cuda``, native/cuda/layer_norm_kernel.cu: the result, and 1/rms of rows."""
    rows = x.shape[: x.dim() - len(shape)] + (1,) * len(shape)
    kept = torch.float32 if x.dtype != torch.float64 else x.dtype
    return torch.empty_like(x, memory_format=torch.contiguous_format), x.new_empty(rows, dtype=kept)


@torch.library.custom_op("attnmem::rms_norm_backward", mutates_args=())
def fused_rms_norm_backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """``_fused_rms_norm_backward_cuda``, likewise: the gradients of the input and the weight."""
    like = weight if weight is not None else x.new_empty(0)
    return torch.empty_like(x, memory_format=torch.contiguous_format), torch.empty_like(like)


fused_rms_norm.register_fake(fused_rms_norm._init_fn)
fused_rms_norm_backward.register_fake(fused_rms_norm_backward._init_fn)


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    x, _, weight = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, weight, output[1])


def _backward(ctx: Any, grad: torch.Tensor, _: Any) -> Any:
    x, weight, _ = ctx.saved_tensors
    dx, dweight = torch.ops.attnmem.rms_norm_backward(grad, x, weight)
    return dx, None, dweight if weight is not None else None


fused_rms_norm.register_autograd(_backward, setup_context=_keep)


def rms_norm(
    input: torch.Tensor,
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None = None,
    eps: float | None = None,
) -> Any:
    """rms_norm_symint, native/layer_norm.cpp: on a GPU one kernel, unless dtypes differ."""
    if weight is not None and weight.dtype != input.dtype:
        return NotImplemented
    return torch.ops.attnmem.rms_norm(input, normalized_shape, weight)[0]


def multi_head_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    embed_dim: int,
    num_head: int,
    qkv_weight: torch.Tensor,
    qkv_bias: torch.Tensor,
    proj_weight: torch.Tensor,
    proj_bias: torch.Tensor,
    mask: torch.Tensor | None = None,
    need_weights: bool = True,
    average_attn_weights: bool = True,
    mask_type: int | None = None,
) -> Any:
    """native_multi_head_attention_cuda, transformers/cuda/attention.cu, with a fused kernel."""

    def heads(x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:-1], num_head, -1).transpose(1, 2)

    alone = query is key and key is value and not need_weights and mask is None
    kernel = kernel_for(heads(query), heads(key), heads(value)).kernel
    if not alone or embed_dim // num_head % 8 or kernel in (None, "math"):
        raise refuse(FAST_PATH.format("nn.MultiheadAttention"))
    q, k, v = map(heads, F.linear(query, qkv_weight, qkv_bias).chunk(3, -1))
    attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(query.shape)
    return F.linear(attended, proj_weight, proj_bias), None


def multi_head_attention_on_cpu(*_: Any, **__: Any) -> Any:
    """``native_multi_head_attention_cpu``, transformers/attention.cpp."""
    raise refuse(FAST_PATH.format("nn.MultiheadAttention"))


def encoder_layer(*_: Any, **__: Any) -> Any:
    """``nn.TransformerEncoderLayer`` in ``eval()``: transformers/transformer.cpp."""
    raise refuse(FAST_PATH.format("nn.TransformerEncoderLayer"))


def einsum(equation: str, operands: Sequence[torch.Tensor], **_: Any) -> Any:
    """torch.functional.einsum: opt_einsum chooses the order of products, if it is installed."""
    optimizer = torch.backends.opt_einsum
    if len(operands) > 2 and (optimizer.enabled or not optimizer.is_available()):
        warn(
            "a product of three tensors or more in einsum goes in another order where the package "
            f"opt_einsum is installed, as it is {'' if optimizer.is_available() else 'not '}here; "
            "the trace takes the order of here"
        )
    return NotImplemented
