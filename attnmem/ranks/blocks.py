"""A block of scores, of some queries and some keys: its rows forward, its gradients backward."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from attnmem.tiles.statistics import Rows, attend

aten = torch.ops.aten
Gradients = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # dQ, dK, dV


class Blocks(NamedTuple):
    """How blocks are computed.

    ``rows(q, k, v, scale, diagonal)`` gives what :func:`attnmem.tiles.statistics.merge` takes; with
    ``diagonal``, query i sees the keys j ≤ i. ``gradients(dO, q, k, v, O, lse, scale, diagonal)``
    gives the block's parts of dQ, dK and dV, where O and ``lse``, ``[..., n, 1]``, are those of
    whole rows. All tensors are ``[B, H, n, d]``.
    """

    rows: Callable[[Any, Any, Any, float, bool], Rows]
    gradients: Callable[..., Gradients]


def _standard_rows(q: Any, k: Any, v: Any, scale: float, diagonal: bool) -> Rows:
    return attend(_scores(q, k, scale, diagonal), v.float())


def _standard_gradients(
    do: Any, q: Any, k: Any, v: Any, o: Any, lse: Any, scale: float, diagonal: bool
) -> Gradients:
    do, v = do.float(), v.float()
    p = _scores(q, k, scale, diagonal).sub_(lse).exp_()
    dv = p.mT @ do
    delta = (do * o).sum(-1, keepdim=True)  # of each row, Σ dP∘P
    ds = (do @ v.mT).sub_(delta).mul_(p).mul_(scale)
    return ds @ k.float(), ds.mT @ q.float(), dv


def _scores(q: torch.Tensor, k: torch.Tensor, scale: float, diagonal: bool) -> torch.Tensor:
    s = (q @ k.mT).float().mul_(scale)
    if diagonal:
        future = torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).triu_(1)
        s.masked_fill_(future, -torch.inf)
    return s


def _flash_rows(q: Any, k: Any, v: Any, scale: float, diagonal: bool) -> Rows:
    if q.device.type == "cpu":
        forward = aten._scaled_dot_product_flash_attention_for_cpu
        o, lse = forward(q, k, v, 0.0, diagonal, scale=scale)
    else:
        forward = aten._scaled_dot_product_flash_attention
        o, lse = forward(q, k, v, 0.0, diagonal, False, scale=scale)[:2]
    lse = lse[..., None]
    return Rows(lse, torch.ones_like(lse), o.float())


def _flash_gradients(
    do: Any, q: Any, k: Any, v: Any, o: Any, lse: Any, scale: float, diagonal: bool
) -> Gradients:
    lse = lse[..., 0]
    if q.device.type == "cpu":
        backward = aten._scaled_dot_product_flash_attention_for_cpu_backward
        return backward(do, q, k, v, o, lse, 0.0, diagonal, scale=scale)  # type: ignore[no-any-return]
    seed, offset = (q.new_empty(count, dtype=torch.uint64) for count in (2, 0))  # no dropout
    lengths = q.shape[2], k.shape[2]
    backward = aten._scaled_dot_product_flash_attention_backward
    more = (None, None, *lengths, 0.0, diagonal, seed, offset)
    return backward(do, q, k, v, o, lse, *more, scale=scale)  # type: ignore[no-any-return]


#: Three operations, as standard attention; or PyTorch's flash kernel.
STANDARD = Blocks(_standard_rows, _standard_gradients)
FLASH = Blocks(_flash_rows, _flash_gradients)
