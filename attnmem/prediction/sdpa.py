"""What scaled_dot_product_attention does on a device: it takes a kernel, and prepares its inputs.

Places in PyTorch are in transformers/attention.cpp, where nothing else is said.
"""

import collections
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from attnmem.prediction.choice import Choice, kernel_for, known_cudnn
from attnmem.prediction.refusal import warn

aten = torch.ops.aten
Tensor = torch.Tensor
OLDER_CUDNN = 91500  # the newest that PyTorch does not prefer


def attention(
    device: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    capability: tuple[int, int] = (9, 0),
) -> Any:
    """Take the kernel that PyTorch takes on ``device``, ``"cuda"`` or ``"cpu"``.

    ``capability`` is the compute capability of the GPU.
    """
    _validate(query, key, value, attn_mask)
    if torch._C._functorch.is_functorch_wrapped_tensor(query):
        warn(
            "scaled_dot_product_attention under torch.vmap or a transform of torch.func was not "
            "compared with a GPU"
        )
    choose = functools.partial(
        kernel_for,
        query,
        key,
        value,
        attn_mask,
        dropout_p,
        is_causal,
        enable_gqa=enable_gqa,
        device="cuda" if device == "cuda" else "cpu",
        capability=capability,
    )
    choice = choose()
    _warn(choice, choose, device, query.dtype)
    del choose
    mask = _additive(attn_mask, query.dtype)
    del attn_mask  # for no caller may hold what is made of it
    if choice.kernel == "math":
        return _math(query, key, value, mask, enable_gqa, dropout_p, is_causal, scale)
    if choice.kernel is None:
        raise RuntimeError(f"scaled_dot_product_attention: {choice}")
    fused = {"cudnn": _cudnn, "flash": _flash, "efficient": _efficient}[choice.kernel]
    fused = fused if device == "cuda" else _flash_on_cpu
    options: dict[str, Any] = {"dropout_p": dropout_p, "is_causal": is_causal, "scale": scale}
    inputs = [query, key, value, mask]
    del mask
    return fused(inputs, options)


def _warn(choice: Choice, choose: Callable[..., Choice], device: str, dtype: torch.dtype) -> None:
    """Of what the prediction takes for granted."""
    if choice.kernel == "cudnn" and not known_cudnn():
        older = choose(cudnn=OLDER_CUDNN).kernel
        if older != "cudnn":
            warn(
                "scaled_dot_product_attention takes cuDNN on Hopper and Blackwell if its version "
                f"is above 9.15, else {older}; the trace takes cuDNN. Choose with "
                "torch.nn.attention.sdpa_kernel"
            )
    # could_pack, native/CPUBlas.cpp.
    packs = dtype.itemsize == 2 and torch.cpu._is_amx_tile_supported()
    if device == "cpu" and choice.kernel == "flash" and packs:
        warn(
            "scaled_dot_product_attention packs 16-bit matrices on a CPU with AMX; the trace "
            "leaves that out. Choose a kernel with torch.nn.attention.sdpa_kernel"
        )


