"""More cures: a ledger of a whole model, names, copies and casts, compiled code and graphs."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch

from attnmem import figures
from attnmem.catalog import accelerator
from attnmem.cures import CURES
from attnmem.cures.compiled import timed
from attnmem.cures.kernels import unfused
from attnmem.cures.training import layers_unfused
from attnmem.lessons.shared import made, total
from attnmem.lessons.table import Table
from attnmem.lessons.what_to_do import ledger
from attnmem.lessons.what_to_do.cures import kept_per_score, profiles, record, run_of, shown
from attnmem.prediction.trace import trace

#: Programs of the cure "names" -> what the figure calls them.
NAMED = {
    "three_names": "every step has a name",
    "no_names": "none has",
    "in_place": "in place",
}

#: How the page calls what is timed.
WAYS = {
    "layers_unfused": "as it stands",
    "GraphedLayers": "CUDA graph",
    "CompiledLayers": "compiled",
    "layers_fused": "fused call",
}


@cache
def times() -> dict[int, dict[str, float]]:
    """Length -> what is timed -> seconds of a forward pass of four layers."""
    runs = {(run.program, run.workload.seq_len): run.whole for run in record().runs}
    return {
        n: {name: whole.seconds for name in WAYS if (whole := runs[name, n])}
        for n in sorted({each.workload.seq_len for each in timed()})
    }


def table_of_times() -> Table:
    """Times of four layers in microseconds."""
    rows = [(n, *(found[name] * 1e6 for name in WAYS)) for n, found in times().items()]
    return Table({"N": ""} | {f"{way} (µs)": ",.0f" for way in WAYS.values()}, rows)


@cache  # it draws, and claims ask for one number after the other
def numbers() -> dict[str, Any]:
    """What the text looks up."""
    rows, there = ledger.ledger(), ledger.at_the_loss()
    state = sum(rows[name][0] for name in ("weights", "gradients", "optimizer"))
    split, plain = run_of("split heads", "split_unfused"), run_of("fused kernel", "unfused")
    short, *_, long = times().values()
    return {
        "ledger": figures.ledger(ledger.parts()),
        "profiles_names": profiles("names", NAMED, training=False),
        "made": made(record()),
        "llama_n": ledger.W.seq_len,
        "llama_parameters": ledger.parameters() / 1e9,
        "llama_state_gb": state / 1e9,
        "llama_attention_gb": rows["kept by attention"][0] / 1e9,
        "llama_fused_gb": rows["kept by attention"][1] / 1e9,
        "llama_rest_gb": rows["kept by the rest"][1] / 1e9,
        "llama_again_gb": rows["kept by the rest"][2] / 1e9,
        "llama_first_gb": there[0] / 1e9,
        "llama_last_gb": there[-1] / 1e9,
        "h100_gb": accelerator("H100 SXM").memory_bytes / 1e9,
        "whole_mb": shown(CURES["accumulation"])[0].recorded.peak_bytes / 1e6,
        "parts_mb": shown(CURES["accumulation"])[1].recorded.peak_bytes / 1e6,
        "copies_mb": (split.recorded.saved_bytes - plain.recorded.saved_bytes) / 1e6,
        "kept_autocast": kept_per_score("autocast", "autocast_unfused"),
        "kept_plain": kept_per_score("fused kernel", "unfused"),
        "auto_mb": _under_autocast(unfused, None) / 1e6,
        "auto_f16_mb": _under_autocast(unfused, torch.float16) / 1e6,
        "four_mb": _under_autocast(layers_unfused, None) / 1e6,
        "four_f16_mb": _under_autocast(layers_unfused, torch.float16) / 1e6,
        "four_bf16_mb": _under_autocast(layers_unfused, torch.bfloat16) / 1e6,
        "f16_mb": _softmax_in_32_bit(torch.float16) / 1e6,
        "bf16_mb": _softmax_in_32_bit(torch.bfloat16) / 1e6,
        "compiled": run_of("compile", "Compiled", training=False).recorded.peak_bytes,
        "graph_gain": short["layers_unfused"] / short["GraphedLayers"],
        "fused_gain": long["layers_unfused"] / long["layers_fused"],
    }


def _softmax_in_32_bit(dtype: torch.dtype, training: bool = True) -> int:
    """The traced peak of softmax in 32 bit, with inputs in ``dtype``."""
    cure = CURES["softmax in 32 bit"]
    return trace(cure.before, replace(cure.workloads[0], dtype=dtype), training).peak_bytes


def _under_autocast(program: Callable[..., torch.Tensor], dtype: torch.dtype | None) -> int:
    """The traced peak of a program in training, with inputs in 32 bit and under autocast or not."""

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        with torch.autocast(q.device.type, dtype, enabled=dtype is not None):
            return program(q, k, v)

    return trace(run, CURES["autocast"].workloads[0], training=True).peak_bytes


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    split, plain = (
        [run_of(cure, name, which=which).recorded for which in (0, 1)]
        for cure, name in (("split heads", "split_unfused"), ("fused kernel", "unfused"))
    )
    w, auto = CURES["compile"].workloads[0], CURES["autocast"]
    rows, (short, _, third, long) = ledger.ledger(), times().values()
    return {
        "for two sequences Q, K and V are kept as copies, for one they are not": [
            a.saved_bytes - b.saved_bytes for a, b in zip(split, plain, strict=True)
        ]
        == [3 * w.head_bytes, 0],
        "and the peak is 2X higher": (
            split[0].peak_bytes - plain[0].peak_bytes == 2 * w.head_bytes
        ),
        "copies before the fused call cost four tensors, but for what cuDNN asks for": all(
            0 <= 4 * w.head_bytes - (copied.peak_bytes - called.peak_bytes) <= 272
            for copied, called in (
                [run_of("contiguous", name, mode).recorded for name in names]
                for mode in (False, True)
                for names in (("split_contiguous", "split_fused"),)
            )
        ),
        "autocast peaks where 32 bit does": (
            shown(auto)[0].recorded.peak_bytes == total(auto.workloads[0], 4, 6)
        ),
        "in bf16 one layer needs under autocast what it needs in 32 bit": (
            _under_autocast(unfused, torch.bfloat16) == _under_autocast(unfused, None)
        ),
        "and four need more, in f16, too": (
            numbers()["four_mb"] < numbers()["four_f16_mb"] < numbers()["four_bf16_mb"]
        ),
        "autocast keeps 6 bytes, 16 bit 2": [
            kept_per_score("autocast", "autocast_unfused"),
            kept_per_score("fused kernel", "unfused"),
        ]
        == [6, 2],
        "in bf16 softmax in 32 bit peaks one S higher than in f16": all(
            _softmax_in_32_bit(torch.bfloat16, mode) - _softmax_in_32_bit(torch.float16, mode)
            == w.score_bytes
            for mode in (False, True)
        ),
        "compiled runs take the bytes of the fused call": all(
            run_of("compile", "Compiled", mode, which).recorded.peak_bytes
            == run_of("fused kernel", "fused", mode, which).recorded.peak_bytes
            for mode in (False, True)
            for which in (0, 1)
        ),
        "attention is the largest entry of the ledger, and fused the smallest": (
            max(rows, key=lambda name: rows[name][0]) == "kept by attention"
            and min(rows, key=lambda name: rows[name][1]) == "kept by attention"
        ),
        "the state of Llama 3 8B alone is more than a card of 80 GB has, and so is each column": (
            min(numbers()["llama_state_gb"] * 1e9, *ledger.at_the_loss()) > 80 * 2**30
        ),
        "a graph gains nothing at 2048 and at 4096": all(
            abs(1 - row["GraphedLayers"] / row["layers_unfused"]) < 0.02 for row in (third, long)
        ),
        "a graph is the fastest at 128, and at 2048 it is not": (
            min(short, key=lambda way: short[way]) == "GraphedLayers"
            and third["layers_fused"] < third["GraphedLayers"]
        ),
    }
