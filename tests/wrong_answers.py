"""Wrong answers that no exercise lists as a mistake: types, units, factors, near misses, peaks."""

import math
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

from attnmem import standard_attention
from attnmem.exercises.roofline import SCALE_GB_S
from attnmem.prediction.allocator import CachingAllocator
from attnmem.programs import flash_sdpa, one_liner
from attnmem.published import Claim

MIB = 2**20


def online(q, k, v, *, sum_shrinks=True, output_shrinks=True):
    """Attention in blocks of 128 keys."""
    m = torch.full_like(q[..., :1], -math.inf)
    total, o = torch.zeros_like(m), torch.zeros_like(q)
    for keys, values in zip(k.split(128, dim=-2), v.split(128, dim=-2), strict=True):
        s = q @ keys.mT / math.sqrt(q.shape[-1])
        larger = torch.maximum(m, s.amax(dim=-1, keepdim=True))
        p, shrink = (s - larger).exp(), (m - larger).exp()
        total = total * shrink**sum_shrinks + p.sum(dim=-1, keepdim=True)
        o = o * shrink**output_shrinks + p @ values
        m = larger
    return o / total


def tiles(q, k, v, **mistakes):
    """The same in blocks of 128 queries, whose outputs are joined."""
    return torch.cat([online(rows, k, v, **mistakes) for rows in q.split(128, dim=-2)], dim=-2)


def merging(sum_factor, output_factor):
    """A merge of two blocks: what the sum and the output shrink by, given old and new maximum."""

    def my_merge(a, b):
        m = torch.maximum(a.maximum, b.maximum)
        total, output = (
            getattr(a, name) * factor(a.maximum, m) + getattr(b, name) * factor(b.maximum, m)
            for name, factor in (("total", sum_factor), ("output", output_factor))
        )
        return m, total, output

    return my_merge


def shrink(old, new):
    return (old - new).exp()


def stay(old, new):
    return 1


def grow(old, new):
    return (new - old).exp()


def repeated(q, k, v):
    """Grouped attention with keys and values that are copied for each head of queries."""
    groups = q.shape[1] // k.shape[1]
    return one_liner(q, *(x.repeat_interleave(groups, 1) for x in (k, v)))


def part_with(log):
    """A part of the keys, with a logarithm of its own."""

    def my_part(q, k, v):
        s = q @ k.mT * q.shape[-1] ** -0.5
        return s.softmax(-1) @ v, log(s)

    return my_part


def part_without_maximum(q, k, v):
    p = (q @ k.mT * q.shape[-1] ** -0.5).exp()
    total = p.sum(-1, keepdim=True)
    return p @ v / total, total.log()


def part_undivided(q, k, v):
    s = q @ k.mT * q.shape[-1] ** -0.5
    m = s.amax(-1, keepdim=True)
    return (s - m).exp() @ v, s.logsumexp(-1, keepdim=True)


def added(o, lse, o_new, lse_new):
    return o + o_new, torch.logaddexp(lse, lse_new)


def averaged(o, lse, o_new, lse_new):
    return (o + o_new) / 2, torch.logaddexp(lse, lse_new)


def overwritten(o, lse, o_new, lse_new):
    lse = torch.logaddexp(lse, lse_new)
    return o + torch.sigmoid(lse_new - lse) * (o_new - o), lse


def without_lse(o, lse, o_new, lse_new):
    return o + torch.sigmoid(lse_new - lse) * (o_new - o), lse + lse_new


def masked(q, k, v):
    return standard_attention(q, k, v, causal=True)[0]


def masked_blocks(q, k, v):
    """Causal, a block of queries at a time, against all keys."""
    o = torch.empty_like(q)
    for start in range(0, q.shape[-2], 128):
        rows = slice(start, start + 128)
        s = q[..., rows, :] @ k.mT * q.shape[-1] ** -0.5
        future = torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).triu(1 + start)
        o[..., rows, :] = s.masked_fill_(future, -math.inf).softmax(-1) @ v
    return o


def heads_in_a_loop(q, k, v):
    heads = zip(q.split(1, dim=1), k.split(1, dim=1), v.split(1, dim=1), strict=True)
    return torch.cat([one_liner(*head) for head in heads], dim=1)


def own_backward(*, row_sums=True, scale=True, transpose=True):
    class Attention(torch.autograd.Function):
        @staticmethod
        def forward(ctx, q, k, v):
            o = one_liner(q, k, v)
            ctx.save_for_backward(q, k, v, o)
            return o

        @staticmethod
        def backward(ctx, do):
            q, k, v, o = ctx.saved_tensors
            p = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1)
            dp = do @ v.mT
            if row_sums:
                dp = dp - (do * o).sum(dim=-1, keepdim=True)
            ds = p * dp
            if scale:
                ds = ds / q.shape[-1] ** 0.5
            return ds @ k, (ds.mT if transpose else ds) @ q, p.mT @ do

    return Attention.apply


