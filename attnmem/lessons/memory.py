"""The page on memory: its tables, what its text looks up, and what it says."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from attnmem import figures, programs
from attnmem.catalog import Accelerator, accelerator, model
from attnmem.formulas import peak_bytes
from attnmem.lessons.table import Table
from attnmem.measurement import records
from attnmem.prediction.trace import max_seq_len, trace
from attnmem.programs import Program, standard_attention
from attnmem.workload import Workload, ceil_div

# The page's workload, at its shortest, and the lengths that it is taken to.
SHORT = Workload(batch=1, heads=12, seq_len=512, head_dim=64, dtype=torch.float16)
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
W = replace(SHORT, seq_len=8192)

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
    rows = [
        {
            "N": w.seq_len,
            "Q, K, V, O (MB)": 4 * w.head_bytes / 1e6,
            "S, P (MB)": 2 * w.score_bytes / 1e6,
            "share of S, P": share(w),
        }
        for w in workloads
    ]
    return Table(rows, {"Q, K, V, O (MB)": ",.1f", "S, P (MB)": ",.1f", "share of S, P": ".1%"})


def table_of_heads(workloads: Sequence[Workload], share: Callable[[Workload], float]) -> Table:
    """Bytes of S and P, and their share, for several batches and numbers of heads."""
    rows = [
        {
            "B": w.batch,
            "H": w.heads,
            "S, P (MB)": 2 * w.score_bytes / 1e6,
            "share of S, P": share(w),
        }
        for w in workloads
    ]
    return Table(rows, {"S, P (MB)": ",.1f", "share of S, P": ".1%"})


def table_of_programs(w: Workload) -> Table:
    """How far trace and allocator are from the formula for each program's peak."""
    rows = [
        {"program": program.__name__, "run": run} | _compared(program, w, run == "training")
        for run in ("inference", "training")
        for program in FORMULAS
    ]
    return Table(rows, {"trace − formula (B)": ".0f", "allocator − formula (B)": ".0f"})


def _compared(program: Program, w: Workload, training: bool) -> dict[str, object]:
    a, b, c = FORMULAS[program][training]
    formula = _formula(program, w, training)
    m = records.measured(program, w, training)
    return {
        "formula": f"{a}S + {b}X" + " + N²" * c,
        "trace − formula (B)": trace(program, w, training).peak_bytes - formula,
        "allocator − formula (B)": "out of memory" if m.out_of_memory else m.peak_bytes - formula,
    }


def _formula(program: Program, w: Workload, training: bool) -> float:
    a, b, c = FORMULAS[program][training]
    return a * w.score_bytes + b * w.head_bytes + c * w.seq_len**2


def table_of_kernels(
    inference: Mapping[Program, float], training: Mapping[Program, float]
) -> Table:
    """Program -> its peak in units of X, in both kinds of run."""
    rows = [
        {
            "program": program.__name__,
            "inference (X)": inference[program],
            "training (X)": training[program],
        }
        for program in inference
    ]
    return Table(rows, {"inference (X)": ".2f", "training (X)": ".2f"})


def table_of_longest(
    cards: Sequence[Accelerator], inference: Sequence[int], training: Sequence[int]
) -> Table:
    """The longest sequence that fits each card, in both kinds of run."""
    rows = [
        {
            "card": card.name,
            "memory (GiB)": card.memory_gib,
            "longest N, inference": longest,
            "longest N, training": longest_training,
        }
        for card, longest, longest_training in zip(cards, inference, training, strict=True)
    ]
    return Table(rows, {"memory (GiB)": "g"})


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    small, h100, large = map(accelerator, ("RTX 4090", "H100 SXM", "B200"))
    workloads = [replace(SHORT, seq_len=n) for n in LENGTHS]
    longest = {
        card: max_seq_len(standard_attention, SHORT, card.memory_bytes) for card in (small, large)
    }
    llama = model("Llama 3.1 8B")
    layer = llama.workload()
    return {
        "bars": figures.memory_bars(workloads),
        "curves": figures.memory_curves(SHORT, range(512, 49153, 512), [small, h100]),
        "growth_x": workloads[1].head_bytes // workloads[0].head_bytes,
        "growth_s": workloads[1].score_bytes // workloads[0].score_bytes,
        "equal": 2 * SHORT.head_dim,
        "origin": records.origin(),
        "timeline": figures.lifetimes(trace(standard_attention, W)),
        "cards_ratio": large.memory_gib / small.memory_gib,
        "length_ratio": longest[large] / longest[small],
        "context": llama.context,
        "layers": llama.layers,
        "heads": llama.heads,
        "kv_heads": llama.kv_heads,
        "head_dim": llama.head_dim,
        "llama_peak_tb": peak_bytes(layer) / 1e12,
        "llama_cards": ceil_div(peak_bytes(layer), h100.memory_bytes),
        "llama_x_gb": 4 * layer.head_bytes / 1e9,
        "llama_longest": max_seq_len(standard_attention, layer, h100.memory_bytes),
    }


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    return _claims_on_shares() | _claims_on_the_peak() | _claims_on_programs() | _claims_on_limits()


