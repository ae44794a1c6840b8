"""The page on memory: its tables, what its text looks up, and what it says."""

import math
from collections.abc import Mapping, Sequence
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
# Of each size of memory that many readers have, one card.
CARDS = [*map(accelerator, ("T4", "RTX 4090", "RTX 5090", "L40S", "H100 SXM", "H200 SXM", "B200"))]
LLAMA = model("Llama 3.1 8B")

# Program -> the peak as (a, b, c) of a·S + b·X + c·N² bytes, in inference and in training, in f16.
FORMULAS: Mapping[Program, Sequence[tuple[float, int, int]]] = {
    programs.standard_attention: ((2, 4, 0), (4, 6, 0)),
    programs.named_products: ((3, 4, 0), (4, 6, 0)),
    programs.one_liner: ((2, 3, 0), (4, 6, 0)),
    programs.scaled_queries: ((2, 4, 0), (4, 7, 0)),
    programs.scaled_in_place: ((2, 4, 0), (4, 6, 0)),
    programs.causal_attention: ((2, 4, 1), (4, 6, 1)),
    programs.dropout_attention: ((2.5, 3, 0), (4, 6, 0)),
    programs.softmax_in_float32: ((4, 3, 0), (7, 6, 0)),
}


def table_of_longest(cards: Sequence[Accelerator]) -> Table:
    """The longest sequence that fits each card, in both kinds of run."""
    return Table(
        {"card": "", "memory (GiB)": "g", "longest N, inference": ",", "longest N, training": ","},
        (
            (
                c.name,
                c.memory_gib,
                *(_longest(c.memory_bytes, training=run) for run in (False, True)),
            )
            for c in cards
        ),
    )


def _longest(memory: int, w: Workload = SHORT, training: bool = False) -> int:
    return max_seq_len(standard_attention, w, memory, training)


def _peaks() -> list[figures.Peak]:
    """What the picture of programs shows."""
    found = []
    for program in programs.PROGRAMS:
        for training in (False, True):
            m = records.measured(program, W, training)
            peak = trace(program, W, training).peak_bytes
            words = f"{peak / W.score_bytes:.2f}S"
            if program in FORMULAS:
                a, b, c = FORMULAS[program][training]
                words = f"{a}S + {b}X" + " + N²" * c
            elif peak < W.score_bytes:
                words = f"{peak / W.head_bytes:.2f}X"
            measured = None if m.out_of_memory else m.peak_bytes
            found.append(figures.Peak(program.__name__, training, peak, words, measured))
    return found


SPLIT = replace(SHORT, seq_len=1024)  # so short that flash splits the keys
EIGHT = replace(SPLIT, batch=8)  # and does not


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    layer = LLAMA.workload()
    return {
        "curves": figures.memory_curves(layer, range(512, 32769, 512), [SMALL, H100]),
        "bars": figures.memory_bars([replace(SHORT, seq_len=n) for n in LENGTHS]),
        "timeline": figures.lifetimes(trace(standard_attention, W), "2S + 4X"),
        "programs": figures.program_peaks(_peaks(), W.score_bytes),
        "origin": records.origin(),
        "short_x": SHORT.head_bytes,
        "short_s": SHORT.score_bytes,
        "cards_ratio": LARGE.memory_gib / SMALL.memory_gib,
        "length_ratio": _longest(LARGE.memory_bytes) / _longest(SMALL.memory_bytes),
        "context": LLAMA.context,
        "heads": LLAMA.heads,
        "kv_heads": LLAMA.kv_heads,
        "head_dim": LLAMA.head_dim,
        "h100_gb": H100.memory_bytes / 1e9,
        "llama_x_gb": 4 * layer.head_bytes / 1e9,
        "llama_peak_gb": peak_bytes(layer) / 1e9,
        "llama_cards": (cards := ceil_div(peak_bytes(layer), H100.memory_bytes)),
        "llama_naive": LLAMA.context / cards,
        "split_x": trace(programs.flash_sdpa, SPLIT).peak_bytes / SPLIT.head_bytes,
    }


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    return _claims_on_sizes() | _claims_on_programs() | _claims_on_limits()