class NeverJoins(CachingAllocator):
    def free(self, block):
        self.allocated -= block.size
        self._keep(block)


class OnePool(CachingAllocator):
    def __init__(self):
        super().__init__()
        self._free[True] = self._free[False]


class NeverReuses(CachingAllocator):
    def free(self, block):
        self.allocated -= block.size


def replay(allocator):
    def allocated(events):
        made, blocks = allocator(), {}
        for tensor, size in events:
            if size > 0:
                blocks[tensor] = made.allocate(size)
            else:
                made.free(blocks[tensor])
        return made.peak_allocated

    return allocated


def segment_rounded_down(size):
    if size <= MIB:
        return 2 * MIB
    return 20 * MIB if size <= 10 * MIB - 512 else size // (2 * MIB) * 2 * MIB


def claims(kept, again=None, place=None, url="https://huggingface.co/blog/llama31"):
    """A function that makes claims with what these functions of model and tokens compute."""

    def my_claim(model, tokens, printed, last):
        return Claim(
            what="keys and values",
            source="Hugging Face 2024" if url else "",
            url=url,
            published=printed,
            last=place or last,
            unit="GiB",
            compute=lambda: kept(model, tokens),
            mistaken=again and (lambda: again(model, tokens)),
        )

    return my_claim


def kept(model, tokens, heads=1):
    return 4 * model.layers * heads * model.kv_heads * model.head_dim * tokens / 2**30


twice = partial(kept, heads=2)

