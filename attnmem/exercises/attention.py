"""The exercises of the chapter attention."""

import math

import torch
import torch.nn.functional as F

from attnmem.catalog import model
from attnmem.exercises.kinds import Choice, Exercise, Function, Number
from attnmem.exercises.task import Task, row_bytes
from attnmem.programs import standard_attention
from attnmem.workload import Workload, ceil_div

GPT_3 = model("GPT-3 175B")
W = GPT_3.workload(batch=8)
SHARP = 1000  # what the scores of attention-4 are multiplied by
BLOCK = 128  # the keys that attention-6 sees at a time

Tensor = torch.Tensor


def _online_moved(w: Workload) -> int:
    """Each block of keys updates two sums, one of them as large as O: 7 times X, 18 columns."""
    blocks = ceil_div(w.seq_len, BLOCK)
    return 10 * w.score_bytes + (7 * blocks + 5) * w.head_bytes + (18 * blocks + 3) * row_bytes(w)


def _scores(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.mT / math.sqrt(q.shape[-1])


def _future(s: Tensor, diagonal: int = 1) -> Tensor:
    return torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).triu(diagonal)


def _masked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, number: float) -> Tensor:
    return _scores(q, k).masked_fill(mask, number).softmax(-1) @ v


def _divided(exponentials: Tensor, v: Tensor) -> Tensor:
    return exponentials / exponentials.sum(-1, keepdim=True) @ v


