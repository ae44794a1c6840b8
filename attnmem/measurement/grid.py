"""What a record holds: which programs, on which sizes."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch

from attnmem.corpus import CORPUS, WORKLOADS
from attnmem.cures import cells
from attnmem.programs import (
    PROGRAMS,
    Program,
    cudnn_sdpa,
    efficient_sdpa,
    flash_sdpa,
    standard_attention,
)
from attnmem.workload import Workload


class Case(NamedTuple):
    """What is measured: a program, its workload, whether it trains, whether it is warmed up."""

    program: Program
    workload: Workload
    training: bool = False
    warm_up: bool = True


def grid() -> list[Case]:
    """The cells of a record: standard attention up to where a GPU ends, and every program.

    A few of the first are measured a second time, without a warm-up. No cell asks a fused kernel
    for a dtype or a head dimension that it does not take.

    >>> program, w, training, warm_up = grid()[0]
    >>> program.__name__, w.seq_len, training, warm_up
    ('standard_attention', 512, False, True)
    """
    short = Workload(batch=1, heads=12, seq_len=512, head_dim=64, dtype=torch.float16)
    powers = [replace(short, seq_len=2**power) for power in range(9, 18)]
    shapes = [
        Workload(batch=b, heads=h, seq_len=n, head_dim=d, dtype=dtype)
        for b, h, n, d in SHAPES
        for dtype in (torch.float16, torch.bfloat16, torch.float32)
    ]
    return [
        *(Case(standard_attention, w) for w in powers),
        *(Case(standard_attention, w, training=True) for w in powers[:7]),
        *(
            Case(program, w, training)
            for program in PROGRAMS
            for w in shapes
            for training in (False, True)
            if _exists(program, w) and not (program is standard_attention and w in powers)
        ),
        *(Case(standard_attention, w, warm_up=False) for w in powers[:4]),
    ]


def speed_grid() -> list[Case]:
    """The runs of a record whose steps are timed and whose traffic is counted."""
    short = Workload(batch=1, heads=12, seq_len=128, head_dim=64, dtype=torch.float16)
    powers = [replace(short, seq_len=2**power) for power in range(7, 15)]
    return [
        *(
            Case(standard_attention, replace(w, head_dim=d, dtype=dtype))
            for dtype in (torch.float16, torch.float32)
            for d in (64, 128, 256)
            for w in powers
        ),
        *(Case(program, w) for program in (flash_sdpa, efficient_sdpa, cudnn_sdpa) for w in powers),
        *(
            Case(program, w, training=True)
            for program in (standard_attention, flash_sdpa)
            for w in powers[2:7]
        ),
    ]


def corpus_grid(device: str | torch.device) -> Iterator[Case]:
    """The corpus on all its workloads, with and without training, made on ``device``."""
    for entry in CORPUS.values():
        for w in filter(entry.fits, WORKLOADS):
            with torch.device(device):
                program = entry.make(w)
            program.__name__ = entry.name
            yield Case(program, w)
            yield Case(program, w, training=True)


def modules_grid(device: str | torch.device) -> Iterator[tuple[str, Case]]:
    """Of the corpus, the modules, each with a name for its cell."""
    for case in corpus_grid(device):
        if isinstance(case.program, torch.nn.Module):
            w = case.workload
            mode = "training" if case.training else "inference"
            yield f"{case.program.__name__} {list(w.shape)} {str(w.dtype)[6:]} {mode}", case


def cures_grid(device: str | torch.device) -> Iterator[Case]:
    """Every cure before and after its change, made on ``device``."""
    for _, program, w, training in cells(device):
        yield Case(program, w, training)


# (batch, heads, seq_len, head_dim)
SHAPES = (
    (1, 1, 64, 32),
    (1, 3, 333, 33),
    (2, 8, 512, 128),
    (1, 12, 777, 64),
    (2, 7, 777, 40),
    (3, 5, 1000, 80),
    (4, 2, 2048, 96),
    (1, 12, 8192, 64),
)


def _exists(program: Program, w: Workload) -> bool:
    """Whether a fused kernel takes the dtype and the head dimension."""
    half = w.element_bytes == 2
    if program is efficient_sdpa:
        return w.head_dim % (8 if half else 4) == 0
    if program is cudnn_sdpa:
        return half and w.head_dim % 8 == 0
    return half or program is not flash_sdpa
