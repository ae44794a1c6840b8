"""The ring as the page shows it, and what each of two processes compares."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import P2POp, batch_isend_irecv

from attnmem.programs import standard_attention
from attnmem.ranks import all_to_all_attention, gather_attention, ring_attention
from attnmem.tiles.statistics import attend, finish, merge

LENGTH, HEADS, HEAD_DIM = 96, 4, 16


def ring(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """O of this rank, over the keys of all."""
    rank = dist.get_rank()
    ranks = dist.get_world_size()
    after = (rank + 1) % ranks
    before = (rank - 1) % ranks
    block = torch.stack((k, v))
    rows: Any = None
    for step in range(ranks):
        transfers = []
        new = torch.empty_like(block)
        if step < ranks - 1:
            send = P2POp(dist.isend, block, after)
            get = P2POp(dist.irecv, new, before)
            transfers = batch_isend_irecv([send, get])
        keys, values = block  # compute meanwhile
        s = q @ keys.mT * q.shape[-1] ** -0.5
        part = attend(s, values)
        rows = merge(rows, part) if rows else part
        for transfer in transfers:
            transfer.wait()
        block = new
    return finish(rows)[0]


def compare(tell: Callable[[Any], None]) -> None:
    """On one rank: each program's name, and its largest difference to one process.

    Of O, and but for the ring above of the gradients of this rank's Q, K and V.
    """
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)  # the same tensors on all ranks
    shape = (1, HEADS, LENGTH, HEAD_DIM)
    whole = [torch.randn(shape, requires_grad=True) for _ in range(3)]
    do = torch.randn(shape)
    o, _, _ = standard_attention(*whole)
    wanted = [o, *torch.autograd.grad(o, whole, do)]

    def own(x: Tensor) -> Tensor:
        return x.detach().chunk(ranks, -2)[rank]

    def far(found: list[Tensor]) -> float:
        return max((a - own(b)).abs().max().item() for a, b in zip(found, wanted, strict=False))

    tell(("ring", far([ring(*map(own, whole))])))
    for program in (ring_attention, gather_attention, all_to_all_attention):
        inputs = [own(x).requires_grad_() for x in whole]
        found = program(*inputs)
        gradients = torch.autograd.grad(found, inputs, own(do))
        tell((program.__name__, far([found, *gradients])))
