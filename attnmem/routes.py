"""The way that some calls go on a device and would not go on tensors without data."""

import contextlib
import functools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten


class Routes(TorchFunctionMode):
    """Sends calls the way that they go on ``device`` and would not go on shapes alone.

    A function mode sees calls of the program itself. It is off inside a backward pass and inside
    functions such as ``F.multi_head_attention_forward``, so the functions are replaced as well,
    for as long as a trace runs.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.routes = CUDA if device == "cuda" else CPU
        self.replaced = contextlib.ExitStack()

    def __enter__(self) -> Any:
        for owner, name in PLACES:
            function = getattr(owner, name)
            if function in self.routes:
                route = functools.partial(self._call, function)
                self.replaced.enter_context(mock.patch.object(owner, name, route))
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self.replaced.close()

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return self._call(function, *args, **(kwargs or {}))

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        route = self.routes.get(function)
        result = route(*args, **kwargs) if route else NotImplemented
        return function(*args, **kwargs) if result is NotImplemented else result


def _softmax(
    input: torch.Tensor, dim: int, dtype: torch.dtype | None = None, *, out: Any = None
) -> Any:
    # Tensor softmax(...) in native/SoftMax.cpp: on CUDA this one cast is fused.
    if input.dtype == torch.float16 and dtype == torch.float32 and out is None:
        return torch._softmax(input, dim, True)
    return NotImplemented


def _functional_softmax(
    input: torch.Tensor,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
) -> Any:
    return NotImplemented if dim is None else _softmax(input, dim, dtype)


def _dropout(
    input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Any:
    # is_fused_kernel_acceptable in native/Dropout.cpp: CUDA, training, 0 < p < 1.
    if training and not inplace and 0 < p < 1 and input.numel():
        return torch.native_dropout(input, p, True)[0]
    return NotImplemented


def _attention(
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
    common = {"dropout_p": dropout_p, "is_causal": is_causal, "scale": scale}
    plain = query.ndim == 4 and value.shape[-1] == d and not enable_gqa
    cuda: Any = torch.backends.cuda
    flash = cuda.flash_sdp_enabled() and plain and half and d <= 256 and attn_mask is None
    cudnn = cuda.cudnn_sdp_enabled() and plain and half and d % 8 == 0 and d <= 128
    if flash and cudnn:
        warnings.warn(
            "scaled_dot_product_attention takes cuDNN or flash, by the versions of both; "
            "the trace takes flash. Choose with torch.nn.attention.sdpa_kernel",
            stacklevel=2,
        )
    if flash:
        pad = -d % 8  # pad_last_dim in transformers/attention.cpp
        if pad:
            query, key, value = (F.pad(x, (0, pad)) for x in (query, key, value))
            common["scale"] = 1 / math.sqrt(d) if scale is None else scale
        out = aten._scaled_dot_product_flash_attention(query, key, value, **common)[0]
        return out[..., :d] if pad else out
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        warnings.warn(
            "scaled_dot_product_attention makes numbers of a bool mask; the trace leaves them out",
            stacklevel=2,
        )
    if cuda.mem_efficient_sdp_enabled() and plain and d % (8 if half else 4) == 0:
        return aten._scaled_dot_product_efficient_attention(
            query, key, value, _padded(attn_mask), training, **common
        )[0]
    if cudnn and not cuda.math_sdp_enabled():
        return aten._scaled_dot_product_cudnn_attention(
            query, key, value, attn_mask, training, **common
        )[0]
    if not cuda.math_sdp_enabled():
        raise RuntimeError("no enabled kernel of scaled_dot_product_attention takes these inputs")
    if attn_mask is not None or is_causal:
        warnings.warn(
            "scaled_dot_product_attention adds its mask in place; the trace counts another tensor",
            stacklevel=2,
        )
    return aten._scaled_dot_product_attention_math(
        query, key, value, attn_mask, enable_gqa=enable_gqa, **common
    )[0]


def _padded(mask: torch.Tensor | None) -> torch.Tensor | None:
    """The kernel wants rows of the mask to begin at multiples of 8: pad_bias, attention.cpp."""
    if mask is None or mask.shape[-1] % 8 == 0:
        return mask
    return F.pad(mask, (0, -mask.shape[-1] % 8))[..., : mask.shape[-1]]


def _attention_on_cpu(*args: Any, **kwargs: Any) -> Any:
    if torch.backends.cuda.flash_sdp_enabled():  # type: ignore[no-untyped-call]
        warnings.warn(
            "scaled_dot_product_attention may take a fused kernel on a CPU; the trace takes the "
            "unfused one. Choose it with torch.nn.attention.sdpa_kernel",
            stacklevel=2,
        )
    return NotImplemented


CPU: dict[Any, Callable[..., Any]] = {F.scaled_dot_product_attention: _attention_on_cpu}
CUDA: dict[Any, Callable[..., Any]] = {
    F.softmax: _functional_softmax,
    torch.softmax: _softmax,
    torch.special.softmax: _softmax,
    torch.Tensor.softmax: _softmax,
    F.dropout: _dropout,
    torch.dropout: lambda input, p, train: _dropout(input, p, train),
    F.scaled_dot_product_attention: _attention,
}
PLACES = (
    (F, "softmax"),
    (F, "dropout"),
    (F, "scaled_dot_product_attention"),
    (torch, "softmax"),
    (torch, "dropout"),
)
