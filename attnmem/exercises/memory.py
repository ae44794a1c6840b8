"""The exercises of the chapter memory."""

from functools import partial

import torch

from attnmem.catalog import model
from attnmem.exercises.attention import queries_missing
from attnmem.exercises.kinds import Exercise, Function, Number
from attnmem.exercises.task import Task, row_bytes
from attnmem.workload import Workload

LLAMA = model("Llama 3 8B")
W = LLAMA.workload()

NOT_ATTENTION = {
    "the scores are not scaled by 1/√d": lambda q, k, v: (q @ k.mT).softmax(-1) @ v,
    "softmax must run along the keys, the last dimension": lambda q, k, v: (
        (q @ k.mT / q.shape[-1] ** 0.5).softmax(-2) @ v
    ),
    "the rows of P must sum to 1: divide by their sums": lambda q, k, v: (
        (q @ k.mT / q.shape[-1] ** 0.5).exp() @ v
    ),
}

EXERCISES: tuple[Exercise, ...] = (
    Number(
        right=W.score_bytes / 1e9,
        unit="GB",
        mistakes={
            "that is one head: every head has its own S": W.score_bytes / LLAMA.heads / 1e9,
            "heads of keys are fewer, but every head of queries has its own S": W.score_bytes
            * LLAMA.kv_heads
            / LLAMA.heads
            / 1e9,
            "it is one of S and P, in 16 bit": 2 * W.score_bytes / 1e9,
            "that has no e: an element takes two bytes": W.score_elements / 1e9,
            "that is N·d: S has N² entries for each head": W.head_bytes / 1e9,
        },
        factors={"the number of heads": LLAMA.heads},
    ),
    Function(
        right=lambda w: 3 * w.score_bytes + 4 * w.head_bytes,
        mistakes={
            "that is standard_attention's: here the first product keeps a name, and its memory": (
                lambda w: 2 * w.score_bytes + 4 * w.head_bytes
            ),
            "Q, K and V are alive too, beside O": lambda w: 3 * w.score_bytes + w.head_bytes,
            "that is one_liner's: here products, s and p keep names, and O is there, too": (
                lambda w: 2 * w.score_bytes + 3 * w.head_bytes
            ),
            "O is alive too: the peak comes when it is allocated": (
                lambda w: 3 * w.score_bytes + 3 * w.head_bytes
            ),
        },
    ),
    Function(
        right=lambda w: 198 * w.head_dim,
        mistakes={
            "there you have 99 to 1 with one S; S and P are two": lambda w: 396 * w.head_dim,
            "N/2d is to be 99, not N/d": lambda w: 99 * w.head_dim,
            "that is where S and P are half of the bytes": lambda w: 2 * w.head_dim,
            "Q, K, V, O must be 1 % of all six tensors, not of S and P": lambda w: 200 * w.head_dim,
        },
    ),
    Task(
        peak=lambda w: w.score_bytes + 4 * w.head_bytes,
        # Scale, subtract, exponentiate, divide: each reads and writes S; two reductions read it.
        moved=lambda w: 12 * w.score_bytes + 4 * w.head_bytes + 4 * row_bytes(w),
        mistakes=NOT_ATTENTION,
        advice="torch.softmax makes a new tensor; x.exp_() and x /= y do not",
    ),
    Task(
        peak=lambda w: w.score_bytes // 4,
        # 256 queries at a time, and K and V once more for each block of them
        moved=lambda w: 6 * w.score_bytes + (2 * w.seq_len // 256 + 4) * w.head_bytes,
        mistakes={
            **NOT_ATTENTION,
            **{
                f"the last queries are left out: N need not be a multiple of {block}": partial(
                    queries_missing, block=block
                )
                for block in (64, 128, 256, 512)
            },
        },
        advice="take fewer queries at a time",
        small=Workload(batch=1, heads=2, seq_len=1000, head_dim=8, dtype=torch.float64),
    ),
)
