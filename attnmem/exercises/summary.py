"""The exercises of the chapter summary."""

import math
from dataclasses import replace

import torch
import torch.nn.functional as F

from attnmem.catalog import model
from attnmem.exercises.attention import BLOCK, ONLINE, queries_missing
from attnmem.exercises.kinds import Choice, Exercise, Function, Number
from attnmem.exercises.task import WORKLOADS, Task, row_bytes
from attnmem.workload import Workload, ceil_div

# Exercise 3: all in units of bytes per head, token and entry of a row, H·e.
W = model("GPT-2 medium").workload()
MEMORY = 8 * 2**30
ROWS = 1024  # the queries that blockwise takes at a time
UNIT = W.heads * W.element_bytes
LONGEST = math.sqrt(W.head_dim**2 + MEMORY / (2 * UNIT)) - W.head_dim  # 2N² + 4dN
LONGEST_IN_BLOCKS = MEMORY / (UNIT * (2 * ROWS + 4 * W.head_dim))

Tensor = torch.Tensor


def _tiles_peak(w: Workload) -> int:
    """Beside Q, K, V, O: four tiles of scores, a block of the output, four columns."""
    tile = w.batch * w.heads * BLOCK * w.element_bytes
    return 4 * w.head_bytes + tile * (4 * BLOCK + w.head_dim + 4)


def _tiles_moved(w: Workload) -> int:
    """Each tile moves ten times; each block of keys, nine blocks of N·d and 18 columns."""
    blocks = ceil_div(w.seq_len, BLOCK)
    return 10 * w.score_bytes + (9 * blocks + 5) * w.head_bytes + (18 * blocks + 3) * row_bytes(w)


