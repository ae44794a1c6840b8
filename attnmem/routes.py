"""The way that some calls go on a device, without a mode that watches, and with data."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from attnmem.sdpa import attention

aten = torch.ops.aten


def in_backward() -> bool:
    """Whether autograd is running a backward pass.

    Taught in :ref:`memory-own`.
    """
    return torch._C._current_graph_task_id() != -1


def in_place(op: Any, args: Sequence[Any], zeros: int | None) -> torch.Tensor | None:
    """The argument of ``op`` that autograd would overwrite with the result, if it would.

    Autograd allocates more when a dispatch mode is on (isTensorSubclassLike in ATen's
    TensorSubclassLikeUtils.h). Without one, it adds a second gradient of a tensor to the first if
    nothing else holds that (accumulate in csrc/autograd/input_buffer.cpp), and the backward of a
    selection writes into the zeros it has just made (FunctionsManual.cpp), whose storage has the
    id ``zeros``.

    Taught in :ref:`memory-own`.
    """
    if not in_backward() or torch.is_grad_enabled():
        return None
    if op is aten.add.Tensor:
        counts = [_references(x) for x in args[:2]]
        if min(counts) >= (alone := _engine_s_own()):  # in fewer hands: Python called, not autograd
            return next((x for x, n in zip(args, counts, strict=False) if n == alone), None)
    if op in SELECTIONS_BACKWARD and id(args[0].untyped_storage()) == zeros:
        return args[0]  # type: ignore[no-any-return]
    return None


def _references(x: torch.Tensor) -> tuple[int, int]:
    storage = torch._C._storage_Use_Count(x.untyped_storage()._cdata)
    return x._use_count(), storage  # type: ignore[attr-defined]


@functools.cache
def _engine_s_own() -> tuple[int, int]:
    """The references to a gradient that only autograd holds, as a dispatch mode sees them."""
    seen = []

    class Spy(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, op: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if op is aten.add.Tensor:
                seen.append(_references(args[0]))
            return op(*args, **(kwargs or {}))

    with _disable_current_modes(), torch.enable_grad():
        x = torch.ones(1, device="meta", requires_grad=True)
        y = x.exp() * x.sin()
        with Spy():  # type: ignore[no-untyped-call]
            y.backward()  # type: ignore[no-untyped-call]
    return seen[0]


ZEROS = {aten.zeros.default, aten.zeros_like.default, aten.new_zeros.default}
SELECTIONS_BACKWARD = {
    aten.scatter.src,
    aten.scatter_add.default,
    aten.index_add.default,
    aten.index_put.default,
    aten._unsafe_index_put.default,
    aten.masked_scatter.default,
}


class Routes(TorchFunctionMode):
    """Sends calls the way that they go on ``device`` and would not go on shapes alone.

    A function mode sees calls of the program itself. It is off inside a backward pass and inside
    functions such as ``F.multi_head_attention_forward``, so the functions are replaced as well,
    for as long as a trace runs.

    Taught in :ref:`memory-own`.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.routes = CUDA if device == "cuda" else CPU
        self.replaced = contextlib.ExitStack()

    def __enter__(self) -> Any:
        _engine_s_own()  # inside a backward pass it could not run one of its own
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
