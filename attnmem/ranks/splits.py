"""Three ways to split the sequence of one attention over ranks, each as a program of one rank.

A rank of P holds ``[B, H, N/P, d]`` of Q, K and V, and gets that part of O. Without a process group
of its own, the default one of ``torch.distributed`` is taken.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from attnmem.programs import _check_inputs, standard_attention
from attnmem.ranks.blocks import FLASH, STANDARD, Blocks
from attnmem.ranks.transport import Gather, Group, Ring, exchange
from attnmem.tiles.statistics import Rows, finish, merge


def ring_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: bool = False,
    balanced: bool = False,
    flash: bool = False,
    group: Group = None,
) -> torch.Tensor:
    """O of this rank's queries: blocks of K and V travel from rank to rank, and are merged.

    With ``flash``, a block is PyTorch's flash kernel, else three operations that hold its scores.
    ``causal``: query i sees the keys j ≤ i of the whole sequence, of which rank r holds the part r;
    ``balanced``: of 2P parts, r and 2P − 1 − r, so that all ranks have the same work.

    Raises ``ValueError`` where there is no process group, and for inputs that
    :func:`attnmem.programs.standard_attention` refuses. Source: Liu et al. 2023, arXiv 2310.01889.
    """
    return _split(q, k, v, Ring, causal, balanced, flash, group)


def gather_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: bool = False,
    balanced: bool = False,
    flash: bool = False,
    group: Group = None,
) -> torch.Tensor:
    """The same, but K and V of all ranks are gathered first. Arguments as of the ring."""
    return _split(q, k, v, Gather, causal, balanced, flash, group)


def all_to_all_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: bool = False,
    flash: bool = False,
    group: Group = None,
) -> torch.Tensor:
    """The same, of whole sequences: ranks exchange so that each has H/P heads of all N tokens.

    With ``flash``, attention is PyTorch's fused call, else standard attention.

    Raises ``ValueError`` if P does not divide the heads. Source: Jacobs et al. 2023,
    arXiv 2309.14509.
    """
    _check(q, k, v, group)
    ranks = dist.get_world_size(group)
    for name, heads in (("q", q.shape[1]), ("k", k.shape[1])):
        if heads % ranks:
            raise ValueError(
                f"{name} must have a multiple of {ranks} heads, one part for each rank, got {heads}"
            )
    q, k, v = (_Exchange.apply(x, group, 1, 2) for x in (q, k, v))  # type: ignore[no-untyped-call]
    if flash:
        o = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    else:
        o = standard_attention(q, k, v, causal=causal)[0]
    del q, k, v
    return _Exchange.apply(o, group, 2, 1)  # type: ignore[no-any-return, no-untyped-call]


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, group: Group, scatter: int, gather: int) -> Any:
        ctx.back = group, gather, scatter
        return exchange(x, group, scatter=scatter, gather=gather)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dx: Any) -> Any:
        group, scatter, gather = ctx.back
        return exchange(dx, group, scatter=scatter, gather=gather), None, None, None


def _split(
    q: Any,
    k: Any,
    v: Any,
    transport: type[Ring] | type[Gather],
    causal: bool,
    balanced: bool,
    flash: bool,
    group: Group,
) -> torch.Tensor:
    _check(q, k, v, group)
    if k.shape != q.shape or v.shape != q.shape:
        raise ValueError(f"k and v must be {list(q.shape)}, as q, got {list(k.shape)}")
    if balanced and q.shape[-2] % 2:
        raise ValueError(
            f"seq_len must be even on each rank, which holds two parts, got {q.shape[-2]}"
        )
    blocks = FLASH if flash else STANDARD
    found = _Split.apply(q, k, v, transport(group), blocks, causal, balanced)  # type: ignore[no-untyped-call]
    return found  # type: ignore[no-any-return]


def _check(q: Any, k: Any, v: Any, group: Group) -> None:
    if not dist.is_initialized():
        raise ValueError(
            "torch.distributed has no process group: call init_process_group on every rank first"
        )
    _check_inputs(q, k, v)


class _Split(torch.autograd.Function):
    """Forward and backward of one rank, over the blocks of K and V that a transport brings."""

    @staticmethod
    def forward(
        ctx: Any, q: Any, k: Any, v: Any, transport: Any, blocks: Blocks, causal: bool, two: bool
    ) -> Any:
        ctx.kinds, ctx.scale = (transport, blocks, causal, two), q.shape[-1] ** -0.5
        rows: dict[int, Rows] = {}
        for source, block in transport.blocks(torch.stack((k, v))):
            _add_rows(ctx, rows, q, source, block)
            del block  # before the next arrives
        finished = [finish(rows.pop(i)) for i in sorted(rows)]
        o = torch.cat([o.to(q.dtype) for o, _ in finished], -2)
        lse = torch.cat([lse for _, lse in finished], -2)
        ctx.save_for_backward(q, k, v, o, lse)
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Any) -> Any:
        q, k, v, *_ = ctx.saved_tensors
        transport = ctx.kinds[0]
        dq = torch.zeros_like(q, dtype=torch.float32)
        sums = None
        for source, block in transport.blocks(torch.stack((k, v))):
            part = torch.zeros_like(block, dtype=torch.float32)  # dK and dV of this block
            _add_gradients(ctx, dq, part, do, source, block)
            del block
            sums = transport.add(sums, source, part)
            del part
        dk, dv = transport.sum(sums)
        return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), None, None, None, None


def _add_rows(ctx: Any, rows: dict[int, Rows], q: Any, source: int, block: Any) -> None:
    for i, j, diagonal in _pairs(ctx, source):
        k_j, v_j = _part(ctx, block, j)
        part = ctx.kinds[1].rows(_part(ctx, q, i), k_j, v_j, ctx.scale, diagonal)
        rows[i] = merge(rows[i], part) if i in rows else part
        del part


def _add_gradients(ctx: Any, dq: Any, dkv: Any, do: Any, source: int, block: Any) -> None:
    q, _, _, o, lse = ctx.saved_tensors
    for i, j, diagonal in _pairs(ctx, source):
        k_j, v_j = _part(ctx, block, j)
        of_i = (_part(ctx, x, i) for x in (do, q))
        rows = (_part(ctx, x, i) for x in (o, lse))
        found = ctx.kinds[1].gradients(*of_i, k_j, v_j, *rows, ctx.scale, diagonal)
        for sum_of, part in zip((_part(ctx, dq, i), *_part(ctx, dkv, j)), found, strict=True):
            sum_of.add_(part)
        del found, part


def _pairs(ctx: Any, source: int) -> Iterator[tuple[int, int, bool]]:
    """Which parts of this rank's queries meet which of a block's keys, and on the diagonal?"""
    transport, _, causal, two = ctx.kinds
    for i, of_queries in enumerate(parts_of(transport.rank, transport.ranks, two)):
        for j, of_keys in enumerate(parts_of(source, transport.ranks, two)):
            if not causal or of_keys <= of_queries:
                yield i, j, causal and of_keys == of_queries


def parts_of(rank: int, ranks: int, balanced: bool) -> tuple[int, ...]:
    """Which parts of the sequence a rank holds: one of P, or two of 2P.

    >>> [parts_of(rank, 4, balanced=True) for rank in range(4)]
    [(0, 7), (1, 6), (2, 5), (3, 4)]
    """
    return (rank, 2 * ranks - 1 - rank) if balanced else (rank,)


def _part(ctx: Any, x: torch.Tensor, index: int) -> torch.Tensor:
    """The rows of ``x`` that are in one of the parts that a rank holds."""
    return x.chunk(2, -2)[index] if ctx.kinds[3] else x
