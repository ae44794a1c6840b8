"""Types by their old names, such as ``torch.cuda.FloatTensor``, which say a device as well."""

import functools
from typing import Any

import torch

META = torch.device("meta")
NAMES = ("Bool", "Byte", "Char", "Short", "Int", "Long", "Half", "BFloat16", "Float", "Double")


def type_of(device: str, x: torch.Tensor, to: Any = None, *_: Any, **__: Any) -> Any:
    """``q.type()``, ``q.type(torch.float16)``, and old names of types that say a device, too."""
    here = "cuda" if x.is_meta and device == "cuda" else "cpu"
    if to is None:
        kind = torch.empty(0, dtype=x.dtype).type()
        return kind.replace("torch.", "torch.cuda.") if here == "cuda" else kind
    if isinstance(to, torch.dtype):
        return NotImplemented
    if isinstance(to, str):
        to = functools.reduce(getattr, to.split(".")[1:], torch)
    there = "cuda" if to.is_cuda else "cpu"
    if there == here:
        return x.to(to.dtype)
    return (
        x.to(META if there == "cuda" else there, to.dtype) if device == "cuda" else NotImplemented
    )


class _Legacy(type):
    """A class such as ``torch.cuda.FloatTensor``."""

    dtype: torch.dtype

    def __instancecheck__(cls, x: Any) -> bool:
        return isinstance(x, torch.Tensor) and x.is_cuda and x.dtype == cls.dtype

    def __call__(cls, *args: Any, **_: Any) -> torch.Tensor:
        if len(args) == 1 and not isinstance(args[0], int | torch.Size):
            return torch.tensor(args[0], dtype=cls.dtype, device="cuda")
        return torch.empty(*args or (0,), dtype=cls.dtype, device="cuda")


def cuda_types() -> list[Any]:
    """A class for each old name that says CUDA."""
    kinds = (getattr(torch, f"{name}Tensor") for name in NAMES)
    return [_Legacy(kind.__name__, (), {"dtype": kind.dtype, "is_cuda": True}) for kind in kinds]
