"""The page on standard attention: its tables, what its text looks up, and what it says."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from attnmem import figures
from attnmem.catalog import Model, model
from attnmem.lessons.table import Table
from attnmem.programs import standard_attention
from attnmem.workload import shape_text

# The relative error of storing one number.
UNITS = {torch.float32: 2**-24, torch.float16: 2**-11, torch.bfloat16: 2**-8}


def table_of_scaling(
    plain: Mapping[int, tuple[float, float]], divided: Mapping[int, tuple[float, float]]
) -> Table:
    """Scores with and without the division by √d: d -> their deviation, a row's largest weight."""
    rows = []
    for dim in plain:
        row: dict[str, float] = {"d": dim}
        for name, found in (("plain", plain), ("divided", divided)):
            row[f"deviation, {name}"], row[f"largest weight, {name}"] = found[dim]
        rows.append(row)
    return Table(rows, {column: ".2f" for column in rows[0] if column != "d"})


def table_of_differences(found: Sequence[tuple[str, float, float]]) -> Table:
    """How far two outputs differ: the inputs in words, the difference, what rounding explains."""
    columns = ("Q, K, V", "difference", "allowed")
    rows = [dict(zip(columns, row, strict=True)) for row in found]
    return Table(rows, {"difference": ".1e", "allowed": ".1e"})


def table_of_shapes(layers: Mapping[str, Mapping[str, torch.Tensor]]) -> Table:
    """Types and shapes of the tensors of models' layers: model -> (tensor's name -> tensor)."""
    return Table(
        [
            {"tensor": x} | {name: shape_text(layer[x]) for name, layer in layers.items()}
            for x in "QKVSPO"
        ]
    )


def table_of_counts(models: Sequence[Model]) -> Table:
    """The entries of the tensors of one layer, for a causal sequence as long as the model takes."""
    counts = {m.name: _counts(m) for m in models}
    return Table(
        [
            {"": label} | {name: column[label] for name, column in counts.items()}
            for label in _counts(models[0])
        ],
        dict.fromkeys(counts, ","),
    )


def _counts(m: Model) -> dict[str, object]:
    w = m.workload()
    return {
        "entries of one of Q, K, V, O": w.head_elements,
        "entries of one of S, P": w.score_elements,
        "the second over the first": w.score_elements // w.head_elements,
        "zeros in P": f"{(1 - 1 / w.seq_len) / 2:.2%}",  # the others of its column are counts
        "scores in all layers": m.layers * w.score_elements,
    }


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    _, s, p = standard_attention(*_eight_tokens())
    gpt, llama = model("GPT-2 medium"), model("Llama 3 8B")
    w, shorter = llama.workload(), gpt.workload()
    keys = torch.empty(1, llama.kv_heads, w.seq_len, w.head_dim, dtype=w.dtype, device="meta")
    return {
        "matrices": figures.score_matrices(s[0, 0], p[0, 0]),
        "gpt_n": gpt.context,
        "llama_n": llama.context,
        "longer": llama.context // gpt.context,
        "pairs": llama.context**2 // gpt.context**2,
        "more_heads": llama.heads // gpt.heads,
        "more_scores": w.score_elements // shorter.score_elements,
        "llama_scores_billion": w.score_elements / 1e9,
        "llama_ratio": w.score_elements // w.head_elements,
        "llama_heads": llama.heads,
        "llama_kv_heads": llama.kv_heads,
        "llama_kv_shape": shape_text(keys),
    }


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    return _claims_on_steps() | _claims_on_softmax() | _claims_on_models()


def _claims_on_steps() -> dict[str, bool]:
    q, k, v = _eight_tokens()
    o, _, p = standard_attention(q, k, v)
    by_steps = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), dim=-1)
    return {
        "the function agrees with the steps, here to the bit": (
            torch.equal(p, by_steps) and torch.equal(o, by_steps @ v)
        ),
        "the differences from PyTorch's output are far smaller than the worst case": (
            max(_difference(dtype) for dtype in UNITS) < 0.1
        ),
    }


def _claims_on_softmax() -> dict[str, bool]:
    scores = {dim: _scores(dim) for dim in (16, 64, 256)}
    largest = [torch.softmax(s, dim=-1).amax(dim=-1).mean().item() for s in scores.values()]
    row = torch.tensor([12.0, 11.0, 10.0], dtype=torch.float16)
    shifted = (row - row.max()).exp()
    return {
        "the differences between scores would grow with √d": all(
            math.isclose(s.std().item(), math.sqrt(dim), rel_tol=0.01) for dim, s in scores.items()
        ),
        "most of a row's weight would then fall on few keys": (
            largest == sorted(largest) and largest[1] > 0.5
        ),
        "a score of 12 overflows when we exponentiate it": bool(row[0].exp().isinf()),
        "the last digits of the two softmaxes differ": not torch.equal(
            shifted / shifted.sum(), torch.softmax(row, dim=-1)
        ),
    }


def _claims_on_models() -> dict[str, bool]:
    gpt, llama = model("GPT-2 medium"), model("Llama 3 8B")
    w, shorter = llama.workload(), gpt.workload()
    found = numbers()
    return {
        "Llama 3 8B reads sequences so many times as long": (
            llama.context == found["longer"] * gpt.context
        ),
        "and has so many times as many heads": llama.heads == found["more_heads"] * gpt.heads,
        "which makes so many times the scores": (
            w.score_elements == found["pairs"] * found["more_heads"] * shorter.score_elements
        ),
        "that factor is N/d": found["llama_ratio"] == w.seq_len / w.head_dim,
        "K and V are repeated to all heads in Llama, not in GPT-2 medium": (
            llama.kv_heads < llama.heads and gpt.kv_heads == gpt.heads
        ),
    }


def _eight_tokens() -> list[torch.Tensor]:
    """Q, K, V of the page's first cell."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, 1, 8, 16, generator=generator) for _ in range(3)]


def _scores(dim: int) -> torch.Tensor:
    pair = torch.randn(2, 1000, dim, generator=torch.Generator().manual_seed(0))
    return pair[0] @ pair[1].T


def _difference(dtype: torch.dtype) -> float:
    """The difference from PyTorch's output, over what rounding explains in the worst case."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 12, 128, 64, dtype=dtype, generator=generator) for _ in range(3))
    o, s, _ = standard_attention(q, k, v)
    found = (o.double() - F.scaled_dot_product_attention(q, k, v).double()).abs().max()
    worst = 4 * (2 * s.abs().max().item() + 1) * UNITS[dtype] + (64 + 128) * 2**-24
    return (found / v.abs().max()).item() / worst
