"""The summary: its tables, what its text looks up, and what it says."""

from functools import cache
from math import isclose, sqrt
from typing import Any

import torch

from attnmem import figures, programs
from attnmem.catalog import ACCELERATORS, accelerator, model
from attnmem.formulas import SCALE_BYTES, alive_at_peak, standard_steps
from attnmem.lessons.intensity import WITH_VECTOR_RATE, least_seconds, product_seconds
from attnmem.lessons.shared import OWNED, W, same_events, total
from attnmem.lessons.table import Table
from attnmem.measurement import records
from attnmem.measurement.memory import Measurement
from attnmem.prediction.kernels.fused import CUDNN_PLAN
from attnmem.prediction.trace import Trace, max_seq_len, trace
from attnmem.programs import PROGRAMS, flash_sdpa, standard_attention
from attnmem.roofline import bound, ridge_point

LLAMA, H100 = model("Llama 3 8B"), accelerator("H100 SXM")
LAYER = LLAMA.workload()  # at its full context, one sequence, bf16
# Cards that readers own.


def some_queries(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Standard attention of 1024 queries at a time."""
    parts = [standard_attention(block, k, v)[0] for block in torch.split(q, 1024, dim=-2)]
    return torch.cat(parts, dim=-2)


SDPA = (programs.math_sdpa, flash_sdpa, programs.efficient_sdpa, programs.cudnn_sdpa)
WAYS = (standard_attention, some_queries, *SDPA)


@cache
def _runs() -> list[tuple[Trace, Trace]]:
    """Of the layer by each of ``WAYS``, on a whole sequence and in training."""
    return [(trace(program, LAYER), trace(program, LAYER, training=True)) for program in WAYS]


def _moved(t: Trace) -> int:
    """The bytes that the forward pass of a run moves."""
    return sum(step.bytes_moved for step in t.steps if step.stage == "forward")


def table_of_ways() -> Table:
    """Peaks of each program for the layer, what it keeps for backward, and what it moves, in GB."""
    rows = []
    for program, (whole, training) in zip(WAYS, _runs(), strict=True):
        sizes = whole.peak_bytes, training.peak_bytes, training.saved_bytes, _moved(whole)
        rows.append((program.__name__, *(size / 1e9 for size in sizes)))
    names = "inference", "training", "kept", "moved, inference"
    return Table({"program": ""} | dict.fromkeys(names, ".2f"), rows)


def table_of_cards() -> Table:
    """For cards that readers own: what limits QKᵀ of the layer, and the longest sequences."""
    rows = []
    for card in OWNED:
        limit = bound(standard_steps(LAYER)[0], card)
        balance, lengths = ridge_point(card, matrix=True), _longest(card.memory_bytes)
        rows.append((card.name, card.memory_gib, balance, limit, *lengths))
    columns = {"card": "", "GiB": "g", "balance point": ".0f", "QKᵀ limited by": ""}
    names = "standard, inference", "standard, training", "flash, training"
    return Table(columns | dict.fromkeys(names, ","), rows)


@cache
def _longest(memory: int) -> list[int]:
    """The longest sequences of the layer that fit: standard attention, training, and with flash."""
    runs = ((standard_attention, False), (standard_attention, True), (flash_sdpa, True))
    return [max_seq_len(program, LAYER, memory, training=on) for program, on in runs]


@cache
def _compared() -> list[tuple[Measurement, bool]]:
    """Each recorded run that was warmed up and ended, and whether all was as predicted."""
    sizes = ("peak_bytes", "peak_allocated_bytes", "peak_reserved_bytes", "saved_bytes")
    named = {program.__name__: program for program in PROGRAMS}
    found = []
    for m in (m for path in records.RECORDS for m in records.load(path).measurements):
        if m.warm_up and not m.out_of_memory:
            t = trace(named[m.program], m.workload, m.training)
            same = all(getattr(m, name) == getattr(t, name) for name in sizes)
            found.append((m, same and same_events(m, t)))
    return found


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    (whole, training), *_, (_, flash) = _runs()[:4]
    ends, runs = 4 * LAYER.head_bytes, _compared()
    recorded = [m for path in records.RECORDS for m in records.load(path).measurements]
    cells = len({(m.program, m.workload, m.training) for m, _ in runs})
    peaks = {
        "inference": alive_at_peak(LAYER),
        "training": alive_at_peak(LAYER, training=True),
        "with FlashAttention": {
            "gradients and copies": flash.peak_bytes - ends,
            "Q, K, V, O": ends,
        },
    }
    in_gb = {"ends": ends, "whole": whole.peak_bytes, "training": training.peak_bytes}
    in_gb |= {"flash": flash.peak_bytes, "kept": LLAMA.layers * training.saved_bytes}
    return {name: size / 1e9 for name, size in in_gb.items()} | {
        "peaks": figures.stacks(peaks),
        "times": whole.peak_bytes / ends,
        "context": LLAMA.context,
        "layers": LLAMA.layers,
        "card_gib": H100.memory_gib,
        "least_ms": 1e3 * least_seconds(LAYER, H100),
        "fused_ms": 1e3 * product_seconds(LAYER, H100),
        "cards": len(ACCELERATORS),
        "vector_cards": len(WITH_VECTOR_RATE),
        "runs": len(runs),
        "failed": sum(m.out_of_memory for m in recorded),
        "cold": sum(not m.warm_up for m in recorded),
        "cells": cells,
        "twice": len(runs) - cells,
        "programs": len(PROGRAMS),
        "records": " and ".join(records.load(path).provenance.device for path in records.RECORDS),
        "cudnn": CUDNN_PLAN,
    }


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    found, whole = numbers(), trace(standard_attention, W)
    cuda, cpu = (trace(standard_attention, W, True, device) for device in ("cuda", "cpu"))
    small, large = (max_seq_len(standard_attention, W, n * 2**36) for n in (1, 2))
    short = [bound(step, card) for card in ACCELERATORS for step in standard_steps(W)]
    standard, blocks, by_math, *fused = (whole for whole, _ in _runs())
    most = [training.peak_bytes / _runs()[0][1].peak_bytes for _, training in _runs()]
    kept = LLAMA.layers * _runs()[0][1].saved_bytes
    least, products = least_seconds(LAYER, H100), product_seconds(LAYER, H100)
    limits = [bound(standard_steps(LAYER)[0], card) for card in OWNED]
    return {
        "a whole sequence peaks at 2S + 4X": whole.peak_bytes == total(W, 2, 4),
        "training peaks at 4S + 6X on CUDA": cuda.peak_bytes == total(W, 4, 6),
        "at 3S + 6X and one scalar on a CPU": cpu.peak_bytes == total(W, 3, 6) + SCALE_BYTES,
        "of all N×N tensors only P is kept": cuda.saved_bytes == W.score_bytes,
        "twice the memory gives √2 times the length": isclose(large / small, sqrt(2), rel_tol=0.01),
        "a forward pass moves 6S + 4X": _moved(whole) == total(W, 6, 4),
        "at d = 64 the bound of every step is memory, on all cards": set(short) == {"memory"},
        "compared runs, failed ones and those without a warm-up are all that were recorded": (
            found["runs"] + found["failed"] + found["cold"]
            == sum(len(records.load(path).measurements) for path in records.RECORDS)
        ),
        "every program was run": len({m.program for m, _ in _compared()}) == len(PROGRAMS),
        "on two GPUs": len(records.RECORDS) == 2,
        "everything is equal in all runs": all(exact for _, exact in _compared()),
        "training doubles it": round(_runs()[0][1].peak_bytes / standard.peak_bytes, 1) == 2,
        "fused, less than a twentieth": max(most[3:]) < 1 / 20,
        "the math kernel needs twice as much": round(most[2], 1) == 2,
        "queries in blocks save memory, no traffic": (
            blocks.peak_bytes < standard.peak_bytes and _moved(blocks) >= _moved(standard)
        ),
        "a fused kernel saves both": all(
            t.peak_bytes < blocks.peak_bytes and _moved(t) < _moved(standard) for t in fused
        ),
        "what all layers keep is too much": by_math.peak_bytes < H100.memory_bytes < kept,
        "arithmetic limits QKᵀ on two of seven": limits.count("compute") == 2,
        "nearly all the time is S and P": 6 * LAYER.score_bytes / H100.bandwidth > 0.9 * least,
        "the products take a seventh": round(least / products) == 7,
        "and bound a fused kernel": 4 * LAYER.head_bytes / H100.bandwidth < products,
    }
