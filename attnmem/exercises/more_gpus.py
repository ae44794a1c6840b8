"""The exercises of the chapter on more than one GPU."""

from collections.abc import Mapping
from typing import Any

import torch

from attnmem.exercises.judgement import NO_ANSWER, kind_of
from attnmem.exercises.kinds import Choice, Exercise, Function, Other, named
from attnmem.exercises.language import _
from attnmem.workload import Workload

RANKS = 8

# Whole sequences, which eight ranks divide; keys are shared, or not.
SHARED = tuple(
    Workload(batch=b, heads=h, kv_heads=g, seq_len=n, head_dim=d, dtype=dtype)
    for b, h, g, n, d, dtype in (
        (1, 32, 8, 65536, 128, torch.bfloat16),
        (3, 12, 12, 4096, 40, torch.float32),
        (2, 10, 5, 1600, 96, torch.float64),
    )
)

# As many heads of keys as of queries; four machines of four divide tokens and heads.
OWN = tuple(
    Workload(batch=b, heads=h, seq_len=n, head_dim=d, dtype=dtype)
    for b, h, n, d, dtype in (
        (1, 32, 65536, 128, torch.bfloat16),
        (3, 12, 4096, 40, torch.float32),
    )
)


def _sent(w: Workload) -> float:
    return (RANKS - 1) / RANKS * (w.k_bytes + w.v_bytes)


def _many() -> Mapping[str, Any]:
    return {f"{ranks} ranks": ranks for ranks in (2, 3, 8, 64)}


def _both(w: Workload) -> float:
    return 9 * w.head_bytes / 16


def _about_merge(answer: Any) -> str:
    """What is wrong with a function that merges rows with those of a block, or nothing."""
    if not callable(answer):
        wanted = _("expected a function of o, lse, o_new, lse_new, got {0}")
        return wanted.format(kind_of(answer))
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, 16, generator=generator) for n in (5, 9, 9))
    s = 3 * q @ k.mT
    parts = [
        (scores.softmax(-1) @ values, scores.logsumexp(-1, keepdim=True))
        for scores, values in zip(torch.split(s, 3, -1), torch.split(v, 3, -2), strict=True)
    ]
    exact = s.softmax(-1) @ v, s.logsumexp(-1, keepdim=True)
    given, mistaken = parts[0], parts[0]
    for part in parts[1:]:
        given = answer(*(x.clone() for x in (*given, *part)))
        if given is ...:
            return NO_ANSWER
        if not (isinstance(given, tuple) and len(given) == 2):
            return _("it must return o and lse, and returned {0}").format(kind_of(given))
        mistaken = _late(*mistaken, *part)
    if all(_same(a, b) for a, b in zip(given, exact, strict=True)):
        return ""
    o, lse = given
    if _same(o, mistaken[0]):
        return "the share needs the lse of the rows so far, and that was overwritten before"
    if _same(lse, exact[1]):
        return "lse is right, o is not: weigh each output by its share of both sums"
    if _same(o, torch.stack([part[0] for part in parts]).sum(0)):
        return "outputs are averages: adding them up counts each row several times"
    return "lse is not right: it is the logarithm of the sum of both exponentials"


def _late(
    o: torch.Tensor, lse: torch.Tensor, o_new: torch.Tensor, lse_new: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The merge of the starter: lse is replaced before it is used."""
    lse = torch.logaddexp(lse, lse_new)
    return o + torch.sigmoid(lse_new - lse) * (o_new - o), lse


def _same(a: Any, b: torch.Tensor) -> bool:
    return isinstance(a, torch.Tensor) and a.shape == b.shape and torch.allclose(a, b, atol=1e-5)


EXERCISES: tuple[Exercise, ...] = (
    Function(
        right=_sent,
        inputs=lambda: named(SHARED),
        mistakes={
            "a block is passed on once less often than there are ranks": lambda w: (
                w.k_bytes + w.v_bytes
            ),
            "K and V are sent, and that is one of them": lambda w: _sent(w) / 2,
            "heads of keys are sent, not heads of queries": lambda w: _sent(w) * w.groups,
            "that is what all ranks send together": lambda w: RANKS * _sent(w),
            "queries stay where they are": lambda w: _sent(w) + (RANKS - 1) / RANKS * w.q_bytes,
            "that is one step: a block is passed on several times": lambda w: (
                (w.k_bytes + w.v_bytes) / RANKS
            ),
        },
    ),
    Other(complaint=_about_merge, right="right: three blocks merge into the whole row"),
    Choice(
        right={
            "A": "all-to-all",
            "B": "ring",
            "C": "all-to-all",
            "D": "all-to-all",
            "E": "ring",
        },
        mistakes={
            "A": "A: a ring sends 6x.",
            "B": "B: with two ranks and shared keys, Q and O are more than K and V.",
            "C": "C: a ring sends seven blocks.",
            "D": "D: K and V are there twice, and still all-to-all sends Q and O once only.",
            "E": "E: there are 32 heads for 64 ranks.",
        },
    ),
    Function(
        right=lambda ranks: ranks / (2 * ranks - 1),
        argument="rank count",
        inputs=_many,
        factors={},
        mistakes={
            "the last rank's block on the diagonal is half a block": lambda ranks: 1 / 2,
            "on average a rank computes R/2 blocks, half a block of the diagonal with them": (
                lambda ranks: (ranks - 1) / 2 / (ranks - 1 / 2)
            ),
            "turn the fraction over: it is at most 1": lambda ranks: (2 * ranks - 1) / ranks,
            "a share of 1 is asked for, not per cent": lambda ranks: 100 * ranks / (2 * ranks - 1),
        },
    ),
    Function(
        right=_both,
        inputs=lambda: named(OWN),
        mistakes={
            "that is one ring of 16": lambda w: 30 * w.head_bytes / 16,
            "that is one all-to-all of 16": lambda w: 4 * w.head_bytes / 16 * 15 / 16,
            "the ring is missing": lambda w: 3 * w.head_bytes / 16,
            "all-to-all is missing, or V in the blocks": lambda w: 6 * w.head_bytes / 16,
            "a rank keeps its own quarter: three quarters are sent": lambda w: (
                10 * w.head_bytes / 16
            ),
            "a block is passed on three times, not four": lambda w: 11 * w.head_bytes / 16,
            "O goes back, too": lambda w: (3 * 3 / 4 + 6) * w.head_bytes / 16,
            "that is what all ranks send together": lambda w: 9 * w.head_bytes,
        },
    ),
)
