"""The exercises of the chapter on writing one token at a time."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from attnmem.cache import max_cached_tokens, token_bytes, weight_bytes
from attnmem.catalog import model
from attnmem.exercises.judgement import NO_ANSWER, kind_of
from attnmem.exercises.kinds import Choice, Exercise, Function, Other, named
from attnmem.exercises.language import _
from attnmem.exercises.task import Task
from attnmem.formulas import peak_bytes, standard_steps
from attnmem.workload import Workload

LLAMA = model("Llama 3.1 8B")
EIGHT_BIT = torch.float8_e4m3fn
USERS, PAGE = 4, 16

# One token over caches: no two sizes are equal, and e is 1 (of what is kept), 2, 4 and 8.
TOKENS = tuple(
    Workload(
        batch=b, heads=h, kv_heads=g, seq_len=1, kv_len=m, head_dim=d, value_dim=v, dtype=dtype
    )
    for b, h, g, m, d, v, dtype in (
        (1, 32, 8, 4096, 128, 64, torch.bfloat16),
        (3, 12, 3, 777, 40, 24, torch.float32),
        (2, 10, 1, 320, 576, 512, torch.float64),
    )
)


def _flops(w: Workload) -> int:
    return 2 * w.score_elements * (w.head_dim + w.output_shape[3])


def _intensity(w: Workload) -> float:
    return _flops(w) / (w.k_bytes + w.v_bytes)


def _cards() -> Mapping[str, Any]:
    return {f"{gib} GiB": gib * 2**30 for gib in (17, 24, 80, 141)}


def _free(memory: int) -> int:
    return memory - weight_bytes(LLAMA)


_TOKEN = token_bytes(LLAMA, EIGHT_BIT)


def _repeated(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Grouped attention as PyTorch has it."""
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def _in_turn(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Head i of the queries is given to head i mod kv_heads of the keys."""
    groups = q.shape[1] // k.shape[1]
    k, v = (x.repeat(1, groups, 1, 1) for x in (k, v))
    return F.scaled_dot_product_attention(q, k, v)


def _about_part(answer: Any) -> str:
    """What is wrong with a function of a query and a part of the keys, or nothing."""
    if not callable(answer):
        return _("expected a function of q, k, v, got {0}").format(kind_of(answer))
    for size in (1.0, 1e3):  # exp(1000) is no number in 32 bit
        complaint = _of_size(answer, size)
        if complaint:
            return complaint
    return ""


def _of_size(answer: Any, size: float) -> str:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, 16, generator=generator) for n in (1, 9, 9))
    q = q * size
    given = answer(q, k, v)
    if given is ...:
        return NO_ANSWER
    if not (isinstance(given, tuple) and len(given) == 2):
        returned = _("it must return o and the logarithm of the sum, and returned {0}")
        return returned.format(kind_of(given))
    o, lse = given
    s = q @ k.mT / 4
    exact = s.softmax(-1) @ v, s.logsumexp(-1, keepdim=True)
    if _same(o, exact[0]) and _same(lse, exact[1]):
        return ""
    if not (torch.isfinite(o).all() and torch.isfinite(lse).all()):
        return "large scores overflow: subtract the maximum before the exponential"
    mistakes = {
        "the scores are not scaled by 1/√d": (4 * s).logsumexp(-1, keepdim=True),
        "the maximum that was subtracted is missing in the logarithm": (
            exact[1] - s.amax(-1, keepdim=True)
        ),
        "that is the sum: its logarithm is asked for": exact[1].exp(),
        "that is the maximum: the sum is missing": s.amax(-1, keepdim=True),
    }
    for message, wrong in mistakes.items():
        if _same(lse, wrong):
            return message
    if _same(lse, exact[1]):
        return "the logarithm is right, the output is not: it is divided by this part's own sum"
    other = _("the logarithm of the sum is not right, or has another shape than {0}")
    return other.format(list(exact[1].shape))


def _same(a: Any, b: torch.Tensor) -> bool:
    return (
        isinstance(a, torch.Tensor)
        and a.shape == b.shape
        and torch.allclose(a, b, rtol=1e-4, atol=1e-5)
    )


EXERCISES: tuple[Exercise, ...] = (
    Function(
        right=_intensity,
        inputs=lambda: named(TOKENS),
        mistakes={
            "turn the fraction over: FLOPs per byte": lambda w: 1 / _intensity(w),
            "a multiplication and an addition are two FLOPs": lambda w: _intensity(w) / 2,
            "heads of keys are read, but heads of queries are computed": lambda w: (
                _intensity(w) / w.groups
            ),
            "values may be shorter than keys": lambda w: (
                4 * w.score_elements * w.head_dim / (w.k_bytes + w.v_bytes)
            ),
            "K is not all of the cache": lambda w: _flops(w) / w.k_bytes,
            "bytes are asked for, not numbers": lambda w: _intensity(w) * w.element_bytes,
        },
    ),
    Function(
        right=lambda memory: max_cached_tokens(
            LLAMA, memory, users=USERS, dtype=EIGHT_BIT, page=PAGE
        ),
        argument="memory size",
        inputs=_cards,
        factors={},
        mistakes={
            "the weights are on the card, too": lambda memory: (
                memory // (USERS * PAGE * _TOKEN) * PAGE
            ),
            "a page is whole, or it is not there": lambda memory: _free(memory) // (USERS * _TOKEN),
            "that many pages: tokens are asked for": lambda memory: (
                _free(memory) // (USERS * PAGE * _TOKEN)
            ),
            "that is for all users together": lambda memory: (
                _free(memory) // (PAGE * _TOKEN) * PAGE
            ),
            "the cache is in 8 bit: a byte a number": lambda memory: (
                _free(memory) // (USERS * PAGE * 2 * _TOKEN) * PAGE
            ),
            "a token has a key and a value": lambda memory: (
                _free(memory) // (USERS * PAGE * _TOKEN // 2) * PAGE
            ),
            "the weights are in bf16: two bytes each": lambda memory: (
                (memory - LLAMA.parameters) // (USERS * PAGE * _TOKEN) * PAGE
            ),
            "keys have 8 heads, not 32": lambda memory: (
                _free(memory) // (USERS * PAGE * 4 * _TOKEN) * PAGE
            ),
        },
    ),
    Task(
        peak=peak_bytes,
        moved=lambda w: sum(step.bytes_moved for step in standard_steps(w)),
        output=_repeated,
        mistakes={
            "each head of keys serves neighbours: heads 0 to 3 of the queries have its head 0": (
                _in_turn
            )
        },
        advice="repeated keys are copies: let the queries of a group be rows of one product",
        at=Workload(
            batch=2,
            heads=32,
            kv_heads=8,
            seq_len=1,
            kv_len=8192,
            head_dim=128,
            dtype=torch.bfloat16,
        ),
        small=Workload(
            batch=2, heads=8, kv_heads=2, seq_len=3, kv_len=24, head_dim=8, dtype=torch.float64
        ),
    ),
    Other(complaint=_about_part, right="right: parts like this can be merged"),
    Choice(
        right=dict(
            zip("ABCDEF", ("falls", "same", "same", "rises", "falls", "falls"), strict=True)
        ),
        mistakes={
            "A": "A: the cache counts heads of keys.",
            "B": "B: each head of queries has its own scores.",
            "C": "C: each query still meets every key of its head.",
            "D": "D: the same work on a quarter of the bytes.",
            "E": "E: at this length a layer takes as long as its cache is read.",
            "F": "F: uncut, there is one program for each head of keys.",
        },
    ),
)
