"""What to do: the cures, a ledger of a whole model, fragmentation and times."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import torch

from attnmem import figures
from attnmem.cures import CURES, cells
from attnmem.cures.compiled import Compiled
from attnmem.figures.style import Picture
from attnmem.lessons.shared import known, made, total
from attnmem.lessons.what_to_do import cures, kernels, ledger, speed
from attnmem.lessons.what_to_do.cures import Found, found, shown
from attnmem.messages import explain
from attnmem.prediction.trace import trace

#: Programs of the cure "blocks" -> what the figure calls them.
PROFILES = {
    "UnfusedModel": "as it stands",
    "AttentionCheckpointed": "attention in a checkpoint",
    "Model": "fused attention",
    "SelectivelyCheckpointed": "fused; products kept, the rest again",
    "FusedBlocksCheckpointed": "fused; each block in a checkpoint",
}


def _run(cure: str, name: str, training: bool = True, which: int = 0) -> Found:
    """A program of a cure, on the first of its workloads or another."""
    (version,) = (v for v in CURES[cure].versions if v.__name__ == name)
    return found(version, CURES[cure].workloads[which], training)


#: The same for the other two figures, and what they call tensors.
NAMED = {
    "three_names": "every step has a name",
    "no_names": "none has",
    "in_place": "in place",
}
LOSSES = {"WholeLogits": "all tokens at once", "ChunkedLogits": "512 tokens at a time"}
TENSORS = {
    "bmm": "QKᵀ",
    "mm": "logits",
    "to_copy": "in 32 bit",
    "log_softmax": "log-softmax",
    "nll_loss_backward": "its gradient",
}


#: The message that the page quotes: carolchenyx/MGFN.#35 on GitHub, 2023-11-21.
REPORT = (
    "CUDA out of memory. Tried to allocate 1.70 GiB. GPU 0 has a total capacty of 6.00 GiB of which"
    " 0 bytes is free. Of the allocated memory 2.93 GiB is allocated by PyTorch, and 2.30 GiB is "
    "reserved by PyTorch but unallocated."
)


def _profiles(cure: str, names: Mapping[str, str], training: bool = True) -> Picture:
    """The profiles of some programs of a cure, by what the figure calls them."""
    runs = {words: _run(cure, name, training).predicted for name, words in names.items()}
    traces = {words: t for words, t in runs.items() if t}
    return figures.profiles(traces, TENSORS, same_time=cure != "loss")


@cache  # it draws, and claims ask for one number after the other
def numbers() -> dict[str, Any]:
    """What the text looks up."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        runs = list(cells())
    w = CURES["blocks"].workloads[0]
    before, after = _run("blocks", "UnfusedModel"), _run("blocks", "FusedBlocksCheckpointed")
    split, plain = _run("split heads", "split_unfused"), _run("fused kernel", "unfused")
    rows, long = ledger.ledger(), ledger.W
    state = sum(rows[name][0] for name in ("weights", "gradients", "optimizer"))
    logits = CURES["loss"].workloads[0]
    return speed.numbers() | {
        "profiles": _profiles("blocks", PROFILES),
        "profiles_names": _profiles("names", NAMED, training=False),
        "profiles_loss": _profiles("loss", LOSSES),
        "made": made(cures.record()),
        "provenance": str(cures.record().provenance),
        "runs": len(runs),
        "followed": sum(not isinstance(cell.program, Compiled) for cell in runs),
        "before_mb": before.recorded.peak_bytes / 1e6,
        "after_mb": after.recorded.peak_bytes / 1e6,
        "cards": before.recorded.peak_bytes / after.recorded.peak_bytes,
        "s_mb": w.score_bytes / 1e6,
        "x_mb": w.head_bytes / 1e6,
        "hand_mb": plain.recorded.peak_bytes / 1e6,
        "fused_mb": _run("fused kernel", "fused").recorded.peak_bytes / 1e6,
        "math_reads": _math_over_formula(training=False),
        "copies_mb": (split.recorded.saved_bytes - plain.recorded.saved_bytes) / 1e6,
        "kept_autocast": _kept_per_score("autocast", "autocast_unfused"),
        "kept_dropout": _kept_per_score("dropout", "unfused_dropout"),
        "llama_words": ledger.VOCABULARY,
        "kept_plain": _kept_per_score("fused kernel", "unfused"),
        "f16_mb": _softmax_in_32_bit(torch.float16) / 1e6,
        "bf16_mb": _softmax_in_32_bit(torch.bfloat16) / 1e6,
        "more_flops": _flops("FusedBlocksCheckpointed") / _flops("Model") - 1,
        "whole_mb": shown(CURES["accumulation"])[0].recorded.peak_bytes / 1e6,
        "parts_mb": shown(CURES["accumulation"])[1].recorded.peak_bytes / 1e6,
        "compiled": _run("compile", "Compiled", training=False).recorded.peak_bytes,
        "tokens": logits.batch * logits.seq_len,
        "logits_mb": logits.batch * logits.seq_len * 50_257 * 4 / 1e6,
        "loss_mb": _run("loss", "WholeLogits").recorded.peak_bytes / 1e6,
        "chunked_mb": _run("loss", "ChunkedLogits").recorded.peak_bytes / 1e6,
        "llama_n": long.seq_len,
        "llama_float_gb": long.score_bytes / 1e9,
        "llama_bool_mb": long.seq_len**2 / 1e6,
        "llama_logits_gb": long.seq_len * ledger.VOCABULARY * 4 / 1e9,
        "llama_loss_gb": ledger.loss().peak_bytes / 1e9,
        "llama_parameters": ledger.parameters() / 1e9,
        "llama_state_gb": state / 1e9,
        "llama_attention_gb": rows["kept by attention"][0] / 1e9,
        "llama_fused_gb": rows["kept by attention"][1] / 1e9,
        "llama_rest_gb": rows["kept by the rest"][1] / 1e9,
        "llama_again_gb": rows["kept by the rest"][2] / 1e9,
    }


