"""The exercises of the chapter measurement."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import torch

from attnmem.catalog import model
from attnmem.exercises.kinds import Choice, Exercise, Function, Number
from attnmem.formulas import peak_bytes
from attnmem.prediction.allocator import CachingAllocator, cublas_workspace
from attnmem.prediction.trace import trace
from attnmem.programs import Program, dropout_attention, standard_attention
from attnmem.workload import Workload, round_up

KIB, MIB = 2**10, 2**20
ODD = Workload(batch=1, heads=12, seq_len=777, head_dim=64, dtype=torch.float16)
REPAIRED = model("GPT-2 medium").workload(256, dtype=torch.float16)
OLDER = (8, 0)  # a compute capability before Hopper's

Events = Sequence[tuple[int, int]]


def _histories() -> dict[str, list[int]]:
    return {
        "[4, 2, -4, 3, -2, -3]": [4, 2, -4, 3, -2, -3],
        "[1, 5, -5, 2], where something stays": [1, 5, -5, 2],
        "[3, -3, 4, 4, -4, 2, 2], where the peak comes twice": [3, -3, 4, 4, -4, 2, 2],
        "a run of standard attention": [e.bytes for e in trace(standard_attention, ODD).timeline],
    }


def _sizes() -> dict[str, int]:
    return {
        "1 B": 1,
        "1,000 B": 1000,
        "1 MiB": MIB,
        "1 MiB and 1 B": MIB + 1,
        "3 MiB": 3 * MIB,
        "10 MiB less 512 B": 10 * MIB - 512,
        "10 MiB less 1 B": 10 * MIB - 1,
        "10 MiB": 10 * MIB,
        "16 MiB and 1 B": 16 * MIB + 1,
        "S with N = 777": ODD.score_bytes,
    }


def _segment(size: int) -> int:
    allocator = CachingAllocator()
    allocator.allocate(size)
    return allocator.reserved


def _events(program: Program, w: Workload, training: bool = False) -> list[tuple[int, int]]:
    """What a run allocates and frees, each tensor with a number."""
    t = trace(program, w, training)
    moments = []
    for tensor, (_, size, start, end) in enumerate(t.lifetimes):
        moments.append((start, tensor, size))
        if end < len(t.timeline):
            moments.append((end, tensor, -size))
    return [(tensor, size) for _, tensor, size in sorted(moments)]


def _lists_of_events() -> dict[str, list[tuple[int, int]]]:
    halves = MIB // 2
    return {
        "sizes that are rounded: one tensor of 1,000 B": [(0, 1000)],
        "a rest that stays with its tensor: one tensor of 11.5 MiB": [(0, 23 * halves)],
        "a rest that is split off: 3 MiB, then 4 MiB": [(0, 3 * MIB), (1, 4 * MIB)],
        "small blocks, whose rests are always split off: 600 KiB three times": [
            (0, 600 * KIB),
            (1, 600 * KIB),
            (2, 600 * KIB),
        ],
        "a small block, which must not come from a large segment": [
            (0, 19 * halves),
            (1, 9 * MIB + 256 * KIB),
            (2, halves),
            (3, 1152 * KIB),
        ],
        "a freed block that is used again": [
            (0, 30 * MIB),
            (0, -30 * MIB),
            (1, 27 * MIB + 256 * KIB),
            (2, 40 * MIB),
        ],
        "the smallest free block that fits": [
            (0, 40 * MIB),
            (1, 30 * MIB),
            (0, -40 * MIB),
            (1, -30 * MIB),
            (2, 59 * halves),
            (3, 40 * MIB),
            (4, 100 * MIB),
        ],
        "free neighbours that join": [
            (0, 6 * MIB),
            (1, 6 * MIB),
            (0, -6 * MIB),
            (1, -6 * MIB),
            (2, 31 * halves),
        ],
        "a run of standard attention": _events(standard_attention, ODD),
        "a run of standard attention in training": _events(standard_attention, ODD, training=True),
        "a run with dropout in training": _events(dropout_attention, ODD, training=True),
        "a run with many heads in training": _events(
            standard_attention, replace(ODD, batch=2, heads=7, head_dim=40), training=True
        ),
    }


def _allocated(events: Events) -> int:
    allocator = CachingAllocator()
    blocks = {}
    for tensor, size in events:
        if size > 0:
            blocks[tensor] = allocator.allocate(size)
        else:
            allocator.free(blocks.pop(tensor))
    return allocator.peak_allocated


def _peak_rounded(events: Events, step: int) -> int:
    sizes = (round_up(abs(size), step) * (1 if size > 0 else -1) for _, size in events)
    return max(accumulate(sizes))


EXERCISES: tuple[Exercise, ...] = (
    Choice(
        right={
            "A": "requested",
            "B": "allocated",
            "C": "reserved",
            "D": "reserved",
            "E": "allocated",
            "F": "requested",
        },
        mistakes={
            "A": "A: a formula knows sizes of tensors; of blocks and segments it knows nothing.",
            "B": "B: its name says which.",
            "C": "C: the driver sees segments, and nothing of what lies in them.",
            "D": "D: a freed block goes to the cache, not to the driver.",
            "E": "E: the tensor has 2 B, and 512 B is the unit of blocks.",
            "F": "F: that product is the size of the tensor; it is no multiple of 512.",
        },
    ),
    Function(
        right=lambda sizes: max(accumulate(sizes)),
        argument="list",
        inputs=_histories,
        factors={},
        mistakes={
            "that is all that was ever allocated: releases give it back": lambda sizes: sum(
                size for size in sizes if size > 0
            ),
            "that is what is alive at the end; the peak comes before": sum,
            "that is the largest tensor; several are alive at the peak": max,
            "releases are negative already: add them": lambda sizes: sum(map(abs, sizes)),
        },
    ),
    Function(
        right=lambda w: 4 * w.score_bytes + 5 * w.head_bytes,
        mistakes={
            "that is the first pass. In the second, o, s and p still hold what the first made": (
                peak_bytes
            ),
            "s and p hold two of the four; o holds one more tensor": (
                lambda w: 4 * w.score_bytes + 4 * w.head_bytes
            ),
            "Q, K and V are the same in every pass": lambda w: 4 * w.score_bytes + 8 * w.head_bytes,
            "the names hold the pass before, not all passes": lambda w: (
                10 * w.score_bytes + 8 * w.head_bytes
            ),
        },
    ),
    Number(
        right=cublas_workspace(OLDER),
        exact=True,
        unit="bytes",
        mistakes={
            "that is what the peak should be; by how much is the number too large?": (
                peak_bytes(REPAIRED)
            ),
            "that is the workspace of an H100; the table says how large this one is": (
                cublas_workspace((9, 0))
            ),
            "Q, K and V are alive at the peak too: 2S + 4X": cublas_workspace(OLDER)
            + 3 * REPAIRED.head_bytes,
            "do not compare rows with each other, but each with 2S + 4X": (
                peak_bytes(replace(REPAIRED, seq_len=512))
                - peak_bytes(REPAIRED)
                - cublas_workspace(OLDER)
            ),
            "that is 8 MiB; the workspace has a little more": 8 * MIB,
        },
    ),
    Function(
        right=_segment,
        argument="size",
        inputs=_sizes,
        factors={},
        mistakes={
            "that is the block; it is cut from a segment": lambda size: round_up(size, 512),
            "between 1 and 10 MiB a block does not get a segment of its own size": (
                lambda size: round_up(size, 2 * MIB)
            ),
            "above 1 MiB not every segment has 20 MiB: from 10 MiB on it is as large as its block,"
            " rounded up": lambda size: 2 * MIB if size <= MIB else round_up(size, 20 * MIB),
            "round to 512 B first: the limits are limits for blocks": lambda size: (
                20 * MIB if MIB < size < 10 * MIB else round_up(size, 2 * MIB)
            ),
            "a block of 1 MiB is still a small one": lambda size: (
                20 * MIB if size == MIB else _segment(size)
            ),
            "a block of 10 MiB has a segment of its own": lambda size: (
                20 * MIB if round_up(size, 512) == 10 * MIB else _segment(size)
            ),
        },
    ),
    Function(
        right=_allocated,
        argument="list",
        inputs=_lists_of_events,
        factors={},
        mistakes={
            "that is the peak of requested bytes: blocks are rounded": (
                lambda events: _peak_rounded(events, 1)
            ),
            "you round every size to 512 B; a large block may also keep an unused rest": (
                lambda events: _peak_rounded(events, 512)
            ),
        },
    ),
)
