"""The exercises of the chapter on attention in tiles."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from attnmem.exercises.attention import BLOCK
from attnmem.exercises.judgement import NO_ANSWER, Judgement, kind_of
from attnmem.exercises.kinds import Choice, Exercise, Function, Other
from attnmem.exercises.language import _
from attnmem.exercises.task import Task
from attnmem.exercises.training import GRADIENTS
from attnmem.prediction.trace import trace
from attnmem.tiles import Rows, attend, costs, merge
from attnmem.workload import Workload, ceil_div

Tensor = torch.Tensor

# Merges of two blocks, each with a mistake; ``x`` is what the rows of a shrink by, ``y`` of b.
MERGES: dict[str, Callable[[Rows, Rows, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "when the maximum changes, sum and output must shrink by exp(old − new)": (
        lambda a, b, x, y: (a.total + b.total, a.output + b.output)
    ),
    "the sum must shrink, too, not only the output": (
        lambda a, b, x, y: (a.total + b.total, a.output * x + b.output * y)
    ),
    "the output must shrink, too, not only the sum": (
        lambda a, b, x, y: (a.total * x + b.total * y, a.output + b.output)
    ),
    "the factors are swapped: a block shrinks by exp(its own maximum − the new one)": (
        lambda a, b, x, y: (a.total * y + b.total * x, a.output * y + b.output * x)
    ),
    "either block may have the larger maximum: both may have to shrink": (
        lambda a, b, x, y: (a.total * x + b.total, a.output * x + b.output)
    ),
    "the outputs are not divided yet: what is divided at the end must not be divided here": (
        lambda a, b, x, y: (
            a.total * x + b.total * y,
            (a.output * x + b.output * y) / (a.total * x + b.total * y),
        )
    ),
}


def _about_merge(answer: Any) -> str:
    """What is wrong with a function of two blocks' rows, or nothing."""
    if not callable(answer):
        return _("expected a function of two blocks, got {0}").format(kind_of(answer))
    generator = torch.Generator().manual_seed(0)
    s = 5 * torch.randn(6, 9, generator=generator, dtype=torch.float64)
    v = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    a, b = attend(s[:, :4].clone(), v[:4]), attend(s[:, 4:].clone(), v[4:])
    given = answer(Rows(*(x.clone() for x in a)), Rows(*(x.clone() for x in b)))
    if given is ...:
        return NO_ANSWER
    if not (isinstance(given, tuple) and len(given) == 3):
        returned = _("it must return maximum, total and output, and returned {0}")
        return returned.format(kind_of(given))
    right = merge(a, b)
    if not _same(given[0], right.maximum):
        return "the maximum of both blocks is the larger of the two, in each row"
    x, y = (a.maximum - right.maximum).exp(), (b.maximum - right.maximum).exp()
    if _same(given[1], right.total) and _same(given[2], right.output):
        return ""
    for message, mistake in MERGES.items():
        if all(map(_same, given[1:], mistake(a, b, x, y))):
            return message
    return "the sum is not right" if not _same(given[1], right.total) else "the output is not right"


def _same(a: Any, b: Tensor) -> bool:
    return isinstance(a, Tensor) and a.shape == b.shape and torch.allclose(a, b)


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def _strictly_causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A token that does not see itself."""
    s = q @ k.mT / math.sqrt(q.shape[-1])
    return s.masked_fill(torch.ones(s.shape[-2:]).triu().bool(), -math.inf).softmax(-1) @ v


def _whole_tiles(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Tiles in the future are skipped, and nothing is masked in the others."""
    s = q @ k.mT / math.sqrt(q.shape[-1])
    block = torch.arange(q.shape[-2]) // BLOCK
    return s.masked_fill(block > block[:, None], -math.inf).softmax(-1) @ v


