"""Programs that attend from one token, by name: each takes its query and the cache."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnmem.programs import standard_attention
from attnmem.tiles.decode import triton_decode

# Takes q, K and V. V is None for a latent cache, whose values are a part of its keys.
Decoder = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


def decoder(name: str, *, value_dim: int | None = None, splits: int | None = None) -> Decoder:
    """The program of that name.

    ``"standard"``: :func:`attnmem.programs.standard_attention`; ``"flash"``: PyTorch's kernel;
    ``"kernel"``: :func:`attnmem.tiles.decode.triton_decode`, in ``splits`` parts; ``"cast"``:
    PyTorch's kernel on a cache that is cast to q's dtype first. ``value_dim`` is that of a latent
    cache. Raises ``ValueError`` for another name.
    """

    def standard(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor | None) -> torch.Tensor:
        return standard_attention(q, k, k[..., :value_dim] if v is None else v)[0]

    def flash(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor | None) -> torch.Tensor:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return F.scaled_dot_product_attention(
                q, k, k if v is None else v, enable_gqa=k.shape[1] != q.shape[1]
            )

    def cast(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor | None) -> torch.Tensor:
        return flash(q, k.to(q.dtype), None if v is None else v.to(q.dtype))

    def kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor | None) -> torch.Tensor:
        return triton_decode(q, k, v, splits=splits, value_dim=value_dim)

    programs = {"standard": standard, "flash": flash, "cast": cast, "kernel": kernel}
    if name not in programs:
        raise ValueError(f"name must be one of {', '.join(programs)}; got {name!r}")
    return programs[name]
