"""What a program sees of the device, and calls of PyTorch that take another way there.

A function mode sees each call of PyTorch, in the program and in the functions of PyTorch that are
written in Python: for as long as a trace runs these do not ask for modes, and so are followed
inside, and in the backward pass as well.
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from threading import get_ident
from types import MethodWrapperType
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch.overrides import TorchFunctionMode

from attnmem.prediction import composites, indexing, legacy
from attnmem.prediction.autocast import Autocast
from attnmem.prediction.autograd import by_values, prepare
from attnmem.prediction.refusal import RAISED, refuse, refuse_reading, settle, warn
from attnmem.prediction.sdpa import attention
from attnmem.prediction.stand_ins import STREAMS, kernels_of_triton, stand_ins
from attnmem.prediction.threads import TRACING

# Modules of PyTorch whose Python functions ask for modes.
ASKING = (F, torch.functional, torch._tensor, torch.autograd, torch.overrides)
META = torch.device("meta")
VARIABLE: Any = torch._C._VariableFunctions
CONVERSIONS = ("array", "bool", "int", "float", "index", "complex", "contains")
READING = {
    getattr(torch.Tensor, f"__{name}__" if name in CONVERSIONS else name)
    for name in ("item", "tolist", "numpy", "is_nonzero", "data_ptr", *CONVERSIONS)
}
# What is made to be written into, or to be multiplied with.
MAKING = {torch.empty, torch.zeros, torch.eye}
MOVING = {torch.Tensor.to, torch.Tensor.cpu}
# What stands for these calls other functions, whose ways are taken in turn.
FOLLOWED = {torch._native_multi_head_attention}


class Dispatch(TorchFunctionMode):
    """Answers where tensors are, and sends calls the way that they go on ``device``.

    Tensors without data, on ``meta``, stand for those on the device. With ``valued`` it is a CPU
    whose tensors have data.
    """

    def __init__(
        self,
        device: str,
        capability: tuple[int, int],
        has_values: Callable[[torch.Tensor], bool],
        *,
        valued: bool = False,
    ) -> None:
        super().__init__()
        self.has_values = has_values
        self.valued = valued
        self.device = torch.device(device, 0) if device == "cuda" else torch.device(device)
        self.routes = _routes(device, capability)
        self.stand_ins = stand_ins(device, capability)
        self.answers = self._answers()
        self.autocast = Autocast(device)
        self.replaced: list[tuple[Any, str, Any]] = []  # what patches have taken the place of
        self.inference = contextlib.ExitStack()

    def __enter__(self) -> Any:
        prepare()
        RAISED.clear()
        TRACING.add(get_ident())
        if torch.is_inference_mode_enabled():  # composite operations are not taken apart there
            self.inference.enter_context(torch.inference_mode(False))
        forget = (torch, "clear_autocast_cache", self.autocast.cache.clear)
        hooks = torch._C._autograd
        push = "_push_saved_tensors_default_hooks"
        seeing = (hooks, push, self._seeing_hooks(getattr(hooks, push)))
        patches = [*_patches(self.device), *kernels_of_triton(), forget, seeing, *self.stand_ins]
        self.replaced = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
        for owner, name, value in patches:
            setattr(owner, name, value)
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for owner, name, value in reversed(self.replaced):
            setattr(owner, name, value)
        self.inference.close()
        TRACING.discard(get_ident())
        settle(error[1])

    @contextlib.contextmanager
    def _again(self) -> Iterator[None]:
        """Seeing calls also where PyTorch has switched this mode off, inside a call that it saw."""
        super().__enter__()  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            super().__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def _seeing_hooks(self, push: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        """Hooks of saved tensors run inside of the operation that saves."""

        def seeing(pack: Callable[[Any], Any]) -> Callable[[Any], Any]:
            def packing(x: torch.Tensor) -> Any:
                with self._again():
                    return pack(x)

            return packing

        return lambda pack, unpack: push(seeing(pack), unpack)

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if answer := self.answers.get(function):
            return answer(*args)
        if isinstance(function, MethodWrapperType):
            return function(*args)  # any other property
        if function in READING and not self.has_values(args[0]):
            raise refuse_reading(function.__name__)
        args, kwargs = self._placed(function, args, kwargs or {})
        if torch.is_autocast_enabled(self.device.type):
            cast = self.autocast.cast(function, args, kwargs)
            if cast is not None:
                function, args, kwargs = cast
        if function is torch.Tensor.cuda:
            function = torch.Tensor.to
        if route := self.routes.get(function):
            with self._again() if function in FOLLOWED else contextlib.nullcontext():
                result = route(*args, **kwargs)
            if result is not NotImplemented:
                return result
        return function(*args, **kwargs)

    def _answers(self) -> dict[Any, Callable[..., Any]]:
        """What a tensor says of its place: getter -> answer."""
        here, kind = self.device, self.device.type

        def device(x: torch.Tensor) -> torch.device:
            return here if x.is_meta else x.device

        return {
            torch.Tensor.device.__get__: device,
            torch.Tensor.is_cuda.__get__: lambda x: x.is_meta and kind == "cuda",  # type: ignore[attr-defined]
            torch.Tensor.is_cpu.__get__: lambda x: not x.is_meta or kind == "cpu",  # type: ignore[attr-defined]
            torch.Tensor.is_meta.__get__: lambda x: False,  # type: ignore[attr-defined]
            torch.Tensor.get_device: lambda x: device(x).index if kind == "cuda" else -1,
            torch.Tensor.is_pinned: lambda x, *_: not x.is_meta,
            torch.Tensor.pin_memory: lambda x, *_: x,
        }

    def _placed(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
    ) -> tuple[Sequence[Any], dict[str, Any]]:
        """The arguments, with the device ``meta`` where they name the device that is predicted."""
        if function is torch.Tensor.cuda:
            named = args[1] if len(args) > 1 else kwargs.get("device")
            to = META if named is None else self._meta(named)
            return (args[0], to), {k: v for k, v in kwargs.items() if k != "device"}
        if "pin_memory" in kwargs:
            kwargs = kwargs | {"pin_memory": False}
        moves = function in MOVING
        if self.device.type == "cpu" and not (moves and args[0].is_meta):
            written = not self.valued and _is_matrix(function, args, kwargs)
            if kwargs.get("requires_grad") or written:
                kwargs = kwargs | {"device": META}  # autograd wants it where its gradient will be
            return args, kwargs  # what else is made on the CPU has values, and may be asked
        if any(isinstance(x, torch.device) or (moves and isinstance(x, str)) for x in args):
            args = tuple(self._meta(x) for x in args)
        if kwargs.get("device") is not None:
            kwargs = kwargs | {"device": self._meta(kwargs["device"])}
        return args, kwargs

    def _meta(self, device: Any) -> Any:
        if isinstance(device, torch.Tensor | torch.dtype):
            return device
        if isinstance(device, int) and not isinstance(device, bool):
            return self._meta(f"cuda:{device}")
        named = str(device) if isinstance(device, str | torch.device) else ""
        kind, _, index = named.partition(":")
        if kind == self.device.type == "cuda" and index not in ("", "0"):
            raise refuse(f"a prediction has one GPU, cuda:0, got {named}")
        return META if kind == self.device.type else device


def _is_matrix(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether this makes numbers of two dimensions or more whose values nobody asks for."""
    if function not in MAKING or "out" in kwargs:
        return False
    size = args[0] if args and not isinstance(args[0], int) else kwargs.get("size", args)
    floating = kwargs.get("dtype") is None or kwargs["dtype"].is_floating_point
    return floating and (function is torch.eye or len(size) > 1)


