"""What travels between ranks: blocks of K and V on a ring, or all of them at once."""

from collections.abc import Iterator

import torch
import torch.distributed as dist

Group = dist.ProcessGroup | None

# PyTorch 2.13 has renamed them.
_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
_sum_parts = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)


class Ring:
    """Each rank passes on what it has to the next one, while it computes.

    Two blocks are here at a time: one that is computed with and leaves, and one that arrives.
    """

    def __init__(self, group: Group) -> None:
        self.group, self.rank, self.ranks = group, dist.get_rank(group), dist.get_world_size(group)

    def blocks(self, own: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """The block of each rank, this one's first: the rank that it is of, and the block."""
        block = own
        del own  # it goes when it has been passed on
        for step in range(self.ranks):
            last = step == self.ranks - 1
            arriving, transfers = (block, []) if last else self._pass_on(block)
            yield (self.rank - step) % self.ranks, block
            for transfer in transfers:
                transfer.wait()
            block = arriving

    def add(self, sums: torch.Tensor | None, source: int, part: torch.Tensor) -> torch.Tensor:
        """Add this rank's part to the gradient of a block, which travels as the block does."""
        block = part if sums is None else sums.add_(part)
        if self.ranks == 1:
            return block
        arriving, transfers = self._pass_on(block)
        for transfer in transfers:
            transfer.wait()
        return arriving

    def sum(self, sums: torch.Tensor) -> torch.Tensor:
        """The gradient of this rank's block: after as many steps as ranks it is back."""
        return sums

    def _pass_on(self, block: torch.Tensor) -> tuple[torch.Tensor, list[dist.Work]]:
        arriving = torch.empty_like(block)
        after, before = ((self.rank + step) % self.ranks for step in (1, -1))
        if self.group is not None:
            after, before = (dist.get_global_rank(self.group, x) for x in (after, before))
        send = dist.P2POp(dist.isend, block, after, self.group)
        receive = dist.P2POp(dist.irecv, arriving, before, self.group)
        return arriving, dist.batch_isend_irecv([send, receive])


class Gather:
    """Each rank gets the blocks of all at once, and holds them."""

    def __init__(self, group: Group) -> None:
        self.group, self.rank, self.ranks = group, dist.get_rank(group), dist.get_world_size(group)

    def blocks(self, own: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """The block of each rank: the rank that it is of, and the block."""
        self.dtype = own.dtype
        every = own.new_empty(self.ranks, *own.shape)
        _gather(every.flatten(0, 1), own, group=self.group)
        del own
        yield from enumerate(every)

    def add(self, sums: torch.Tensor | None, source: int, part: torch.Tensor) -> torch.Tensor:
        """Note this rank's part of the gradient of a block."""
        if sums is None:
            sums = part.new_zeros(self.ranks, *part.shape, dtype=self.dtype)
        sums[source] = part
        return sums

    def sum(self, sums: torch.Tensor) -> torch.Tensor:
        """The gradient of this rank's block: the sum of all ranks' parts."""
        own = torch.empty_like(sums[0])
        _sum_parts(own, sums.flatten(0, 1), group=self.group)
        return own


def exchange(x: torch.Tensor, group: Group, *, scatter: int, gather: int) -> torch.Tensor:
    """Cut ``x`` along one dimension into a part for each rank, and join what arrives along another.

    All to all: rank r gets the part r of every rank, in the order of ranks.
    """
    parts = torch.stack(x.chunk(dist.get_world_size(group), scatter))
    arrived = torch.empty_like(parts)
    dist.all_to_all_single(arrived, parts, group=group)
    del parts
    return torch.cat(arrived.unbind(), gather)
