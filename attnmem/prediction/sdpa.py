"""Which kernel scaled_dot_product_attention takes on a device."""

import collections
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

aten = torch.ops.aten


def attention(
    device: str,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Take the kernel that PyTorch takes on ``device``, ``"cuda"`` or ``"cpu"``."""
    choose = _on_cuda if device == "cuda" else _on_cpu
    options: dict[str, Any] = {"dropout_p": dropout_p, "is_causal": is_causal, "scale": scale}
    return choose(query, key, value, attn_mask, enable_gqa, options)


def _on_cuda(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    enable_gqa: bool,
    options: dict[str, Any],
) -> Any:
    """select_sdp_backend, transformers/cuda/sdp_utils.cpp."""
    mask = _additive(mask, query.dtype)  # here, for no caller may hold it when it is padded
    d, half = query.shape[-1], query.element_size() == 2
    training = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    plain = query.ndim == 4 and value.shape[-1] == d and not enable_gqa
    cuda: Any = torch.backends.cuda
    if cuda.cudnn_sdp_enabled() and plain and half and d % 8 == 0 and d <= 256:
        if cuda.flash_sdp_enabled() or cuda.mem_efficient_sdp_enabled():
            warnings.warn(
                "scaled_dot_product_attention takes cuDNN on Hopper and Blackwell if its version "
                "is above 9.15, else another kernel; the trace takes cuDNN. Choose with "
                "torch.nn.attention.sdpa_kernel",
                stacklevel=3,
            )
        return _first(
            aten._scaled_dot_product_cudnn_attention(query, key, value, mask, training, **options)
        )
    if cuda.flash_sdp_enabled() and plain and half and d <= 256 and mask is None:
        pad = -d % 8  # pad_last_dim in transformers/attention.cpp
        if pad:
            query, key, value = (F.pad(x, (0, pad)) for x in (query, key, value))
            if options["scale"] is None:
                options = options | {"scale": 1 / math.sqrt(d)}
        out = _first(aten._scaled_dot_product_flash_attention(query, key, value, **options))
        return out[..., :d] if pad else out
    if cuda.mem_efficient_sdp_enabled() and plain and d % (8 if half else 4) == 0:
        mask = _padded(mask)
        return _first(
            aten._scaled_dot_product_efficient_attention(
                query, key, value, mask, training, **options
            )
        )
    if not cuda.math_sdp_enabled():
        raise RuntimeError("no enabled kernel of scaled_dot_product_attention takes these inputs")
    return _math(query, key, value, mask, enable_gqa, **options)


def _on_cpu(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    enable_gqa: bool,
    options: dict[str, Any],
) -> Any:
    """select_sdp_backend_cpp, transformers/sdp_utils_cpp.cpp."""
    mask = _additive(mask, query.dtype)
    enabled = torch.backends.cuda.flash_sdp_enabled()  # type: ignore[no-untyped-call]
    plain = query.ndim == 4 and query.shape[-1] == value.shape[-1] and not enable_gqa
    if not enabled or not plain or options["dropout_p"]:
        return _math(query, key, value, mask, enable_gqa, **options)
    if query.dtype.itemsize == 2:
        warnings.warn(
            "scaled_dot_product_attention packs 16-bit matrices on some CPUs; the trace leaves "
            "that out. Choose a kernel with torch.nn.attention.sdpa_kernel",
            stacklevel=3,
        )
    return _first(
        aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, attn_mask=mask, **options
        )
    )


def _math(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    enable_gqa: bool,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
) -> torch.Tensor:
    """_scaled_dot_product_attention_math of transformers/attention.cpp, as it goes on a device.

    PyTorch's own adds the mask out of place where it sees a dispatch mode, and has another dropout
    for tensors without data.
    """
    if mask is None and not is_causal and not dropout_p:
        return aten._scaled_dot_product_attention_math(  # type: ignore[no-any-return]
            query, key, value, scale=scale, enable_gqa=enable_gqa
        )[0]
    root = math.sqrt(1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    half = query.dtype.itemsize == 2
    q, k, v = (x.float() if half else x for x in (query, key, value))
    scaled = aten.mul.Scalar(q, root)  # not q * root: that would keep the number for backward
    if is_causal:
        shape = q.shape[-2], k.shape[-2]
        mask = torch.ones(shape, dtype=torch.bool, device=q.device).tril()
        mask = _additive(mask, q.dtype)
    weights = scaled @ aten.mul.Scalar(k.transpose(-2, -1), root)
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


def _additive(mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """A mask to add, of a bool one: convert_boolean_attn_mask, transformers/attention.cpp."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.where(mask, 0.0, torch.scalar_tensor(-math.inf, dtype=dtype, device=mask.device))


def _padded(mask: torch.Tensor | None) -> torch.Tensor | None:
    """The kernel wants rows of the mask to begin at multiples of 8: pad_bias, attention.cpp."""
    if mask is None or mask.shape[-1] % 8 == 0:
        return mask
    return F.pad(mask, (0, -mask.shape[-1] % 8))[..., : mask.shape[-1]]
