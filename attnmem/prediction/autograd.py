"""What autograd does on a device and not under a mode that watches it."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from attnmem.prediction.refusal import warn
from attnmem.timeline import in_backward

aten = torch.ops.aten


def in_place(op: Any, args: Sequence[Any], made: tuple[Any, int] | None) -> torch.Tensor | None:
    """The argument of ``op`` that autograd would overwrite with the result, if it would.

    Autograd allocates more when a dispatch mode is on (isTensorSubclassLike in ATen's
    TensorSubclassLikeUtils.h). Without one, it adds a second gradient of a tensor to the first if
    nothing else holds that (accumulate in csrc/autograd/input_buffer.cpp), the backward of a
    selection writes into the zeros it has just made, and
    binary_cross_entropy_with_logits_backward into its sigmoid (FunctionsManual.cpp). ``made``: the
    operation before, and the id of the storage that it has made.
    """
    if not in_backward() or torch.is_grad_enabled():
        return None
    if op is aten.add.Tensor:
        counts = [_references(x) for x in args[:2]]
        # In fewer hands: Python called, not autograd. A part of a larger tensor is not overwritten.
        if min(counts) >= (alone := _engine_s_own()) and _dense(args[0]):
            return args[0] if counts[0] == alone else None
    first, storage = made or (None, None)
    follows = SELECTIONS_BACKWARD if first in ZEROS else AFTER_SIGMOID if first else ()
    if op not in follows or id(args[0].untyped_storage()) != storage:
        return None
    overwritten: torch.Tensor = args[0]
    its_own = first in ZEROS or _references(overwritten) == _engine_s_own()
    return overwritten if its_own else None


def _dense(x: torch.Tensor) -> bool:
    found: bool = aten.is_non_overlapping_and_dense.default(x)
    return found


def _references(x: torch.Tensor) -> tuple[int, int]:
    storage = torch._C._storage_Use_Count(x.untyped_storage()._cdata)
    return x._use_count(), storage  # type: ignore[attr-defined]


def prepare() -> None:
    """Learn, before a backward pass runs, what :func:`in_place` needs to know of one."""
    _engine_s_own()


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
FIRST = ZEROS | {aten.sigmoid.default}
AFTER_SIGMOID = {aten.sub.Tensor, aten.mul.Tensor}
SELECTIONS_BACKWARD = {
    aten.scatter.src,
    aten.scatter_add.default,
    aten.index_add.default,
    aten.index_put.default,
    aten._unsafe_index_put.default,
    aten.masked_scatter.default,
}


def by_values() -> dict[Any, Callable[..., Any]]:
    """Functions whose backward pass reads values or has a path of its own without data -> route.

    prod_backward, cumprod_backward, evenly_distribute_backward, masked_fill_backward and
    clamp_backward, FunctionsManual.cpp.
    """

    def bounds(*args: Any, **kwargs: Any) -> bool:
        return any(isinstance(x, torch.Tensor) for x in (*args, *kwargs.values()))

    def of_all(*args: Any, **kwargs: Any) -> bool:
        return not args and "dim" not in kwargs and "other" not in kwargs

    def filler(mask: Any, value: Any = None) -> bool:
        return isinstance(value, torch.Tensor) and value.requires_grad

    cases: dict[str, Callable[..., bool]] = {
        **dict.fromkeys(("prod", "cumprod"), lambda *_, **__: True),
        **dict.fromkeys(("max", "min"), of_all),
        **dict.fromkeys(("masked_fill", "masked_fill_"), filler),
        **dict.fromkeys(("clamp", "clip", "clamp_min", "clamp_max"), bounds),
    }
    return {
        getattr(owner, name): _warning(name, applies)
        for name, applies in cases.items()
        for owner in (torch, torch.Tensor)
        if hasattr(owner, name)
    }


def _warning(name: str, applies: Callable[..., bool]) -> Callable[..., Any]:
    def route(*args: Any, **kwargs: Any) -> Any:
        x, *rest = (*args, *kwargs.values())
        inputs = [y for y in (x, *rest) if isinstance(y, torch.Tensor)]
        needed = torch.is_grad_enabled() and any(y.requires_grad for y in inputs)
        if needed and applies(*args[1:], **{k: v for k, v in kwargs.items() if k != "input"}):
            warn(f"the backward pass of {name} goes by values; the trace takes a way without")
        return NotImplemented

    return route