def _claims_on_sizes() -> dict[str, bool]:
    shares = [4 * w.head_bytes / total(w, 2, 4) for w in (replace(W, seq_len=n) for n in LENGTHS)]
    other, two = replace(SHORT, batch=8, heads=96, dtype=torch.float32), replace(W, batch=2)
    traced = trace(standard_attention, W)
    made = [event for event in traced.timeline if event.bytes > 0]
    alive = [(0, 1), (0, 2), (0, 3), (1, 3), (2, 3), (2, 3), (2, 4)]

    def split(*inputs: torch.Tensor) -> Any:
        b, h, n, d = inputs[0].shape
        q, k, v = (x.view(b, n, h, d).transpose(1, 2) for x in inputs)
        return standard_attention(q, k, v)

    def blockwise(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        parts = torch.split(q, 1024, dim=-2)
        return torch.cat([standard_attention(some, k, v)[0] for some in parts], dim=-2)

    return {
        "the part of Q, K, V and O shrinks from a fifth to less than a hundredth": (
            math.isclose(shares[0], 1 / 5) and shares[-1] < 1 / 100
        ),
        "the ratio does not depend on batch, heads or dtype": (
            SHORT.score_bytes / SHORT.head_bytes == other.score_bytes / other.head_bytes == 8
        ),
        "what is alive during each operation": (
            [event.live for event in made] == [total(W, *counts) for counts in alive]
        ),
        "the peak comes with O": made[-1].label == "O" and made[-1].live == traced.peak_bytes,
        "heads that were split off cost one X more for B > 1, and two in training": [
            trace(split, w, training).peak_bytes for w in (W, two) for training in (False, True)
        ]
        == [total(W, 2, 4), total(W, 4, 6), total(two, 2, 5), total(two, 4, 8)],
        "three numbers agree": (
            peak_bytes(W) == traced.peak_bytes == records.measured(standard_attention, W).peak_bytes
        ),
        "an eighth of the queries needs little more than an eighth of the memory": (
            1 / 8 < trace(blockwise, W).peak_bytes / traced.peak_bytes < 1 / 7
        ),
    }


def _claims_on_programs() -> dict[str, bool]:
    s, x, half = W.score_bytes, W.head_bytes, replace(W, dtype=torch.bfloat16)
    shown = _peaks()
    peak = {(p.program, p.training): p.traced for p in shown}
    more = {p.program: p.traced - total(W, 2, 4) for p in shown if not p.training}
    return {
        "a dot lies on the end of every bar": all(p.traced == p.measured for p in shown),
        "the first eight have formulas": list(FORMULAS) == list(programs.PROGRAMS[:8])
        and all(
            a * s + b * x + c * W.seq_len**2 == peak[program.__name__, training]
            for program, formulas in FORMULAS.items()
            for training, (a, b, c) in zip((False, True), formulas, strict=True)
        ),
        "a name that is kept costs a whole S": more["named_products"] == s,
        "a line without names gives S back before O is there": more["one_liner"] == -x,
        "scaling in place saves nothing at the peak, nor does scaling the queries": (
            more["scaled_in_place"] == more["scaled_queries"] == 0
        ),
        "dropout adds a mask of one byte per score": (
            more["dropout_attention"] - more["one_liner"] == W.score_elements
        ),
        "softmax in 32 bit doubles the peak": abs(more["softmax_in_float32"] / (2 * s) - 1) < 0.01,
        "in bf16 its peaks are 5S + 3X and 8S + 6X": [
            trace(programs.softmax_in_float32, half, training).peak_bytes
            for training in (False, True)
        ]
        == [total(half, 5, 3), total(half, 8, 6)],
        "the math kernel stores even more": more["math_sdpa"] > 2 * s,
        "and the same for eight sequences so short that flash splits the keys of one": (
            4 <= trace(programs.flash_sdpa, EIGHT).peak_bytes / EIGHT.head_bytes < 4.1
        ),
        "flash needs 4X and one number for each row": (
            0 <= peak["flash_sdpa", False] - 4 * x - 4 * W.heads * W.seq_len < 512
        ),
        "three kernels never store S": all(p.traced < s for p in shown[-6:]),
    }


def _claims_on_limits() -> dict[str, bool]:
    layer, found = LLAMA.workload(), numbers()
    scores = 2 * layer.heads * layer.element_bytes
    small, h100 = (math.sqrt(card.memory_bytes / scores) for card in (SMALL, H100))
    longest, llama = _longest(SMALL.memory_bytes), _longest(H100.memory_bytes, layer)
    return {
        "S and P fill an RTX 4090 near 14000 tokens, and an H100 near 26000": (
            (round(small, -3), round(h100, -3)) == (14000, 26000)
        ),
        "the longest N is about √(memory / 2BHe)": math.isclose(llama, h100, rel_tol=0.01),
        "training ends much earlier": _longest(SMALL.memory_bytes, training=True) < 0.7 * longest,
        "twice the memory buys √2 times the length": math.isclose(
            _longest(2 * SMALL.memory_bytes) / longest, math.sqrt(2), rel_tol=0.01
        ),
        "the B200's sequences are √7.5 times as long": found["cards_ratio"] == 7.5
        and math.isclose(found["length_ratio"], math.sqrt(7.5), rel_tol=0.01),
        "a card with eight gigabytes holds inputs and output": found["llama_x_gb"] < 8,
        "a 26th of the memory takes a fifth of the sequence": (
            25.5 < found["llama_peak_gb"] / found["h100_gb"] < found["llama_cards"] == 26
            and round(layer.seq_len / llama) == 5
        ),
    }