WRONG = [
    (
        "attention-2",
        {"A": "flatter", "B": "sharper", "C": "same", "D": "uniform", "E": "same"},
        r"not right for: A, B\. A: without the division.* B: divided by √d once more",
    ),
    ("attention-2", {"A": "sharper"}, "not right for: B, C, D, E"),
    ("attention-2", "sharper", "expected a dict, got str 'sharper'"),
    ("attention-3", 0.5, "expected a function of a workload, got float 0.5"),
    ("attention-6", partial(online, sum_shrinks=False, output_shrinks=False), "in the two sums"),
    ("attention-6", partial(online, sum_shrinks=False), "the sum of exponentials must shrink"),
    ("attention-6", partial(online, output_shrinks=False), "the output so far must shrink"),
    ("attention-6", one_liner, r"O is right, but .*: peak .*let go of each block"),
    ("memory-1", math.nan, "nan is not right"),
    ("memory-1", 32 * 8192**2 * 2, "three steps of k, M, G"),
    ("memory-1", 32 * 8192**2 * 2 / 2**30, "1 GB is 10⁹ bytes"),
    ("memory-1", 32 * 32 * 8192**2 * 2 / 1e9, "too large by a factor of 32: the number of heads"),
    ("memory-1", "4 GB", "expected a number of GB, got str '4 GB'"),
    ("memory-1", True, "expected a number of GB, got bool True"),
    (
        "memory-2",
        lambda w: (3 * w.score_bytes + 4 * w.head_bytes) / w.heads,
        "too small by a factor of H, the number of heads",
    ),
    ("memory-4", one_liner, r"O is right, but .*: peak .*Alive at your peak: Q, K, V, bmm, S"),
    ("memory-4", standard_attention, "O is right, but .*: peak .*Alive at your peak: .*S, P, O"),
    ("memory-4", lambda q, k, v: None, "must return O, a tensor, and returned NoneType"),
    ("memory-5", one_liner, "fewer queries at a time"),
    ("memory-5", lambda q, k, v: q[..., :768, :], r"shape \[1, 2, 768, 8\] instead of"),
    ("memory-5", lambda q, k, v: one_liner(q, v, k), "O is not right: some entry is off by"),
    ("memory-5", flash_sdpa, "PyTorch's own attention"),
    ("measurement-1", "reserved", "expected a dict"),
    ("measurement-2", lambda sizes: sizes, r"must return a number, and returned list \[4, 2, -4,"),
    ("measurement-4", 8.51968, "two steps of k, M, G"),
    ("measurement-5", segment_rounded_down, "for 10 MiB less 1 B: too small"),
    ("measurement-6", replay(NeverJoins), "for free neighbours that join: too large"),
    ("measurement-6", replay(OnePool), "for a small block, which must not come"),
    ("measurement-6", replay(NeverReuses), "for a freed block that is used again: too large"),
    ("intensity-1", "1/8", "expected a number of FLOP/B, got str '1/8'"),
    ("intensity-3", 179, "too small"),
    ("intensity-4", ["memory"] * 5, "expected a dict, got list"),
    ("roofline-1", 8 * SCALE_GB_S, "a byte has 8 bits"),
    ("roofline-1", SCALE_GB_S / 1.024**3, "1 GB is 10⁹ bytes"),
    ("roofline-1", SCALE_GB_S / 1000, "the unit that is asked for, one step"),
    ("roofline-1", SCALE_GB_S / 12, "number of heads"),
    (
        "roofline-4",
        lambda w: 3 * w.seq_len / 256 * w.head_bytes / w.heads,
        "too small by a factor of H, the number of heads",
    ),
    ("training-3", ["P", "mask", "dP", "dS", "dP∘P"], "only dropout's backward"),
    ("training-3", {"S", "P"}, "not right; go through backward, operation by operation"),
    ("training-6", one_liner, r"O is right, but .*: peak .*only one head's"),
    ("training-6", heads_in_a_loop, r"Alive at your peak: .*P 12.*only one head's"),
    (
        "training-6",
        partial(checkpoint, one_liner, use_reentrant=False),
        r"O is right, but .*: peak .*only one head's",
    ),
    ("training-6", torch.no_grad()(one_liner), "autograd can't go back from O"),
    ("training-6", lambda q, k, v: one_liner(q, k.detach(), v), "O is right, but dK not"),
    ("training-7", own_backward(row_sums=False), "dS lacks the row sums: softmax's denominator"),
    ("training-7", own_backward(scale=False), "dQ and dK lack the factor"),
    ("training-7", own_backward(row_sums=False, scale=False), "row sums, and dQ and dK"),
    ("training-7", own_backward(transpose=False), "O is right, but dK not"),
    ("training-7", own_backward(), r"O is right, but .*: peak .*compute dS in the memory of dP"),
    ("tiles-1", 3, "expected a function of two blocks, got int 3"),
    ("tiles-1", lambda a, b: a.total, "must return maximum, total and output"),
    ("tiles-1", lambda a, b: (a.maximum, a.total, a.output), "the larger of the two"),
    ("tiles-1", merging(stay, stay), "must shrink by exp"),
    ("tiles-1", merging(stay, shrink), "the sum must shrink, too"),
    ("tiles-1", merging(shrink, stay), "the output must shrink, too"),
    ("tiles-1", merging(grow, shrink), "the sum is not right"),
    ("tiles-1", merging(shrink, grow), "the output is not right"),
    ("tiles-3", masked, r"O is right, but .*: peak .*one block of queries"),
    ("tiles-3", masked_blocks, "computes 100% of the products"),
    ("tiles-4", one_liner, r"O is right, but .*: peak .*computed again in backward"),
    ("tiles-4", own_backward(scale=False), "dQ and dK lack the factor"),
    ("one-token-1", lambda w: 1.0, "for Workload"),
    ("one-token-2", 3, "expected a function of a memory size, got int 3"),
    (
        "one-token-3",
        repeated,
        r"O is right, but .*: peak .*repeated keys are copies",
    ),
    ("one-token-4", lambda q, k, v: v, "must return o and the logarithm of the sum"),
    ("one-token-4", part_without_maximum, "large scores overflow"),
    ("one-token-4", part_with(lambda s: s.amax(-1, keepdim=True)), "the sum is missing"),
    ("one-token-4", part_with(lambda s: s.exp().sum(-1, keepdim=True)), "that is the sum"),
    ("one-token-4", part_with(lambda s: s.logsumexp(-1)), "has another shape"),
    ("one-token-4", part_undivided, "the output is not"),
    ("more-gpus-1", 3, "expected a function of a workload, got int 3"),
    ("more-gpus-2", 3, "expected a function of o, lse, o_new, lse_new, got int 3"),
    ("more-gpus-2", lambda *_: 1.0, "must return o and lse, and returned float 1.0"),
    ("more-gpus-2", overwritten, "was overwritten before"),
    ("more-gpus-2", averaged, "weigh each output"),
    ("more-gpus-2", added, "weigh each output"),
    ("more-gpus-2", without_lse, "the logarithm of the sum of both"),
    ("more-gpus-4", lambda ranks: 1.0, "for 2 ranks"),
    ("published-1", 67.1, "too large, by a factor of 2"),
    ("published-6", 1.95, "expected a function"),
    ("published-6", lambda *_: 1.95, "must return a Claim, and returned a float"),
    ("published-6", claims(kept, place=1.0), "must be what was printed"),
    ("published-6", claims(kept), "let mistaken compute that"),
    ("published-6", claims(kept, kept), "does mistaken take heads twice"),
    ("published-6", claims(twice), "the source took twice as many"),
    ("published-6", claims(partial(kept, heads=4)), "not of all heads of queries"),
    ("published-6", claims(partial(kept, heads=1.024**3)), "in GB"),
    ("published-6", claims(partial(kept, heads=1 / 2)), "two tensors"),
    ("published-6", claims(kept, twice, url=""), "by which source"),
    ("published-6", claims(lambda *_: 1.95, twice), "computed is 1.95"),
    ("summary-4", one_liner, "one half after the other"),
    ("summary-6", partial(tiles, sum_shrinks=False), "sum of exponentials must shrink"),
    ("summary-6", tiles, "O is right, but .*: peak .*into one tensor"),
]