def _claims_on_shares() -> dict[str, bool]:
    workloads = [replace(SHORT, seq_len=n) for n in LENGTHS]
    heads = [4 * w.head_bytes / (4 * w.head_bytes + 2 * w.score_bytes) for w in workloads]
    equal = replace(SHORT, seq_len=2 * SHORT.head_dim)
    others = (SHORT, replace(SHORT, batch=8, heads=96, dtype=torch.float32))
    return {
        "the part of Q, K, V and O shrinks from a fifth to less than a hundredth": (
            math.isclose(heads[0], 1 / 5) and heads[-1] < 1 / 100
        ),
        "the ratio does not depend on batch, heads or dtype": (
            len({w.score_bytes / w.head_bytes for w in others}) == 1
        ),
        "for d = 64 the two are equal at N = 128": 4 * equal.head_bytes == 2 * equal.score_bytes,
    }


def _claims_on_the_peak() -> dict[str, bool]:
    s, x = W.score_bytes, W.head_bytes
    traced = trace(standard_attention, W)
    made = [event for event in traced.timeline if event.bytes > 0]
    alive = [x, 2 * x, 3 * x, 3 * x + s, 3 * x + 2 * s, 3 * x + 2 * s, 4 * x + 2 * s]
    recorded = records.load().measurement(standard_attention, W)
    return {
        "what is alive during each operation": [event.live for event in made] == alive,
        "the peak comes when O is allocated": (
            made[-1].label == "O" and made[-1].live == traced.peak_bytes
        ),
        "three numbers agree": peak_bytes(W) == traced.peak_bytes == recorded.peak_bytes,
    }


def _claims_on_programs() -> dict[str, bool]:
    s, x = W.score_bytes, W.head_bytes

    def peak(program: Program, training: bool = False, w: Workload = W) -> int:
        return trace(program, w, training).peak_bytes

    def more(program: Program, training: bool = False) -> int:
        return peak(program, training) - peak(standard_attention, training)

    in_bfloat16 = replace(W, dtype=torch.bfloat16)
    rows = W.batch * W.heads * W.seq_len
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
        "with dropout the peak of training does not move": (
            more(programs.dropout_attention, True) == 0
        ),
        "in bf16 the peaks of softmax in 32 bit are 5S + 3X and 8S + 6X": (
            peak(programs.softmax_in_float32, False, in_bfloat16) == 5 * s + 3 * x
            and peak(programs.softmax_in_float32, True, in_bfloat16) == 8 * s + 6 * x
        ),
        "the math kernel needs more than standard attention": (
            more(programs.math_sdpa) > 0 and more(programs.math_sdpa, True) > 0
        ),
        "flash needs 4X and one number for each row": (
            0 <= peak(programs.flash_sdpa) - 4 * x - 4 * rows < 512
        ),
    }


def _claims_on_limits() -> dict[str, bool]:
    small, h100 = accelerator("RTX 4090"), accelerator("H100 SXM")
    fill = [math.sqrt(card.memory_bytes / (2 * 12 * 2)) for card in (small, h100)]  # 2S = 2BHN²e
    inference, training, doubled = (
        max_seq_len(standard_attention, SHORT, size, trained)
        for size, trained in (
            (small.memory_bytes, False),
            (small.memory_bytes, True),
            (2 * small.memory_bytes, False),
        )
    )
    found = numbers()
    return {
        "S and P fill an RTX 4090 near 23000 tokens, and an H100 near 42000": (
            [round(n, -3) for n in fill] == [23000, 42000]
        ),
        "the longest sequence is about the root of memory over 2BHe": (
            math.isclose(inference, fill[0], rel_tol=0.01)
        ),
        "training ends much earlier": training < 0.7 * inference,
        "twice the memory buys √2 times the length": (
            math.isclose(doubled / inference, math.sqrt(2), rel_tol=0.01)
        ),
        "the B200's sequences grow with the square root of its memory": (
            math.isclose(found["length_ratio"], math.sqrt(found["cards_ratio"]), rel_tol=0.01)
        ),
        "contexts of this length need an attention that does not store S": (
            found["llama_longest"] < found["context"]
        ),
    }
