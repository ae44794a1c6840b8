"""Attention that never holds S: a tile of it at a time, forward and backward.

Source: Dao et al. 2022, arXiv 2205.14135, and Dao 2023, arXiv 2307.08691, whose loops these are.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from attnmem.programs import _check_inputs
from attnmem.tiles.statistics import Rows, attend, finish, merge

#: Queries and keys of a tile, where nothing else is said.
BLOCK = (128, 128)


def tiled_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    block: tuple[int | None, int | None] = BLOCK,
    causal: bool = False,
    scale: float | None = None,
) -> torch.Tensor:
    """Attention, O = softmax(Q·Kᵀ·scale)·V, from tiles of ``block`` = (queries, keys) scores.

    It takes what :func:`attnmem.programs.standard_attention` takes, and returns O alone. ``None``
    in ``block`` means all: ``(128, None)`` cuts the queries only, ``(None, 128)`` the keys only.
    With ``causal``, tiles that no query sees are skipped. Tiles are computed in 32 bit, or in q's
    dtype where that is wider. For backward, O and one number a row are kept; S and P are computed
    again.

    Raises what :func:`attnmem.programs.standard_attention` raises, and ``ValueError`` for a
    ``block`` that is not two positive integers, and for no key at all.

    >>> q, k, v = torch.ones(3, 1, 12, 4, 64)
    >>> tiled_attention(q, k, v, block=(2, 3)).shape
    torch.Size([1, 12, 4, 64])
    """
    _check_inputs(q, k, v)
    if k.shape[-2] == 0:
        raise ValueError(f"k must have at least one key, got {list(k.shape)}")
    if len(block) != 2 or any(size is not None and size < 1 for size in block):
        raise ValueError(f"block must be (queries, keys), 1 or more of each, got {block}")
    heads = math.prod(q.shape[:-2])
    flat = (x.reshape(heads, *x.shape[-2:]) for x in (q, k, v))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    o: torch.Tensor = _Tiled.apply(*flat, block, causal, scale)  # type: ignore[no-untyped-call]
    return o.reshape(*q.shape[:-1], v.shape[-1])


class _Tiled(torch.autograd.Function):
    """Forward and backward on ``[heads, N, d]``: a block of queries, merged over its keys."""

    @staticmethod
    def forward(ctx: Any, q: Any, k: Any, v: Any, block: Any, causal: bool, scale: float) -> Any:
        ctx.block, ctx.causal, ctx.scale = block, causal, scale
        o = v.new_empty(*q.shape[:-1], v.shape[-1])
        lse = q.new_empty(*q.shape[:-1], 1, dtype=_wide(q))  # log Σ exp(s) of each row
        for i in _cut(q, block[0]):
            q_i = q[:, i].to(lse.dtype)
            rows: Any = None
            for j in _cut(k, block[1]):
                if causal and j.start >= i.stop:
                    break  # these keys are in the future of all these queries
                part = _tile(ctx, q_i, k, v, i, j)
                rows = part if rows is None else merge(rows, part)
                del part
            o[:, i], lse[:, i] = finish(rows)
        ctx.save_for_backward(q, k, v, o, lse)
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Any) -> Any:
        q, k, v, o, lse = ctx.saved_tensors
        wide = lse.dtype
        dq, dk, dv = torch.zeros_like(q, dtype=wide), torch.empty_like(k), torch.empty_like(v)
        delta = torch.empty_like(lse)  # of each row, Σ dP∘P = dO·O
        for i in _cut(q, ctx.block[0]):
            delta[:, i] = (do[:, i].to(wide) * o[:, i]).sum(-1, keepdim=True)
        for j in _cut(k, ctx.block[1]):
            k_j, v_j = k[:, j].to(wide), v[:, j].to(wide)
            dk_j, dv_j = torch.zeros_like(k_j), torch.zeros_like(v_j)
            for i in _cut(q, ctx.block[0]):
                if ctx.causal and j.start >= i.stop:
                    continue  # these queries do not see these keys
                q_i, do_i = q[:, i].to(wide), do[:, i].to(wide)
                p = _scores(ctx, q_i, k_j, i, j).sub_(lse[:, i]).exp_()
                dv_j.add_(p.mT @ do_i)
                ds = (do_i @ v_j.mT).sub_(delta[:, i]).mul_(p).mul_(ctx.scale)
                dq[:, i].add_(ds @ k_j)
                dk_j.add_(ds.mT @ q_i)
                del q_i, do_i, p, ds
            dk[:, j], dv[:, j] = dk_j, dv_j
        return dq.to(q.dtype), dk, dv, None, None, None


def _tile(ctx: Any, q_i: Any, k: Any, v: Any, i: slice, j: slice) -> Rows:
    """The rows of one tile. What it needs beside them is gone when it returns."""
    s = _scores(ctx, q_i, k[:, j].to(q_i.dtype), i, j)
    return attend(s, v[:, j].to(q_i.dtype))


def _scores(ctx: Any, q_i: Any, k_j: Any, i: slice, j: slice) -> torch.Tensor:
    """One tile of S."""
    s: torch.Tensor = (q_i @ k_j.mT).mul_(ctx.scale)
    if ctx.causal and j.stop - 1 > i.start:  # some of these keys are in the future of some queries
        future = torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device)
        s.masked_fill_(future.triu_(1 + i.start - j.start), -math.inf)
    return s


def _cut(x: torch.Tensor, size: int | None) -> Iterator[slice]:
    """The rows of ``x``, ``size`` at a time; what is left comes last."""
    end = x.shape[1]
    step = end if size is None else size
    return (slice(start, min(start + step, end)) for start in range(0, end, step))


def _wide(x: torch.Tensor) -> torch.dtype:
    return x.dtype if x.dtype.itemsize > 4 else torch.float32
