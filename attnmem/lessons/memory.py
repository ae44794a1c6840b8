"""The page on memory: its tables, what its text looks up, and what it says."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from attnmem import figures, programs
from attnmem.catalog import Accelerator, accelerator, model
from attnmem.formulas import peak_bytes
from attnmem.lessons.shared import SHORT, W, total
from attnmem.lessons.table import Table
from attnmem.measurement import records
from attnmem.prediction.trace import max_seq_len, trace
from attnmem.programs import Program, standard_attention
from attnmem.workload import Workload, ceil_div

LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
SMALL, H100, LARGE = map(accelerator, ("RTX 4090", "H100 SXM", "B200"))
LLAMA = model("Llama 3.1 8B")

# Program -> the peak as (a, b, c) of a·S + b·X + c·N² bytes, in inference and in training, in f16.
Coefficients = tuple[float, int, int]
FORMULAS: Mapping[Program, tuple[Coefficients, Coefficients]] = {
    programs.standard_attention: ((2, 4, 0), (4, 6, 0)),
    programs.named_products: ((3, 4, 0), (4, 6, 0)),
    programs.one_liner: ((2, 3, 0), (4, 6, 0)),
    programs.scaled_queries: ((2, 4, 0), (4, 7, 0)),
    programs.scaled_in_place: ((2, 4, 0), (4, 6, 0)),
    programs.causal_attention: ((2, 4, 1), (4, 6, 1)),
    programs.dropout_attention: ((2.5, 3, 0), (4, 6, 0)),
    programs.softmax_in_float32: ((4, 3, 0), (7, 6, 0)),
}


def table_of_shares(workloads: Sequence[Workload], share: Callable[[Workload], float]) -> Table:
    """Bytes of the two kinds of tensors over N, and the share of S and P among them."""
    return Table(
        {"N": "", "Q, K, V, O (MB)": ",.1f", "S, P (MB)": ",.1f", "share of S, P": ".1%"},
        ((w.seq_len, 4 * w.head_bytes / 1e6, 2 * w.score_bytes / 1e6, share(w)) for w in workloads),
    )


def table_of_heads(workloads: Sequence[Workload], share: Callable[[Workload], float]) -> Table:
    """Bytes of S and P, and their share, for several batches and numbers of heads."""
    return Table(
        {"B": "", "H": "", "S, P (MB)": ",.1f", "share of S, P": ".1%"},
        ((w.batch, w.heads, 2 * w.score_bytes / 1e6, share(w)) for w in workloads),
    )


def table_of_programs(w: Workload) -> Table:
    """How far trace and allocator are from the formula for each program's peak."""
    rows = []
    for training, run in enumerate(("inference", "training")):
        for program, coefficients in FORMULAS.items():
            a, b, c = coefficients[training]
            formula = _formula(program, w, bool(training))
            traced = trace(program, w, bool(training)).peak_bytes - formula
            m = records.measured(program, w, bool(training))
            found = "out of memory" if m.out_of_memory else m.peak_bytes - formula
            text = f"{a}S + {b}X" + " + N²" * c
            rows.append((program.__name__, run, text, traced, found))
    return Table(
        {"program": "", "run": "", "formula": ""}
        | {"trace − formula (B)": ".0f", "allocator − formula (B)": ".0f"},
        rows,
    )


def _formula(program: Program, w: Workload, training: bool) -> float:
    a, b, c = FORMULAS[program][training]
    return a * w.score_bytes + b * w.head_bytes + c * w.seq_len**2


def table_of_kernels(
    inference: Mapping[Program, float], training: Mapping[Program, float]
) -> Table:
    """Program -> its peak in units of X, in both kinds of run."""
    return Table(
        {"program": "", "inference (X)": ".2f", "training (X)": ".2f"},
        ((program.__name__, inference[program], training[program]) for program in inference),
    )


def table_of_longest(
    cards: Sequence[Accelerator], inference: Sequence[int], training: Sequence[int]
) -> Table:
    """The longest sequence that fits each card, in both kinds of run."""
    return Table(
        {"card": "", "memory (GiB)": "g", "longest N, inference": "", "longest N, training": ""},
        (
            (card.name, card.memory_gib, *longest)
            for card, *longest in zip(cards, inference, training, strict=True)
        ),
    )


def _longest(memory: int, w: Workload = SHORT, training: bool = False) -> int:
    return max_seq_len(standard_attention, w, memory, training)


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    workloads = [replace(SHORT, seq_len=n) for n in LENGTHS]
    layer = LLAMA.workload()
    return {
        "bars": figures.memory_bars(workloads),
        "curves": figures.memory_curves(SHORT, range(512, 49153, 512), [SMALL, H100]),
        "growth_x": workloads[1].head_bytes // workloads[0].head_bytes,
        "growth_s": workloads[1].score_bytes // workloads[0].score_bytes,
        "equal": 2 * SHORT.head_dim,
        "origin": records.origin(),
        "timeline": figures.lifetimes(trace(standard_attention, W)),
        "cards_ratio": LARGE.memory_gib / SMALL.memory_gib,
        "length_ratio": _longest(LARGE.memory_bytes) / _longest(SMALL.memory_bytes),
        "context": LLAMA.context,
        "layers": LLAMA.layers,
        "heads": LLAMA.heads,
        "kv_heads": LLAMA.kv_heads,
        "head_dim": LLAMA.head_dim,
        "llama_peak_tb": peak_bytes(layer) / 1e12,
        "llama_cards": ceil_div(peak_bytes(layer), H100.memory_bytes),
        "llama_x_gb": 4 * layer.head_bytes / 1e9,
        "llama_longest": _longest(H100.memory_bytes, layer),
    }


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    return _claims_on_sizes() | _claims_on_programs() | _claims_on_limits()