def _patches(here: torch.device) -> Iterator[tuple[Any, str, Any]]:
    """What is replaced for as long as a trace runs: owner, name, value."""
    for module in ASKING:
        for name in (
            "has_torch_function",
            "has_torch_function_unary",
            "has_torch_function_variadic",
        ):
            if hasattr(module, name):
                yield module, name, lambda *_: False
    for name in ("torch.optim.optimizer", "torch.nn.utils.clip_grad"):
        yield sys.modules[name], "_group_tensors_by_device_and_dtype", _grouped(here)
    # Where saved tensors are is asked with the mode and without it.
    checks = {"default": lambda x: {"shape": x.shape, "dtype": x.dtype}}
    name = "_allowed_determinism_checks_to_fns"
    yield torch.utils.checkpoint, name, getattr(torch.utils.checkpoint, name) | checks
    if here.type == "cuda":
        yield torch.cuda.amp.common, "amp_definitely_not_available", lambda: False
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    if dynamo and hasattr(dynamo, "_callback_from_stance"):
        yield dynamo, "_callback_from_stance", _compiled(dynamo._callback_from_stance)


def _grouped(here: torch.device) -> Callable[..., Any]:
    """Lists of tensors by their device, as optimizers ask for it: C++ knows nothing of a mode."""

    def group(*args: Any, **options: Any) -> Any:
        found = torch.utils._foreach_utils._group_tensors_by_device_and_dtype(*args, **options)
        return {
            (here if place == META else place, dtype): tensors
            for (place, dtype), tensors in found.items()
        }

    return group