@dataclass(frozen=True)
class Skipping(Task):
    """A task whose program computes at most ``most`` of the products of all scores."""

    most: float = 0.55

    def judge(self, answer: Any) -> Judgement:
        """Judge as a task, then by FLOPs."""
        judged = super().judge(answer)
        if not judged.passed:
            return judged
        flops = sum(step.flops for step in trace(answer, self.at).steps if step.matrix)
        share = flops / (4 * self.at.score_elements * self.at.head_dim)
        if share > self.most:
            too_many = _(
                "O is right, but it computes {0:.0%} of the products of all scores: "
                "keys in the future of a whole block need none"
            )
            return Judgement(False, too_many.format(share))
        computed = _("{0:.0%} of the products of all scores").format(share)
        return Judgement(True, f"{judged.message}\n{computed}")


def _rows_of_scores(w: Workload) -> int:
    """A block of queries against all keys, in bytes."""
    return w.batch * w.heads * BLOCK * w.seq_len * w.element_bytes


def _causal_moved(w: Workload) -> int:
    """Eight passes over the scores that are not skipped, K and V so far, and masks of a byte."""
    blocks = ceil_div(w.seq_len, BLOCK)
    all_keys = 8 * _rows_of_scores(w) + 2 * w.head_bytes + 4 * BLOCK * w.seq_len
    return (blocks + 1) * all_keys // 2 + 4 * w.head_bytes


def _again_peak(w: Workload) -> int:
    """Eight X, and P, dP, dS and a temporary of a block of queries, but for its part of dQ."""
    return 8 * w.head_bytes + 4 * _rows_of_scores(w) - w.head_bytes * BLOCK // w.seq_len


def _again_moved(w: Workload) -> int:
    return 23 * w.score_bytes + (13 * ceil_div(w.seq_len, BLOCK) + 7) * w.head_bytes


def _intensity(w: Workload) -> float:
    return 4 * w.score_elements * w.head_dim / costs.received(w, BLOCK)


EXERCISES: tuple[Exercise, ...] = (
    Other(complaint=_about_merge, right="right: any two blocks merge"),
    Function(
        right=_intensity,
        mistakes={
            "turn the fraction over: FLOPs per byte": lambda w: 1 / _intensity(w),
            "there are two products, and two FLOPs for each of their multiplications": lambda w: (
                _intensity(w) / 2
            ),
            "K and V are two": lambda w: (
                4
                * w.score_elements
                * w.head_dim
                / ((1 + ceil_div(w.seq_len, BLOCK)) * w.head_bytes)
            ),
            "every block of queries receives K and V again": lambda w: (
                4 * w.score_elements * w.head_dim / (3 * w.head_bytes)
            ),
            "what is written is not received": lambda w: (
                4 * w.score_elements * w.head_dim / costs.traffic(w, BLOCK)
            ),
            "a smaller block of queries at the end is a block, too: round up": lambda w: (
                4 * w.score_elements * w.head_dim / ((1 + 2 * w.seq_len / BLOCK) * w.head_bytes)
            ),
        },
    ),
    Skipping(
        peak=lambda w: 4 * w.head_bytes + 4 * _rows_of_scores(w),
        moved=_causal_moved,
        output=_causal,
        mistakes={
            "there is no mask: each query sees all keys": F.scaled_dot_product_attention,
            "a token sees itself": _strictly_causal,
            "at the diagonal, some keys are in the future of some queries": _whole_tiles,
        },
        advice="one block of queries at a time",
        small=Workload(batch=1, heads=2, seq_len=300, head_dim=8, dtype=torch.float64),
    ),
    Task(
        peak=_again_peak,
        moved=_again_moved,
        mistakes=GRADIENTS,
        training=True,
        limit=1.01,
        advice="a block of queries at a time, computed again in backward",
    ),
    Choice(
        right={
            "A": "falls",
            "B": "same",
            "C": "same",
            "D": "same",
            "E": "rises",
            "F": "falls",
        },
        mistakes={
            "A": "A: K and V are received once for each block of queries.",
            "B": "B: what the blocks receive again comes from the L2 cache.",
            "C": "C: every query meets every key, in whatever order.",
            "D": "D: a tile lives in registers: beside Q, K, V and O there is a number a row.",
            "E": "E: the block of Q, its rows and its tile are held on the chip.",
            "F": "F: there is a program for each block of queries of each head.",
        },
    ),
)