def _math_over_formula(training: bool) -> float:
    """The recorded peak of the math kernel over that of the formula."""
    runs = (
        _run("dimensions", "three_dimensions", training),
        _run("fused kernel", "unfused", training),
    )
    by_kernel, by_hand = (run.recorded.peak_bytes for run in runs)
    return by_kernel / by_hand


def _softmax_in_32_bit(dtype: torch.dtype, training: bool = True) -> int:
    """The traced peak of softmax in 32 bit, with inputs in ``dtype``."""
    cure = CURES["softmax in 32 bit"]
    return trace(cure.before, replace(cure.workloads[0], dtype=dtype), training).peak_bytes


def _flops(name: str) -> float:
    """Of a step of the four blocks."""
    predicted = _run("blocks", name).predicted
    return sum(step.flops for step in predicted.steps) if predicted else 0


def _kept_per_score(cure: str, name: str) -> float:
    """Bytes kept for each score, without copies of Q, K and V in another dtype."""
    w = CURES[cure].workloads[0]
    casts = 3 * w.head_elements * 2 if cure == "autocast" else 0
    return (_run(cure, name).recorded.saved_bytes - casts) / w.score_elements


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    return speed.claims() | kernels.claims() | _claims_on_memory()


def _claims_on_memory() -> dict[str, bool]:
    blocks = {name: _run("blocks", name).recorded for name in PROFILES}
    split, plain = (
        [_run(cure, name, which=which).recorded for which in (0, 1)]
        for cure, name in (("split heads", "split_unfused"), ("fused kernel", "unfused"))
    )
    w = CURES["compile"].workloads[0]
    auto = CURES["autocast"]
    chunked = _run("loss", "ChunkedLogits").recorded
    rows = ledger.ledger()
    return {
        "every recorded peak that the page shows is the predicted one": all(
            run.equal for cure in CURES.values() for run in shown(cure) if run.predicted
        ),
        "each of the profiles is lower than the one before": (
            sorted(blocks, key=lambda name: -blocks[name].peak_bytes) == list(PROFILES)
        ),
        "an open block's checkpoint leaves one block to work, with 4 tensors of N×N": (
            _run("blocks", "BlocksCheckpointed").recorded.peak_bytes
            > 4 * CURES["blocks"].workloads[0].score_bytes
        ),
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
                [_run("contiguous", name, mode).recorded for name in names]
                for mode in (False, True)
                for names in (("split_contiguous", "split_fused"),)
            )
        ),
        "with dropout the peak is the same, in softmax's backward": (
            _run("dropout", "unfused_dropout").recorded.peak_bytes == plain[0].peak_bytes
            and known(_run("dropout", "unfused_dropout").predicted).at_peak
            == known(_run("fused kernel", "unfused").predicted).at_peak
        ),
        "what is reserved but unallocated is more than was asked for": (
            "PyTorch held at least 2.30 GiB unused, more than was asked for"
            in " ".join(explain(REPORT).notes)
        ),
        "autocast peaks where 32 bit does": (
            shown(auto)[0].recorded.peak_bytes == total(auto.workloads[0], 4, 6)
        ),
        "autocast keeps 6 bytes, 16 bit 2": [
            _kept_per_score("autocast", "autocast_unfused"),
            _kept_per_score("fused kernel", "unfused"),
        ]
        == [6, 2],
        "in bf16 softmax in 32 bit peaks one S higher than in f16": all(
            _softmax_in_32_bit(torch.bfloat16, mode) - _softmax_in_32_bit(torch.float16, mode)
            == w.score_bytes
            for mode in (False, True)
        ),
        "a checkpoint around each block costs less than a third more FLOPs": (
            0.2 < numbers()["more_flops"] < 1 / 3
        ),
        "compiled runs take the bytes of the fused call": all(
            _run("compile", "Compiled", mode, which).recorded.peak_bytes
            == _run("fused kernel", "fused", mode, which).recorded.peak_bytes
            for mode in (False, True)
            for which in (0, 1)
        ),
        "the unfused kernel needs nearly twice what the formula needs, in training": (
            1.9 < _math_over_formula(training=True) < 2
        ),
        "the loss peaks at three times its logits in 32 bit": (
            numbers()["loss_mb"] // numbers()["logits_mb"] == 3
        ),
        "in chunks the largest tensors are those of 512 tokens": (chunked.peak_bytes < 512 * 1e6),
        "attention is the largest entry of the ledger, and fused the smallest": (
            max(rows, key=lambda name: rows[name][0]) == "kept by attention"
            and min(rows, key=lambda name: rows[name][1]) == "kept by attention"
        ),
        "the state of Llama 3 8B alone is more than a card of 80 GB has, and so is each column": (
            min(numbers()["llama_state_gb"] * 1e9, *ledger.at_the_loss()) > 80 * 2**30
        ),
    }
