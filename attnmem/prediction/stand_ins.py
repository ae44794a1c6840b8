"""What stands for parts of PyTorch that ask the device itself, for as long as a trace runs."""

import contextlib
import functools
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from types import SimpleNamespace
from typing import Any

import torch

from attnmem.prediction.legacy import cuda_types
from attnmem.prediction.refusal import refuse, warn
from attnmem.prediction.threads import watched

Patch = tuple[Any, str, Any]  # owner, name, value

STREAMS = (
    "memory belongs to the stream that it was allocated on, and a prediction has one stream alone. "
    "Trace the work without"
)
SCRIPTED = "TorchScript can't be predicted: trace the function that was scripted"
NESTED = "nested tensors can't be predicted: how much memory they take is in their values. Pad them"
CAUSAL = (
    "whether a mask is causal is in its values. Tell with is_causal=True or False; of "
    "nn.Transformer with src_is_causal and tgt_is_causal"
)
META = torch.device("meta")
TRITON = "a Triton kernel can't be predicted: what it does is not PyTorch's"
ASKS = "this asks the GPU itself, and a prediction has none. Ask outside"


@functools.cache
def stand_ins(device: str, capability: tuple[int, int]) -> tuple[Patch, ...]:
    """What is replaced on ``device``, ``"cuda"`` or ``"cpu"``."""
    autograd: Any = torch.autograd
    transformer: Any = torch.nn.modules.transformer
    both = (
        (torch._C, "_InferenceMode", _inference),
        (torch._C.ScriptFunction, "__call__", _refusing(SCRIPTED)),
        (torch._C.ScriptMethod, "__call__", _refusing(SCRIPTED)),
        (torch._tensor_str, "_str", _printing(torch._tensor_str._str)),
        (torch.autocast, "__init__", _autocast(torch.autocast.__init__, device)),
        (transformer, "_detect_is_causal_mask", _is_causal(transformer._detect_is_causal_mask)),
        (torch.UntypedStorage, "data_ptr", _data_ptr(torch.UntypedStorage.data_ptr)),
        *_all_refusing(
            torch.nested,
            "nested_tensor as_nested_tensor narrow nested_tensor_from_jagged masked_select",
            NESTED,
        ),
        (autograd, "_engine_run_backward", _run_backward),
        (Thread, "start", _start(Thread.start, device)),
        (ThreadPoolExecutor, "submit", _submit(ThreadPoolExecutor.submit, device)),
    )
    if device == "cpu":
        state = torch.random.get_rng_state
        return *both, *((owner, "get_rng_state", _seen(state)) for owner in (torch, torch.random))
    cuda: Any = torch.cuda
    return (
        *both,
        *_all_refusing(
            cuda, "Stream ExternalStream Event CUDAGraph MemPool StreamContext", STREAMS
        ),
        *_all_refusing(
            cuda, "stream set_stream graph make_graphed_callables use_mem_pool", STREAMS
        ),
        *_all_refusing(torch, "Stream Event", STREAMS),
        (cuda, "_lazy_init", _refusing(ASKS)),
        (cuda.memory, "memory_stats_as_nested_dict", _refusing(ASKS)),
        (cuda, "empty_cache", _empty_cache),
        (cuda, "reset_peak_memory_stats", _nothing()),
        (cuda, "synchronize", _nothing()),
        (cuda, "is_available", lambda: True),
        (cuda, "is_bf16_supported", lambda *_, **__: True),
        (cuda, "current_device", lambda: 0),
        (cuda, "device_count", lambda: 1),
        (cuda, "get_device_capability", lambda *_: capability),
        (cuda, "set_device", _only_one),
        (cuda, "device", _one_device),
        (cuda, "get_rng_state", lambda *_: torch.zeros(16, dtype=torch.uint8)),
        (cuda, "set_rng_state", _nothing()),
        (
            cuda.nvtx,
            "_nvtx",
            SimpleNamespace(rangePushA=_nothing(), rangePop=_nothing(), markA=_nothing()),
        ),
        (torch.amp.GradScaler, "scale", _scaling(torch.amp.GradScaler.scale)),
        (torch.amp.GradScaler, "_maybe_opt_step", _stepping),
        (torch, "Generator", _generator(torch.Generator)),
        *((cuda, kind.__name__, kind) for kind in cuda_types()),
    )


def kernels_of_triton() -> list[Patch]:
    """Triton's, where it is imported."""
    modules = (sys.modules.get(f"triton.runtime.{name}") for name in ("jit", "interpreter"))
    names = ("JITFunction", "InterpretedFunction")
    kinds = (getattr(module, name, None) for module, name in zip(modules, names, strict=True))
    return [(kind, "run", _refusing(TRITON)) for kind in kinds if kind]


