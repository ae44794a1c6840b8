"""Other threads: a trace does not see them, so what works on the device there is refused."""

import functools
from collections.abc import Callable
from threading import get_ident
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attnmem.prediction.refusal import refuse

TRACING: set[int] = set()  # the threads in which a trace runs now


def watched(function: Callable[..., Any], device: str) -> Callable[..., Any]:
    """``function``, for another thread: what it does on ``device`` is refused during the trace."""
    tracer = get_ident()
    if tracer not in TRACING:
        return function

    @functools.wraps(function)
    def watching(*args: Any, **kwargs: Any) -> Any:
        with _Elsewhere(device, tracer):
            return function(*args, **kwargs)

    return watching


class _Elsewhere(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, device: str, tracer: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.tracer = tracer

    def __torch_dispatch__(
        self, op: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self.tracer in TRACING and self._is_seen(args, kwargs or {}):
            raise refuse("another thread works on the device: do its work in this one")
        return op(*args, **(kwargs or {}))

    def _is_seen(self, args: Any, kwargs: dict[str, Any]) -> bool:
        """Whether this touches the memory that is predicted."""
        places = [x.device for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        made = kwargs.get("device")
        kinds = {place.type for place in (*places, *([made] if made else []))}
        return self.device == "cpu" or kinds - {"cpu"} != set()