def _largest_so_far(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """The scores, and for each the largest of its row up to the end of its block."""
    s = _scores(q, k)
    starts = range(0, s.shape[-1], BLOCK)
    largest = torch.stack([s[..., start : start + BLOCK].amax(-1) for start in starts], dim=-1)
    running = largest.cummax(-1).values
    return s, running.repeat_interleave(BLOCK, dim=-1)[..., : s.shape[-1]]


def _never_rescaled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    s, largest = _largest_so_far(q, k)
    return _divided((s - largest).exp(), v)


def _sum_not_rescaled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    s, largest = _largest_so_far(q, k)
    total = (s - largest).exp().sum(-1, keepdim=True)
    return (s - s.amax(-1, keepdim=True)).exp() @ v / total


def _output_not_rescaled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    s, largest = _largest_so_far(q, k)
    total = (s - s.amax(-1, keepdim=True)).exp().sum(-1, keepdim=True)
    return (s - largest).exp() @ v / total


def _mean_of_blocks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    blocks = [slice(start, start + BLOCK) for start in range(0, k.shape[-2], BLOCK)]
    outputs = [F.scaled_dot_product_attention(q, k[..., b, :], v[..., b, :]) for b in blocks]
    return torch.stack(outputs).mean(0)


def _whole_blocks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    n = k.shape[-2] // BLOCK * BLOCK
    return F.scaled_dot_product_attention(q, k[..., :n, :], v[..., :n, :])


def queries_missing(q: Tensor, k: Tensor, v: Tensor, block: int = BLOCK) -> Tensor:
    """Attention in blocks of queries, without the last that is smaller."""
    o = F.scaled_dot_product_attention(q, k, v)
    o[..., q.shape[-2] // block * block :, :] = 0
    return o


# What programs in blocks get wrong: those of this chapter's last exercise, and of the summary's.
ONLINE = {
    "when m grows, what is already in the two sums must be multiplied by exp(m − m′)": (
        _never_rescaled
    ),
    "when m grows, the sum of exponentials must shrink, too, not only the output": (
        _sum_not_rescaled
    ),
    "when m grows, the output so far must shrink, too, not only the sum": _output_not_rescaled,
    "blocks do not count alike: softmax is over all keys, not over each block": _mean_of_blocks,
    "the last block of keys is smaller, and is left out": _whole_blocks,
}

EXERCISES: tuple[Exercise, ...] = (
    Number(
        right=W.score_elements / 1e6,
        unit="million scores",
        mistakes={
            "that is one sequence: every sequence of the batch has its own scores": (
                W.score_elements / W.batch / 1e6
            ),
            "that is one head: every head has its own scores": W.score_elements / W.heads / 1e6,
            "that is one head of one sequence": W.seq_len**2 / 1e6,
            "that is N·d for each head: scores belong to pairs of tokens, N² of them": (
                W.head_elements / 1e6
            ),
            "standard attention computes the scores of later keys, too, and masks them then": (
                W.score_elements / 2e6
            ),
            "S and P have so many entries together; the scores are S": W.score_elements * 2 / 1e6,
            "that is all layers together; one is asked for": (
                W.score_elements * GPT_3.layers / 1e6
            ),
            "right, but in millions it is another number": W.score_elements,
        },
    ),
    Choice(
        right={"A": "sharper", "B": "flatter", "C": "same", "D": "uniform", "E": "same"},
        mistakes={
            "A": "A: without the division, differences of scores are √d times as large.",
            "B": "B: divided by √d once more, differences of scores become smaller, not zero.",
            "C": "C: the vector adds the same number to all scores of a row.",
            "D": "D: equal keys have equal scores, and equal scores equal weights.",
            "E": "E: P is made of queries and keys only.",
        },
    ),
    Function(
        right=lambda w: 1 / (1 + (w.seq_len - 1) * math.exp(-2)),
        mistakes={
            "the other keys can point away from the query: their scores are −1, not 0": (
                lambda w: 1 / (1 + (w.seq_len - 1) * math.exp(-1))
            ),
            "scores lie between −1 and 1, and a weight of 1 needs an infinite difference": (
                lambda w: 1
            ),
            "here the scores are not divided by √d": (
                lambda w: 1 / (1 + (w.seq_len - 1) * math.exp(-2 / math.sqrt(w.head_dim)))
            ),
            "beside the best key there are N − 1 others": (
                lambda w: 1 / (1 + w.seq_len * math.exp(-2))
            ),
            "that is the average weight, and the smallest that the largest can be": (
                lambda w: 1 / w.seq_len
            ),
        },
    ),
    Task(
        output=lambda q, k, v: standard_attention(q, k, v, scale=SHARP * q.shape[-1] ** -0.5)[0],
        peak=lambda w: 3 * w.score_bytes + 3 * w.head_bytes + row_bytes(w),
        # Scale, subtract, exponentiate, divide: each reads and writes S; two reductions read it.
        moved=lambda w: 12 * w.score_bytes + 4 * w.head_bytes + 4 * row_bytes(w),
        mistakes={
            "the exponentials overflow, and ∞/∞ is nan: subtract the row's largest score": (
                lambda q, k, v: _divided((SHARP * _scores(q, k)).exp(), v)
            ),
            "subtract each row's own maximum: with the largest of all, rows of smaller scores "
            "become 0/0": lambda q, k, v: _divided(
                (SHARP * (_scores(q, k) - _scores(q, k).max())).exp(), v
            ),
            "subtract the maximum over the keys, the last dimension, not over the queries": (
                lambda q, k, v: _divided(
                    (SHARP * (_scores(q, k) - _scores(q, k).amax(-2, keepdim=True))).exp(), v
                )
            ),
            "softmax must run along the keys, the last dimension": lambda q, k, v: (
                (SHARP * _scores(q, k)).softmax(-2) @ v
            ),
            "the rows of P must sum to 1: divide by their sums": lambda q, k, v: (
                (SHARP * (_scores(q, k) - _scores(q, k).amax(-1, keepdim=True))).exp() @ v
            ),
            "the scores are not multiplied by 1000": F.scaled_dot_product_attention,
        },
        limit=2,
        advice="give up what you don't need any more",
    ),
    Task(
        output=lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        peak=lambda w: 2 * w.score_bytes + 4 * w.head_bytes + w.seq_len**2,
        # Scale, mask and softmax read and write S; ones, triu and masked_fill touch the mask.
        moved=lambda w: 8 * w.score_bytes + 4 * w.head_bytes + 4 * w.seq_len**2,
        mistakes={
            "the mask is upside down: query i must see the keys j ≤ i": lambda q, k, v: _masked(
                q, k, v, _future(_scores(q, k)).mT, -math.inf
            ),
            "a score of 0 is a score like others, e⁰ = 1: masked ones must be −∞": (
                lambda q, k, v: _masked(q, k, v, _future(_scores(q, k)), 0.0)
            ),
            "masked after softmax, the rows of P do not sum to 1 any more": lambda q, k, v: (
                _scores(q, k).softmax(-1).tril() @ v
            ),
            "a query must see its own key, too: row 0 has no other": lambda q, k, v: _masked(
                q, k, v, _future(_scores(q, k), 0), -math.inf
            ),
            "query i sees the key after it, too": lambda q, k, v: _masked(
                q, k, v, _future(_scores(q, k), 2), -math.inf
            ),
            "there is no mask": F.scaled_dot_product_attention,
            "the scores are not scaled by 1/√d": lambda q, k, v: F.scaled_dot_product_attention(
                q, k, v, is_causal=True, scale=1
            ),
        },
        limit=2,
        advice="give up the scores without the mask, and take booleans for the mask",
    ),
    Task(
        peak=lambda w: w.score_bytes // 4,
        moved=_online_moved,
        mistakes=ONLINE,
        advice="let go of each block before the next, and keep one column per query",
        small=Workload(batch=1, heads=2, seq_len=500, head_dim=8, dtype=torch.float64),
    ),
)
