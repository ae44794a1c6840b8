"""The programs that are compared with tiles, by name: each with and without a causal mask."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnmem.programs import Program, standard_attention
from attnmem.tiles.attention import tiled_attention
from attnmem.tiles.kernel import triton_attention


def program(
    name: str, *, causal: bool = False, block: Sequence[int | None] | None = None
) -> Program:
    """The program of that name, a key of :data:`MAKERS`.

    ``block`` is for ``"tiled"`` and ``"triton"``, as these take it. Raises ``KeyError`` for another
    name.
    """
    options: dict[str, Any] = {"causal": causal}
    if block is not None:
        options["block"] = tuple(block)
    return MAKERS[name](**options)


def _standard(causal: bool) -> Program:
    return lambda q, k, v: standard_attention(q, k, v, causal=causal)[0]


def _compiled(causal: bool) -> Program:
    return torch.compile(_standard(causal), dynamic=False)


def _fused(backend: SDPBackend) -> Callable[..., Program]:
    def make(causal: bool) -> Program:
        def fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

        return fused

    return make


def _partial(function: Callable[..., Any]) -> Callable[..., Program]:
    return lambda **options: functools.partial(function, **options)


MAKERS: dict[str, Callable[..., Program]] = {
    "standard": _standard,
    "compiled": _compiled,
    "tiled": _partial(tiled_attention),
    "triton": _partial(triton_attention),
    "flash": _fused(SDPBackend.FLASH_ATTENTION),
    "efficient": _fused(SDPBackend.EFFICIENT_ATTENTION),
    "cudnn": _fused(SDPBackend.CUDNN_ATTENTION),
}
