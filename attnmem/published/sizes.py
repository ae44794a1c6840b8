"""Printed sizes: matrices of scores, and the keys and values that are kept, as claims."""

from functools import partial

from attnmem.published import recomputed as ours
from attnmem.published.claim import Claim, G, K, M, over, row

# Whole score matrices of long sequences

RABE = (
    "Rabe and Staats 2021, Self-attention Does Not Need O(n²) Memory",
    "https://arxiv.org/abs/2112.05682",
)
HF_DOCS = (
    "Hugging Face 2023, Optimizing LLMs for Speed and Memory",
    "https://huggingface.co/docs/transformers/en/llm_tutorial_optimization",
)


def _of_rabe(table: int, what: str, unit: str, first: int, printed: str) -> list[Claim]:
    """Cells of Table 2, inference, or 3, with gradients: 2^first tokens, and on by factors of 4."""
    lengths = [2 ** (first + 2 * i) for i in range(len(printed.split()))]
    of_n, note = {
        SIZES: (partial(ours.one_head, gradients=table == 3), ""),
        EXTRA: (
            partial(ours.score_matrices, table - 1, 4),
            f"{table - 1} N×N in f32, as JAX fuses.",
        ),
    }[what]
    mistaken = None
    if (table, unit) == (3, M) and what == SIZES:
        mistaken, note = over(lengths, lambda n: of_n(n) / 1.024), "Their MB is GiB/1000."
    where = f"Table {table}; one head, d = 64"
    return row(what, RABE, where, unit, printed, over(lengths, of_n), mistaken=mistaken, note=note)


SIZES, EXTRA = "inputs and outputs", "memory overhead of standard attention"
SEQUENCES = [
    *_of_rabe(2, SIZES, K, 8, "160 640"),
    *_of_rabe(2, SIZES, M, 12, "2.5 10 40 160 640"),
    *_of_rabe(2, EXTRA, K, 8, "270"),
    *_of_rabe(2, EXTRA, M, 10, "4.0 64"),
    *_of_rabe(2, EXTRA, G, 14, "1"),
    *_of_rabe(3, SIZES, K, 8, "192 768"),
    *_of_rabe(3, SIZES, M, 12, "2.9 12 47 188 750"),
    *_of_rabe(3, EXTRA, K, 8, "532"),
    *_of_rabe(3, EXTRA, M, 10, "8.0 128"),
    *_of_rabe(3, EXTRA, G, 14, "2.0"),
    *row(
        "attention matrix of one head in 32 bit",
        ("Kitaev et al. 2020, Reformer", "https://arxiv.org/abs/2001.04451"),
        "section 2",
        G,
        "16",
        over([2**16], partial(ours.score_matrices, 1, 4)),
    ),
    *(
        claim
        for n, printed, unit, last in (
            (1000, "50", "MB", 10),
            (16000, "19", G, 1),
            (100_000, "1", "TB", 1),
        )
        for claim in row(
            "QKᵀ of 40 heads in bfloat16",
            HF_DOCS,
            "section 2",
            unit,
            printed,
            over([n], partial(ours.score_matrices, 40, 2)),
            last=last,
            note="By the formula printed in the same sentence.",
        )
    ),
]


# Keys and values that are kept

KWON = "Kwon et al. 2023, PagedAttention", "https://arxiv.org/abs/2309.06180"
HF_BLOG = "Hugging Face 2024, blog post Llama 3.1", "https://huggingface.co/blog/llama31"
DEEPSEEK = "Zhao et al. 2025, Insights into DeepSeek-V3", "https://arxiv.org/abs/2505.09343"
VLLM_6689 = "https://github.com/vllm-project/vllm/issues/6689"
MODELS = {  # layers, heads of keys, head dimension
    "Llama 3.1 8B": (32, 8, 128),
    "Llama 3.1 70B": (80, 8, 128),
    "Llama 3.1 405B": (126, 8, 128),
    "Qwen2.5 72B": (80, 8, 128),
    "OPT-13B": (40, 40, 128),
}
DEEPSEEK_V3 = 61 * 2 * (512 + 64)  # layers, bytes, and one latent vector a token with its position


def _kept(model: str, tokens: int, *, times: int = 1) -> int:
    layers, kv_heads, head_dim = MODELS[model]
    return times * ours.kv_cache(layers, kv_heads, head_dim, tokens)


def _of_blog(model: str, printed: str) -> list[Claim]:
    tokens = {"1k tokens": 1024, "16k tokens": 16000, "128k tokens": 128000}
    first, now = (
        {name: partial(_kept, model, n, times=times) for name, n in tokens.items()}
        for times in (2, 1)
    )
    what, where = f"keys and values, {model}", "table of KV cache sizes"
    if "405B" not in model:
        return row(what, HF_BLOG, where, G, printed, now)
    note = "16 heads of keys, as the weights were first published; since August 2024, 8."
    return row(
        what, HF_BLOG, where, G, printed, now, mistaken=first, superseded=VLLM_6689, note=note
    )


CACHE = [
    *row(
        "keys and values of a token, OPT-13B",
        KWON,
        "section 3",
        K,
        "800",
        {"": partial(_kept, "OPT-13B", 1)},
    ),
    *row(
        "keys and values of 2048 tokens, OPT-13B",
        KWON,
        "section 3",
        G,
        "1.6",
        {"": partial(_kept, "OPT-13B", 2048)},
    ),
    *_of_blog("Llama 3.1 8B", "0.125 1.95 15.62"),
    *_of_blog("Llama 3.1 70B", "0.313 4.88 39.06"),
    *_of_blog("Llama 3.1 405B", "0.984 15.38 123.05"),
    *row(
        "keys and values of a token",
        DEEPSEEK,
        "Table 1",
        "kB",
        "70.272 327.680 516.096",
        {
            "DeepSeek-V3": lambda: DEEPSEEK_V3,
            **{name: partial(_kept, name, 1) for name in ("Qwen2.5 72B", "Llama 3.1 405B")},
        },
    ),
    *row(
        "the same, compared with DeepSeek-V3",
        DEEPSEEK,
        "Table 1",
        "times",
        "4.66 7.28",
        {
            "Qwen2.5 72B": lambda: _kept("Qwen2.5 72B", 1) / DEEPSEEK_V3,
            "Llama 3.1 405B": lambda: _kept("Llama 3.1 405B", 1) / DEEPSEEK_V3,
        },
        note="The sizes are right.",
    ),
]