def _compiled(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def callback(found: Any) -> Any:
        if callable(found):
            raise refuse(
                "a compiled function can't be predicted: its compiler decides what runs. "
                "Trace the function that was given to torch.compile"
            )
        return original(found)

    return callback


def _to_like(x: torch.Tensor, *args: Any, **options: Any) -> Any:
    """``x.to(other)`` on a CPU, where one may have values and the other stand for what has none."""
    other = args[0] if args else options.get("other")
    if not isinstance(other, torch.Tensor) or other.is_meta == x.is_meta:
        return NotImplemented
    return x.to(other.dtype, *args[1:], **{k: v for k, v in options.items() if k != "other"})


def _make_dual(*_: Any, **__: Any) -> Any:
    raise refuse("forward-mode derivatives can't be predicted: take those of a backward pass")


def _record_stream(*_: Any) -> Any:
    raise refuse(f"record_stream: {STREAMS}")


def _casting(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Softmax and log_softmax in native/SoftMax.cpp: on CUDA this one cast is ``kernel``'s."""

    def route(input: torch.Tensor, dim: int, dtype: Any = None, *, out: Any = None) -> Any:
        if input.dtype == torch.float16 and dtype == torch.float32 and out is None:
            return kernel(input, dim, True)
        return NotImplemented

    return route


def _dropout(input: torch.Tensor, p: float = 0.5, train: bool = True) -> Any:
    # is_fused_kernel_acceptable in native/Dropout.cpp: CUDA, training, 0 < p < 1.
    if train and 0 < p < 1 and input.numel():
        return torch.native_dropout(input, p, True)[0]
    return NotImplemented


def _linear(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Any:
    # linear in native/Linear.cpp: under a mode it adds the bias out of place.
    if bias is None or input.dim() < 3 or input.is_contiguous():
        return NotImplemented
    return torch.matmul(input, weight.t()).add_(bias)


def _cell(name: str) -> Callable[..., Any]:
    def route(*_: Any, **__: Any) -> Any:
        warn(f"{name} is cuDNN's on a GPU, with workspaces; the trace takes its steps apart")
        return NotImplemented

    return route


def _tensor(data: Any, *, device: Any = None, requires_grad: bool = False, **options: Any) -> Any:
    # It copies data behind the back of every mode; a copy of the copy is seen.
    copied = torch.tensor(data, device=device, **options)
    return copied.clone().requires_grad_(requires_grad)


def _as_tensor(data: Any, *, dtype: Any = None, device: Any = None, **options: Any) -> Any:
    if isinstance(data, torch.Tensor):
        return NotImplemented
    return _tensor(data, dtype=dtype, device=device, **options)


def _new_tensor(x: torch.Tensor, data: Any, *, dtype: Any = None, device: Any = None) -> Any:
    return _tensor(data, dtype=dtype or x.dtype, device=device or x.device)


@functools.cache
def _routes(device: str, capability: tuple[int, int]) -> dict[Any, Callable[..., Any]]:
    """Function of PyTorch -> what stands for it on the device, or answers ``NotImplemented``."""
    both: dict[Any, Callable[..., Any]] = by_values() | {
        torch.Tensor.type: functools.partial(legacy.type_of, device),
        VARIABLE._make_dual: _make_dual,
        torch.Tensor.__getitem__: indexing.get,
        torch.Tensor.__setitem__: indexing.put(device),
        torch._C._nn.one_hot: indexing.one_hot(device),
        VARIABLE.einsum: composites.einsum,
        torch.tensor: _tensor,
        torch.as_tensor: _as_tensor,
        torch.asarray: _as_tensor,
        torch.Tensor.new_tensor: _new_tensor,
        F.linear: _linear,
        F.scaled_dot_product_attention: functools.partial(attention, device, capability=capability),
    }
    if device == "cpu":
        return both | {
            torch.Tensor.cpu: lambda x, *_, **__: x if x.is_meta else NotImplemented,
            torch.Tensor.to: _to_like,
            torch.Tensor.type_as: _to_like,
            torch._native_multi_head_attention: composites.multi_head_attention_on_cpu,
            torch._transformer_encoder_layer_fwd: composites.encoder_layer,
        }
    return both | {
        torch.Tensor.record_stream: _record_stream,
        **dict.fromkeys(
            (torch.softmax, torch.special.softmax, torch.Tensor.softmax), _casting(torch._softmax)
        ),
        **dict.fromkeys(
            (torch.log_softmax, torch.Tensor.log_softmax), _casting(torch._log_softmax)
        ),
        torch.dropout: _dropout,
        torch.gru_cell: _cell("a GRU cell"),
        torch.lstm_cell: _cell("an LSTM cell"),
        torch.gru: _cell("a GRU"),
        torch.lstm: _cell("an LSTM"),
        torch.rnn_tanh: _cell("an RNN"),
        torch.rnn_relu: _cell("an RNN"),
        torch.rms_norm: composites.rms_norm,
        torch._native_multi_head_attention: composites.multi_head_attention,
        torch._transformer_encoder_layer_fwd: composites.encoder_layer,
    }