def _validate(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> None:
    """validate_sdpa_input."""
    inputs = query, key, value
    if len({x.dtype for x in inputs}) > 1:
        raise RuntimeError(f"Q, K and V must have one dtype, got {[x.dtype for x in inputs]}")
    if min(x.ndim for x in inputs) < 2:
        raise RuntimeError(f"Q, K and V must have 2 dimensions, got {[x.ndim for x in inputs]}")
    if mask is not None and mask.dtype not in (torch.bool, torch.float32, query.dtype):
        raise RuntimeError(f"attn_mask must be bool or {query.dtype}, got {mask.dtype}")


def _needs_grad(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """should_compute_logsumexp."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))


Inputs = list[Any]  # Q, K, V and the mask, which _efficient takes out: nothing else may hold it


def _cudnn(inputs: Inputs, options: dict[str, Any]) -> Any:
    query, key, value, mask = inputs
    training = _needs_grad(query, key, value)
    return _first(
        aten._scaled_dot_product_cudnn_attention(query, key, value, mask, training, **options)
    )


def _flash(inputs: Inputs, options: dict[str, Any]) -> Any:
    """pad_last_dim and post_process_flash_output."""
    query, key, value, _ = inputs
    d = query.shape[-1]
    pad = -d % 8
    if pad:
        query, key, value = (F.pad(x, (0, pad)) for x in (query, key, value))
        if options["scale"] is None:
            options = options | {"scale": 1 / math.sqrt(d)}
    out = _first(aten._scaled_dot_product_flash_attention(query, key, value, **options))
    return out[..., :d] if pad else out


def _efficient(inputs: Inputs, options: dict[str, Any]) -> Any:
    query, key, value = inputs[:3]
    training = _needs_grad(query, key, value)
    mask = inputs.pop()
    if mask is not None:
        if mask.dtype != query.dtype:  # _efficient_attention_forward, cuda/attention.cu
            raise RuntimeError(f"attn_mask must be bool or {query.dtype}, got {mask.dtype}")
        mask = _padded(mask).expand(*query.shape[:3], key.shape[2])  # preprocess_mask
    return _first(
        aten._scaled_dot_product_efficient_attention(query, key, value, mask, training, **options)
    )


def _flash_on_cpu(inputs: Inputs, options: dict[str, Any]) -> Any:
    query, key, value, mask = inputs
    return _first(
        aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, attn_mask=mask, **options
        )
    )


def _math(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    enable_gqa: bool,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
) -> Tensor:
    """_scaled_dot_product_attention_math, as it goes on a device.

    PyTorch's own adds the mask out of place where it sees a dispatch mode, be it the recorder or
    that of a selective checkpoint, and has another dropout for tensors without data.
    """
    if mask is None and not is_causal and not dropout_p:
        return aten._scaled_dot_product_attention_math(  # type: ignore[no-any-return]
            query, key, value, scale=scale, enable_gqa=enable_gqa
        )[0]
    root = math.sqrt(1 / math.sqrt(query.shape[-1]) if scale is None else abs(scale))
    cuda: Any = torch.backends.cuda
    wide = query.dtype.itemsize == 2 and not cuda.fp16_bf16_reduction_math_sdp_allowed()
    q, k, v = (x.float() if wide else x for x in (query, key, value))
    # not q * root: that would keep the number for backward
    scaled = aten.mul.Scalar(q, -root if scale is not None and scale < 0 else root)
    if is_causal:
        if mask is not None:
            raise RuntimeError("attn_mask must be None with is_causal=True")
        shape = q.shape[-2], k.shape[-2]
        mask = torch.ones(shape, dtype=torch.bool, device=q.device).tril()
        mask = _additive(mask, q.dtype)
    every_k, every_v = _repeated(q, k, v) if enable_gqa else (k, v)
    weights = scaled @ aten.mul.Scalar(every_k.transpose(-2, -1), root)
    if mask is not None:
        if torch._C._len_torch_dispatch_stack() > 1:  # the program has a mode of its own
            weights = weights + mask
        else:
            weights += mask
    weights = torch._safe_softmax(weights, -1)
    if dropout_p:
        weights = torch.dropout(weights, dropout_p, True)
    second_output = weights.to(query.dtype)  # nobody takes it, but it is made
    out = (weights @ every_v).to(query.dtype)
    del weights, every_v, every_k, scaled, mask, v, k, q, second_output  # as C++ ends them
    return out


def _repeated(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """K and V with the heads of Q: pre_process_group_query_attention_input."""
    heads, of_k, of_v = (x.shape[-3] for x in (q, k, v))
    if heads == of_k == of_v:
        return k, v
    if heads % of_k or heads % of_v:
        raise RuntimeError(f"the heads of K, {of_k}, and of V, {of_v}, must divide Q's, {heads}")
    repeated = k.repeat_interleave(heads // of_k, -3)
    return repeated, v.repeat_interleave(heads // of_v, -3)


def _first(outputs: Sequence[Any]) -> Any:
    """O, of a kernel's outputs. The others end in their order, as in C++."""
    rest = collections.deque(outputs)
    del outputs
    out = rest.popleft()
    while rest:
        rest.popleft()
    return out


def _additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A mask to add, of a bool one: convert_boolean_attn_mask."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.where(mask, 0.0, torch.scalar_tensor(-math.inf, dtype=dtype, device=mask.device))


def _padded(mask: Tensor) -> Tensor:
    """The efficient kernel wants rows to begin at multiples of 8: aligned_tensor and pad_bias."""
    if mask.stride(-1) == 1 and not any(stride % 8 for stride in mask.stride()[:-1]):
        return mask
    return F.pad(mask, (0, 8 - mask.shape[-1] % 8))[..., : mask.shape[-1]]
