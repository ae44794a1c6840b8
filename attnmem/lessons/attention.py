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
GPT, LLAMA = model("GPT-2 medium"), model("Llama 3 8B")


def table_of_scaling(
    plain: Mapping[int, tuple[float, float]], divided: Mapping[int, tuple[float, float]]
) -> Table:
    """Scores with and without the division by √d: d -> their deviation, a row's largest weight."""
    return Table(
        {
            "d": "",
            "deviation, plain": ".2f",
            "largest weight, plain": ".2f",
            "deviation, divided": ".2f",
            "largest weight, divided": ".2f",
        },
        ((dim, *plain[dim], *divided[dim]) for dim in plain),
    )


def table_of_differences(found: Sequence[tuple[str, float, float]]) -> Table:
    """How far two outputs differ: the inputs in words, the difference, what rounding explains."""
    return Table({"Q, K, V": "", "difference": ".1e", "allowed": ".1e"}, found)


def table_of_shapes(layers: Mapping[str, Mapping[str, torch.Tensor]]) -> Table:
    """Types and shapes of the tensors of models' layers: model -> (tensor's name -> tensor)."""
    return Table(
        dict.fromkeys(("tensor", *layers), ""),
        ((x, *(shape_text(layer[x]) for layer in layers.values())) for x in "QKVSPO"),
    )


def table_of_counts(models: Sequence[Model]) -> Table:
    """The entries of the tensors of one layer, for a causal sequence as long as the model takes."""
    layers = [(m, m.workload()) for m in models]
    return Table(
        {"": ""} | {m.name: "," for m in models},
        [
            ("entries of one of Q, K, V, O", *(w.head_elements for _, w in layers)),
            ("entries of one of S, P", *(w.score_elements for _, w in layers)),
            ("the second over the first", *(w.seq_len // w.head_dim for _, w in layers)),
            ("zeros in P", *(f"{(1 - 1 / w.seq_len) / 2:.2%}" for _, w in layers)),
            ("scores in all layers", *(m.layers * w.score_elements for m, w in layers)),
        ],
    )


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    _, s, p = standard_attention(*_seeded(3, 1, 1, 8, 16))
    w = LLAMA.workload()
    kv_shape = 1, LLAMA.kv_heads, w.seq_len, w.head_dim
    return {
        "matrices": figures.score_matrices(s[0, 0], p[0, 0]),
        "gpt_n": GPT.context,
        "llama_n": LLAMA.context,
        "longer": LLAMA.context // GPT.context,
        "pairs": LLAMA.context**2 // GPT.context**2,
        "more_heads": LLAMA.heads // GPT.heads,
        "more_scores": w.score_elements // GPT.workload().score_elements,
        "llama_scores_billion": w.score_elements / 1e9,
        "llama_ratio": w.score_elements // w.head_elements,
        "llama_heads": LLAMA.heads,
        "llama_kv_heads": LLAMA.kv_heads,
        "llama_kv_shape": shape_text(torch.empty(kv_shape, dtype=w.dtype, device="meta")),
    }


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    return _claims_on_steps() | _claims_on_models()


def _claims_on_steps() -> dict[str, bool]:
    q, k, v = _seeded(3, 1, 1, 8, 16)
    o, _, p = standard_attention(q, k, v)
    by_steps = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), dim=-1)
    pairs = {dim: _seeded(2, 1000, dim) for dim in (16, 64, 256)}
    scores = {dim: queries @ keys.T for dim, (queries, keys) in pairs.items()}
    largest = [torch.softmax(s, dim=-1).amax(dim=-1).mean().item() for s in scores.values()]
    row = torch.tensor([12.0, 11.0, 10.0], dtype=torch.float16)
    shifted = (row - row.max()).exp()
    return {
        "the function agrees to the bit": torch.equal(p, by_steps) and torch.equal(o, by_steps @ v),
        "the differences from PyTorch's output are far smaller than the worst case": (
            max(_difference(dtype) for dtype in UNITS) < 0.1
        ),
        "the differences between scores would grow with √d": all(
            math.isclose(s.std().item(), math.sqrt(dim), rel_tol=0.01) for dim, s in scores.items()
        ),
        "most weight would then fall on few keys": largest == sorted(largest) and largest[1] > 0.5,
        "a score of 12 overflows when we exponentiate it": bool(row[0].exp().isinf()),
        "the last digits of the two softmaxes differ": not torch.equal(
            shifted / shifted.sum(), torch.softmax(row, dim=-1)
        ),
    }


def _claims_on_models() -> dict[str, bool]:
    w, scores = LLAMA.workload(), GPT.workload().score_elements
    longer, more_heads = LLAMA.context / GPT.context, LLAMA.heads / GPT.heads
    return {
        "Llama 3 8B reads sequences so many times as long": longer.is_integer(),
        "and has so many times as many heads": more_heads.is_integer(),
        "which makes so many times the scores": w.score_elements == longer**2 * more_heads * scores,
        "that factor is N/d": w.score_elements // w.head_elements == w.seq_len / w.head_dim,
        "K and V are repeated to all heads in Llama, not in GPT-2 medium": (
            LLAMA.kv_heads < LLAMA.heads and GPT.kv_heads == GPT.heads
        ),
    }


def _seeded(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0)).unbind()


def _difference(dtype: torch.dtype) -> float:
    """The difference from PyTorch's output, over what rounding explains in the worst case."""
    q, k, v = _seeded(3, 2, 12, 128, 64, dtype=dtype)
    o, s, _ = standard_attention(q, k, v)
    found = (o.double() - F.scaled_dot_product_attention(q, k, v).double()).abs().max()
    worst = 4 * (2 * s.abs().max().item() + 1) * UNITS[dtype] + (64 + 128) * 2**-24
    return (found / v.abs().max()).item() / worst