def _parts(q: Tensor, k: Tensor, v: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The outputs for both halves of the keys, and the logarithms of their sums."""
    scores = [q @ half.mT / math.sqrt(q.shape[-1]) for half in k.chunk(2, dim=-2)]
    outputs = [s.softmax(-1) @ half for s, half in zip(scores, v.chunk(2, dim=-2), strict=True)]
    return outputs, [s.logsumexp(-1, keepdim=True) for s in scores]


def _weighted(q: Tensor, k: Tensor, v: Tensor, *, swapped: bool = False) -> Tensor:
    (o1, o2), (a1, a2) = _parts(q, k, v)
    share = torch.sigmoid(a2 - a1 if swapped else a1 - a2)
    return share * o1 + (1 - share) * o2


def _weighted_by_logarithms(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    (o1, o2), (a1, a2) = _parts(q, k, v)
    return (a1 * o1 + a2 * o2) / (a1 + a2)


def _not_divided(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    (o1, o2), (a1, a2) = _parts(q, k, v)
    return a1.exp() * o1 + a2.exp() * o2


def _own_block(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    blocks = [slice(start, start + BLOCK) for start in range(0, q.shape[-2], BLOCK)]
    parts = [
        F.scaled_dot_product_attention(q[..., b, :], k[..., b, :], v[..., b, :]) for b in blocks
    ]
    return torch.cat(parts, dim=-2)


EXERCISES: tuple[Exercise, ...] = (
    Choice(
        right={
            "A": "always",
            "B": "sometimes",
            "C": "always",
            "D": "sometimes",
            "E": "never",
            "F": "sometimes",
            "G": "never",
        },
        mistakes={
            "A": "A: S = BHN²e.",
            "B": "B: compare 2S with 4X. What if N is less than 2d?",
            "C": "C: backward holds P, dP and dS at once.",
            "D": "D: it depends on d, N, the dtype and the card.",
            "E": "E: each head of queries has scores of its own.",
            "F": "F: it does if all tensors are in 16 bit. Under autocast they are not.",
            "G": "G: backward computes S and P again, and nothing is skipped without a mask.",
        },
    ),
    Choice(
        right={
            "A": "quadratic",
            "B": "linear",
            "C": "quadratic",
            "D": "quadratic",
            "E": "quadratic",
            "F": "linear",
        },
        mistakes={
            "A": "A: S and P are stored whole.",
            "B": "B: a tile of fixed size does not grow; Q, K, V and O do.",
            "C": "C: there are (N/b)² tiles, and each is written and read by every operation.",
            "D": "D: every query meets every key, whatever is stored.",
            "E": "E: N/b blocks of queries each read all N keys and values.",
            "F": "F: then each of Q, K, V and O moves once.",
        },
    ),
    Number(
        right=LONGEST_IN_BLOCKS / LONGEST,
        unit="times",
        mistakes={
            "nearly: beside the block, Q, K, V and O take 4X, here as there": LONGEST / ROWS,
            "that root belongs to a peak that grows with N²; in blocks it grows with N": (
                math.sqrt(LONGEST_IN_BLOCKS / LONGEST)
            ),
            "a block has 1024/N of the scores, but no root follows: its peak grows with N": (
                math.sqrt(LONGEST / ROWS)
            ),
            "that is the longest sequence of the standard program: divide by it": LONGEST,
            "that is the longest sequence in blocks: divide it by the other": LONGEST_IN_BLOCKS,
            "turn the fraction over": LONGEST / LONGEST_IN_BLOCKS,
        },
    ),
    Task(
        # Half of the scores and, inside logsumexp, their exponentials; both outputs.
        peak=lambda w: w.score_bytes + 5 * w.head_bytes + 3 * row_bytes(w),
        moved=lambda w: 7 * w.score_bytes + 15 * w.head_bytes + 21 * row_bytes(w),
        mistakes={
            "the halves do not count alike: the one with larger scores weighs more": (
                lambda q, k, v: sum(_parts(q, k, v)[0]) / 2
            ),
            "the sum of two averages is no average: weigh them": (
                lambda q, k, v: sum(_parts(q, k, v)[0])
            ),
            "the weights are the sums of exponentials, not their logarithms": (
                _weighted_by_logarithms
            ),
            "divide by the sum of both weights": _not_divided,
            "the weights are swapped": lambda q, k, v: _weighted(q, k, v, swapped=True),
        },
        limit=1.5,  # P may have a name
        advice="compute one half after the other",
    ),
    Function(
        right=lambda w: (2 + 2 * ceil_div(w.seq_len, BLOCK)) * w.head_bytes,
        mistakes={
            "every block of queries reads K and V again": lambda w: 4 * w.head_bytes,
            "the last block of queries may be smaller, but reads all of K and V, too": (
                lambda w: (2 + 2 * w.seq_len / BLOCK) * w.head_bytes
            ),
            "a smaller block of queries at the end is a block, too: round up": (
                lambda w: (2 + 2 * (w.seq_len // BLOCK)) * w.head_bytes
            ),
            "O is written, too": lambda w: (1 + 2 * ceil_div(w.seq_len, BLOCK)) * w.head_bytes,
            "K and V are two": lambda w: (2 + ceil_div(w.seq_len, BLOCK)) * w.head_bytes,
            "a block of queries stays on the chip while keys pass by: Q is read once": (
                lambda w: (1 + 3 * ceil_div(w.seq_len, BLOCK)) * w.head_bytes
            ),
            "scores stay on the chip: neither S nor P moves": (
                lambda w: 6 * w.score_bytes + 4 * w.head_bytes
            ),
        },
    ),
    Task(
        peak=_tiles_peak,
        moved=_tiles_moved,
        mistakes={
            "each block of queries must see all blocks of keys, not only its own": _own_block,
            "the last block of queries is smaller, and is left out": queries_missing,
            **ONLINE,
        },
        limit=1.05,
        advice="write each block of O into one tensor, and let go of all else",
        at=replace(WORKLOADS[0], seq_len=2048),  # there are (N/128)² tiles, and all are traced
        small=Workload(batch=1, heads=2, seq_len=300, head_dim=8, dtype=torch.float64),
    ),
)
