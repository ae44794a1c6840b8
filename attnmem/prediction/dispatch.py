"""Calls of PyTorch that take another way on a device than on shapes alone, and that way."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from attnmem.prediction.autograd import prepare
from attnmem.prediction.sdpa import attention


class Routes(TorchFunctionMode):
    """Sends calls the way that they go on ``device`` and would not go on shapes alone.

    A function mode sees calls of the program itself. It is off inside a backward pass and inside
    functions such as ``F.multi_head_attention_forward``, so the functions are replaced as well,
    for as long as a trace runs.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.routes = CUDA if device == "cuda" else CPU
        self.replaced = contextlib.ExitStack()

    def __enter__(self) -> Any:
        prepare()
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
        if torch.is_autocast_enabled(self.device):
            warnings.warn("autocast casts tensors; the trace does not", stacklevel=3)
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


def _tensor(data: Any, *, device: Any = None, requires_grad: bool = False, **options: Any) -> Any:
    # It copies data behind the back of every mode; an empty tensor is seen.
    copied = torch.tensor(data, device=device, **options)
    return torch.empty_like(copied).requires_grad_(requires_grad) if copied.is_meta else copied


CPU: dict[Any, Callable[..., Any]] = {
    torch.tensor: _tensor,
    F.scaled_dot_product_attention: functools.partial(attention, "cpu"),
}
CUDA: dict[Any, Callable[..., Any]] = {
    torch.tensor: _tensor,
    F.softmax: _functional_softmax,
    torch.softmax: _softmax,
    torch.special.softmax: _softmax,
    torch.Tensor.softmax: _softmax,
    F.dropout: _dropout,
    torch.dropout: lambda input, p, train: _dropout(input, p, train),
    F.scaled_dot_product_attention: functools.partial(attention, "cuda"),
}
PLACES = (
    (F, "softmax"),
    (F, "dropout"),
    (F, "scaled_dot_product_attention"),
    (torch, "softmax"),
    (torch, "dropout"),
)
