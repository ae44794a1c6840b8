"""The page on standard attention: its tables, what its text looks up, and what it says."""

import math
from typing import Any

import torch

from attnmem import figures
from attnmem.catalog import model
from attnmem.lessons.table import Table
from attnmem.programs import standard_attention
from attnmem.workload import shape_text

GPT, LLAMA = model("GPT-2 medium"), model("Llama 3 8B")
WORDS = ("The", "cup", "broke", "when", "it", "fell")
PROPERTIES = ("noun", "fragile", "verb", "link")


def sentence() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Q, K and V of the six words, ``[6, 4]`` each, as the page's first cell makes them."""
    noun, fragile, verb, link = torch.eye(4)
    none = torch.zeros(4)
    q = torch.stack([none, verb, noun, verb, noun, noun / 2])
    k = torch.stack([link, noun, verb, link, noun / 2, verb])
    v = torch.stack([link, noun + fragile, verb, link, none, verb])
    return 8 * q, k, v


def table_of_models() -> Table:
    """The tensors of one layer of two models, for a causal sequence as long as each takes."""
    models = [(m, m.workload()) for m in (GPT, LLAMA)]
    inside = [torch.empty(*w.shape[:3], w.seq_len, dtype=w.dtype, device="meta") for _, w in models]
    around = [torch.empty(w.shape, dtype=w.dtype, device="meta") for _, w in models]
    return Table(
        {"size": ""} | {m.name: "," for m, _ in models},
        [
            ("Q, K, V, O", *map(shape_text, around)),
            ("S, P", *map(shape_text, inside)),
            ("entries of one of Q, K, V, O", *(w.head_elements for _, w in models)),
            ("entries of one of S, P", *(w.score_elements for _, w in models)),
            ("the second over the first", *(w.seq_len // w.head_dim for _, w in models)),
            ("zeros in P", *(f"{(1 - 1 / w.seq_len) / 2:.2%}" for _, w in models)),
            ("scores in all layers", *(m.layers * w.score_elements for m, w in models)),
        ],
    )


def _random_scores(d: int) -> torch.Tensor:
    """What 1000 random queries and keys give without the division, ``[1000, 1000]``."""
    q, k = torch.randn(2, 1000, d, generator=torch.Generator().manual_seed(0)).unbind()
    return q @ k.mT


def _share_of_three() -> float:
    """How much of a row's weight its three largest scores then get, at d = 64, on average."""
    return float(_random_scores(64).softmax(-1).topk(3).values.sum(-1).mean())


def _without_pairs() -> bool:
    """Whether weights of 1 + (q·k)² give their output without a number for any pair."""
    q, k, v = torch.randn(3, 100, 4, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    weights = 1 + (q @ k.mT) ** 2
    # (q·k)² is the sum of (q_i q_j)(k_i k_j) over all i and j
    squares = (torch.einsum("ni,nj->nij", x, x).flatten(1) for x in (q, k))
    q, k = (torch.nn.functional.pad(x, (1, 0), value=1.0) for x in squares)
    output = q @ (k.mT @ v) / (q @ k.sum(0))[:, None]
    return torch.allclose(output, weights @ v / weights.sum(-1, keepdim=True))


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    o, s, p = standard_attention(*sentence())
    _, _, masked = standard_attention(*sentence(), causal=True)
    w, gpt = LLAMA.workload(), GPT.workload()
    carried = {"S = QKᵀ/√d": (s, WORDS), "P = softmax(S)": (p, WORDS), "O = PV": (o, PROPERTIES)}
    return {
        "shapes": figures.shapes(w),
        "words": figures.matrices(carried, WORDS),
        "causal": figures.matrices({"P": (p, WORDS), "P, causal": (masked, WORDS)}, WORDS),
        "e_squared": math.exp(2),
        "share_of_three": _share_of_three(),
        "gpt_n": GPT.context,
        "gpt_heads": GPT.heads,
        "gpt_head_dim": GPT.head_dim,
        "llama_n": LLAMA.context,
        "llama_heads": LLAMA.heads,
        "llama_head_dim": LLAMA.head_dim,
        "llama_kv_heads": LLAMA.kv_heads,
        "llama_ratio": w.score_elements // w.head_elements,
        "llama_scores_billion": w.score_elements / 1e9,
        "longer": LLAMA.context // GPT.context,
        "pairs": LLAMA.context**2 // GPT.context**2,
        "more_heads": LLAMA.heads // GPT.heads,
        "more_scores": w.score_elements // gpt.score_elements,
    }


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    cup, broke, it, fell = map(WORDS.index, ("cup", "broke", "it", "fell"))
    o, s, p = standard_attention(*sentence())
    _, _, masked = standard_attention(*sentence(), causal=True)
    w, scores = LLAMA.workload(), GPT.workload().score_elements
    longer, more_heads = LLAMA.context / GPT.context, LLAMA.heads / GPT.heads
    return {
        "it gives cup a score of 4, and itself one of 2": s[it, [cup, it]].tolist() == [4, 2],
        "it stands for a noun, and a fragile one": bool((o[it, :2] > 0.8).all()),
        "The gets the plain average": len(set(p[0].tolist())) == 1,
        "fell looks half as hard, and its weights are flatter": (
            torch.equal(2 * s[fell], s[it]) and bool(p[fell].max() < p[it].max())
        ),
        "cup can't see broke any more, and sees two words alike": (
            bool(p[cup, broke] > 0.4) and masked[cup, :2].tolist() == [0.5, 0.5]
        ),
        "scores differ by about √d": all(
            math.isclose(_random_scores(d).std().item(), math.sqrt(d), rel_tol=0.01)
            for d in (16, 64, 256)
        ),
        "most of a row's weight would fall on a few keys": _share_of_three() > 0.9,
        "a score of 12 is too much for e^x": bool(torch.tensor(12.0).half().exp().isinf()),
        "so many times as long, and so many heads, make so many times the scores": (
            longer % 1 == more_heads % 1 == w.score_elements - longer**2 * more_heads * scores == 0
        ),
        "that factor is N/d": w.score_elements * w.head_dim == w.head_elements * w.seq_len,
        "with weights of 1 + (q·k)², sums over keys serve every query": _without_pairs(),
        "Llama shares heads of keys and values": LLAMA.kv_heads < LLAMA.heads,
    }