def _claims_on_sizes() -> dict[str, bool]:
    workloads = [replace(SHORT, seq_len=n) for n in LENGTHS]
    shares = [4 * w.head_bytes / total(w, 2, 4) for w in workloads]
    equal = replace(SHORT, seq_len=2 * SHORT.head_dim)
    other = replace(SHORT, batch=8, heads=96, dtype=torch.float32)
    traced = trace(standard_attention, W)
    made = [event for event in traced.timeline if event.bytes > 0]
    alive = [(0, 1), (0, 2), (0, 3), (1, 3), (2, 3), (2, 3), (2, 4)]
    recorded = records.load().measurement(standard_attention, W)
    return {
        "the part of Q, K, V and O shrinks from a fifth to less than a hundredth": (
            math.isclose(shares[0], 1 / 5) and shares[-1] < 1 / 100
        ),
        "the ratio does not depend on batch, heads or dtype": (
            SHORT.score_bytes / SHORT.head_bytes == other.score_bytes / other.head_bytes
        ),
        "for d = 64 the two are equal at N = 128": 4 * equal.head_bytes == 2 * equal.score_bytes,
        "what is alive during each operation": (
            [event.live for event in made] == [total(W, *counts) for counts in alive]
        ),
        "the peak comes with O": made[-1].label == "O" and made[-1].live == traced.peak_bytes,
        "three numbers agree": peak_bytes(W) == traced.peak_bytes == recorded.peak_bytes,
    }


def _claims_on_programs() -> dict[str, bool]:
    s, x = W.score_bytes, W.head_bytes
    half = replace(W, dtype=torch.bfloat16)

    def peak(program: Program, training: bool = False, w: Workload = W) -> int:
        return trace(program, w, training).peak_bytes

    def more(program: Program, training: bool = False) -> int:
        return peak(program, training) - peak(standard_attention, training)

    return {
        "trace and allocator agree with every formula": all(
            peak(program, training)
            == records.load().measurement(program, W, training).peak_bytes
            == _formula(program, W, training)
            for program in FORMULAS
            for training in (False, True)
        ),
        "a name that is kept costs a whole S": more(programs.named_products) == s,
        "a line without names gives S back before O is there": more(programs.one_liner) == -x,
        "scaling the queries saves no memory, and costs one X in training": (
            more(programs.scaled_queries) == 0 and more(programs.scaled_queries, True) == x
        ),
        "scaling in place saves nothing at the peak": more(programs.scaled_in_place) == 0,
        "dropout adds a mask of one byte per score": (
            peak(programs.dropout_attention) - peak(programs.one_liner) == W.score_elements
        ),
        "with dropout training's peak does not move": more(programs.dropout_attention, True) == 0,
        "in bf16 the peaks of softmax in 32 bit are 5S + 3X and 8S + 6X": (
            peak(programs.softmax_in_float32, False, half) == total(half, 5, 3)
            and peak(programs.softmax_in_float32, True, half) == total(half, 8, 6)
        ),
        "the math kernel needs more than standard attention": (
            more(programs.math_sdpa) > 0 and more(programs.math_sdpa, True) > 0
        ),
        "flash needs 4X and one number for each row": (
            0 <= peak(programs.flash_sdpa) - 4 * x - 4 * W.heads * W.seq_len < 512
        ),
    }


def _claims_on_limits() -> dict[str, bool]:
    small, h100 = (math.sqrt(card.memory_bytes / (2 * 12 * 2)) for card in (SMALL, H100))  # 2BHe
    longest, doubled = _longest(SMALL.memory_bytes), _longest(2 * SMALL.memory_bytes)
    found = numbers()
    return {
        "S and P fill an RTX 4090 near 23000 tokens, and an H100 near 42000": (
            (round(small, -3), round(h100, -3)) == (23000, 42000)
        ),
        "the longest N is about √(memory / 2BHe)": math.isclose(longest, small, rel_tol=0.01),
        "training ends much earlier": _longest(SMALL.memory_bytes, training=True) < 0.7 * longest,
        "twice the memory buys √2 times the length": (
            math.isclose(doubled / longest, math.sqrt(2), rel_tol=0.01)
        ),
        "the B200's sequences grow with the square root of its memory": (
            math.isclose(found["length_ratio"], math.sqrt(found["cards_ratio"]), rel_tol=0.01)
        ),
        "contexts of this length need an attention that does not store S": (
            found["llama_longest"] < found["context"]
        ),
    }