def _nothing() -> Callable[..., None]:
    """A function that does nothing. Each is another: PyTorch's compiler lists functions once."""
    return lambda *_, **__: None


def _refusing(why: str) -> Callable[..., Any]:
    def refusing(*_: Any, **__: Any) -> Any:
        raise refuse(why)

    return refusing


def _all_refusing(owner: Any, names: str, why: str) -> list[Patch]:
    """Each name of ``owner``; a class stays one, for ``isinstance``."""

    def of(name: str) -> Any:
        refusing = _refusing(f"{owner.__name__}.{name}: {why}")
        if isinstance(getattr(owner, name), type):
            return type(name, (), {"__new__": refusing})
        return refusing

    return [(owner, name, of(name)) for name in names.split() if hasattr(owner, name)]


def _inference(mode: bool = True) -> contextlib.AbstractContextManager[Any]:
    # Under it PyTorch does not take composite operations apart, but they do the same to memory.
    return torch.set_grad_enabled(not mode)


def _autocast(original: Callable[..., None], device: str) -> Callable[..., None]:
    def init(self: Any, device_type: str, *args: Any, **options: Any) -> None:
        original(self, device if device_type == "meta" else device_type, *args, **options)

    return init


def _is_causal(original: Callable[..., bool]) -> Callable[..., bool]:
    def detect(
        mask: torch.Tensor | None, is_causal: bool | None = None, size: int | None = None
    ) -> bool:
        asked = is_causal is None and mask is not None and mask.untyped_storage().device == META
        if asked and mask.shape[-2:] == (size or mask.shape[-2],) * 2:  # type: ignore[union-attr]
            raise refuse(CAUSAL)
        return original(mask, is_causal, size)

    return detect


def _printing(original: Callable[..., str]) -> Callable[..., str]:
    def printing(x: torch.Tensor, **options: Any) -> str:
        if x.untyped_storage().device.type != "meta":
            return original(x, **options)
        warn("what is printed of a tensor is copied first; the trace leaves that out")
        return f"tensor(..., device='{x.device}', size={tuple(x.shape)}, dtype={x.dtype})"

    return printing


def _data_ptr(original: Callable[..., int]) -> Callable[..., int]:
    def data_ptr(storage: torch.UntypedStorage) -> int:
        if storage.device.type == "meta":
            raise refuse("data_ptr: what has no data has no address")
        return original(storage)

    return data_ptr


def _run_backward(
    roots: Any, grads: Any, retain_graph: bool, create_graph: bool, *rest: Any, **options: Any
) -> Any:
    if create_graph:
        warn(
            "gradients of gradients (create_graph=True, torch.func.grad) were not compared "
            "with a GPU, and on a CPU some are a few bytes off"
        )
    run: Any = torch.autograd.graph._engine_run_backward  # in a call it tells of the pass
    return run(roots, grads, retain_graph, create_graph, *rest, **options)


def _scaling(original: Callable[..., Any]) -> Callable[..., Any]:
    available = torch.cuda.is_available()

    def scale(scaler: Any, outputs: Any) -> Any:
        if not (scaler.is_enabled() or available):
            warn(
                "a GradScaler that is off: PyTorch switches it off where there is no CUDA, and so "
                "the trace leaves out what it does on a GPU"
            )
        return original(scaler, outputs)

    return scale


def _stepping(_: Any, optimizer: Any, __: Any, *args: Any, **options: Any) -> Any:
    warn(
        "a GradScaler skips the step where a gradient is infinite, which is in the values; the "
        "trace takes the step"
    )
    return optimizer.step(*args, **options)


def _start(original: Callable[[Thread], None], device: str) -> Callable[[Thread], None]:
    def start(thread: Thread) -> None:
        thread.run = watched(thread.run, device)  # type: ignore[method-assign]
        original(thread)

    return start


def _submit(original: Callable[..., Any], device: str) -> Callable[..., Any]:
    def submit(pool: ThreadPoolExecutor, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        return original(pool, watched(function, device), *args, **kwargs)

    return submit


def _seen(original: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    return lambda: original().clone()  # C++ makes the state where no mode sees it


def _empty_cache() -> None:
    warn("torch.cuda.empty_cache gives segments back; peak_reserved_bytes does not know of that")


def _only_one(device: Any) -> None:
    if str(device).removeprefix("cuda").removeprefix(":") not in ("", "0", "-1", "None"):
        raise refuse(f"a prediction has one GPU, cuda:0, got {device}")


@contextlib.contextmanager
def _one_device(device: Any) -> Any:
    _only_one(device)
    yield


def _generator(original: Any) -> Any:
    class Generator(original):  # type: ignore[misc]
        def __new__(cls, device: Any = "cpu") -> Any:
            return original()  # its state is the CPU's memory

    return Generator
