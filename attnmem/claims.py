"""Numbers about attention that others printed, and where: ``CLAIMS``."""

from functools import partial

import torch

from attnmem import recomputed
from attnmem.prediction.allocator import cublas_workspace
from attnmem.published import Claim
from attnmem.recomputed import GIB, GPT3, MIB, MT_NLG

FLASH = "Dao et al. 2022, FlashAttention"
FLASH_URL = "https://arxiv.org/abs/2205.14135"


KORTHIKANTI = "Korthikanti et al. 2022, Reducing Activation Recomputation"
KORTHIKANTI_URL = "https://arxiv.org/abs/2205.05198"

RABE = "Rabe and Staats 2021, Self-attention Does Not Need O(n²) Memory"
HF_DOCS = "Hugging Face 2023, Optimizing LLMs for Speed and Memory"
DEEPSEEK = "Zhao et al. 2025, Insights into DeepSeek-V3"
HE = "He 2022, Making Deep Learning Go Brrrr"

CLAIMS = (
    *(
        Claim(
            f"memory of attention, forward and backward, N = {n}",
            f"{FLASH}, Table 21, row PyTorch Attention; A100, B = 16, H = 8, d = 64, f16",
            FLASH_URL,
            printed,
            1,
            "MiB (printed as MB)",
            partial(recomputed.flash_memory, n),
            "4S + 10X. One of the ten X is in no program that we know.",
        )
        for n, printed in ((128, 36), (256, 104), (512, 336), (1024, 1184))
    ),
    Claim(
        "bytes that standard attention moves, forward and backward",
        f"{FLASH}, Figure 2, left; GPT-2 medium, N = 1024, d = 64, 16 heads, B = 64",
        FLASH_URL,
        40.3,
        0.1,
        "GB",
        recomputed.traffic,
        "The sum over the traced steps, 18S + 12X.",
    ),
    Claim(
        "FLOPs of standard attention, forward and backward",
        f"{FLASH}, Figure 2, left",
        FLASH_URL,
        66.6,
        0.1,
        "GFLOPs",
        lambda: recomputed.products(6) + recomputed.pointwise(),
        "The products of one head in place of 16, and 14 operations per score of all 16 heads.",
        lambda: recomputed.products(6, heads=1) + recomputed.pointwise(),
    ),
    Claim(
        "FLOPs of FlashAttention, forward and backward",
        f"{FLASH}, Figure 2, left",
        FLASH_URL,
        75.2,
        0.1,
        "GFLOPs",
        lambda: recomputed.products(7) + recomputed.pointwise(),
        "The same, with one product more, for backward computes S again.",
        lambda: recomputed.products(7, heads=1) + recomputed.pointwise(),
    ),
    Claim(
        "bytes kept for each score in training with dropout",
        f"{KORTHIKANTI}, section 4.1: 5as²b",
        KORTHIKANTI_URL,
        5,
        1,
        "B",
        recomputed.kept_per_score,
        "P, its mask, and the dropped P: traced for CUDA, in 16 bit.",
    ),
    *(
        Claim(
            f"{what}, {model}",
            f"{KORTHIKANTI}, section 5",
            KORTHIKANTI_URL,
            printed,
            last,
            unit,
            partial(compute, *sizes),
            note,
        )
        for what, compute, last, unit, note, both in (
            ("5as/h", recomputed.score_terms, 1, "", "", (80, 64)),
            (
                "activation memory saved by recomputing attention",
                recomputed.saved_share,
                1,
                "%",
                "",
                (70, 65),
            ),
            (
                "FLOPs added by recomputing attention",
                recomputed.recomputed_share,
                0.1,
                "%",
                "Our number is the share in the forward pass; of a training step it is a third.",
                (2.7, 1.6),
            ),
        )
        for model, sizes, printed in (("GPT-3", GPT3, both[0]), ("MT-NLG", MT_NLG, both[1]))
    ),
    Claim(
        "arithmetic intensity of QKᵀ, N = 2048, d = 128",
        "Yuan et al. 2024, LLM Inference Unveiled, Table 1",
        "https://arxiv.org/abs/2402.16363",
        114,
        1,
        "FLOP/B",
        lambda: recomputed.intensities()[0],
    ),
    Claim(
        "arithmetic intensity of softmax, 16 bit",
        "Yuan et al. 2024, LLM Inference Unveiled, Table 1",
        "https://arxiv.org/abs/2402.16363",
        1.25,
        0.01,
        "FLOP/B",
        lambda: recomputed.intensities()[1],
        "Five operations per score, by their convention and ours.",
    ),
    Claim(
        "exponentials, of the time of the products, d = 128",
        "Shah et al. 2024, FlashAttention-3, section 3.1; H100 SXM",
        "https://arxiv.org/abs/2407.08608",
        50,
        1,
        "%",
        recomputed.exponentials_share,
        "By data sheets: 16 special functions a clock on each multiprocessor.",
    ),
    *(
        Claim(
            f"memory overhead of standard attention, {kind}, N = {n}",
            f"{RABE}, Table {table}; one head",
            "https://arxiv.org/abs/2112.05682",
            printed,
            last,
            f"{unit[0]}iB (printed as {unit})",
            partial(recomputed.score_matrices, how_many, n, unit=MIB if unit == "MB" else GIB),
            f"{how_many} N×N in f32. JAX fuses; PyTorch, step by step, needs more.",
        )
        for table, kind, how_many, n, printed, last, unit in (
            (2, "inference", 1, 2**12, 64.0, 1.0, "MB"),
            (2, "inference", 1, 2**14, 1.0, 1.0, "GB"),
            (3, "with gradients", 2, 2**12, 128.0, 1.0, "MB"),
            (3, "with gradients", 2, 2**14, 2.0, 0.1, "GB"),
        )
    ),
    Claim(
        "attention matrix of 64K tokens in 32 bit",
        "Kitaev et al. 2020, Reformer, section 2",
        "https://arxiv.org/abs/2001.04451",
        16,
        1,
        "GiB (printed as GB)",
        lambda: recomputed.score_matrices(1, 2**16) / GIB,
        "Of one head of one layer.",
    ),
    Claim(
        "QKᵀ of 40 heads in bfloat16, N = 16000",
        f"{HF_DOCS}, section 2",
        "https://huggingface.co/docs/transformers/en/llm_tutorial_optimization",
        19,
        1,
        "GiB (printed as GB)",
        lambda: recomputed.score_matrices(1, 16000, 40, torch.bfloat16) / GIB,
    ),
    Claim(
        "QKᵀ of 40 heads in bfloat16, N = 1000",
        f"{HF_DOCS}, section 2",
        "https://huggingface.co/docs/transformers/en/llm_tutorial_optimization",
        50,
        10,
        "MB",
        lambda: recomputed.score_matrices(1, 1000, 40, torch.bfloat16) / 10**6,
        "The formula printed in the same sentence gives ours.",
    ),
    Claim(
        "keys and values kept for a token by OPT-13B",
        "Kwon et al. 2023, PagedAttention, section 3",
        "https://arxiv.org/abs/2309.06180",
        800,
        1,
        "KiB (printed as KB)",
        lambda: recomputed.kv_cache(layers=40, kv_heads=40, head_dim=128, tokens=1) / 2**10,
    ),
    Claim(
        "keys and values of 128k tokens in Llama 3.1 405B",
        "Hugging Face 2024, blog post Llama 3.1, table of KV cache sizes",
        "https://huggingface.co/blog/llama31",
        123.05,
        0.01,
        "GiB (printed as GB)",
        lambda: recomputed.kv_cache(126, 8, 128, 128000) / GIB,
        "With 16 heads of keys, as the weights were first published; the paper has 8.",
        lambda: recomputed.kv_cache(126, 16, 128, 128000) / GIB,
    ),
    Claim(
        "keys and values for a token, Llama 3.1 405B",
        f"{DEEPSEEK}, Table 1",
        "https://arxiv.org/abs/2505.09343",
        516.096,
        0.001,
        "kB",
        lambda: recomputed.kv_cache(126, 8, 128, 1) / 1000,
    ),
    Claim(
        "the same, compared with DeepSeek-V3",
        f"{DEEPSEEK}, Table 1",
        "https://arxiv.org/abs/2505.09343",
        7.28,
        0.01,
        "times",
        lambda: recomputed.kv_cache(126, 8, 128, 1) / (2 * 61 * (512 + 64)),
        "Both sizes in the table are right: 516.096 and 70.272 kB.",
    ),
    Claim(
        "workspace of cuBLAS that looks like a leak",
        "PyTorch issue 95668",
        "https://github.com/pytorch/pytorch/issues/95668",
        8519680,
        1,
        "B",
        lambda: cublas_workspace((8, 6)),
        "On an A10G, of compute capability 8.6.",
    ),
    Claim(
        "balance point of a TPU v5e",
        "Austin et al. 2025, How to Scale Your Model, All About Rooflines",
        "https://jax-ml.github.io/scaling-book/roofline/",
        240,
        1,
        "FLOP/B",
        lambda: 1.97e14 / 8.2e11,
        "From the rates in the same sentence.",
    ),
    *(
        Claim(
            f"FLOP/s of {kind}, compared with matrix products",
            f"{HE}; from Ivanov et al. 2020, Table 1, which we saw quoted only",
            "https://horace.io/brrr_intro.html",
            times,
            last,
            "times less",
            partial(recomputed.rates_ratio, *shares),
        )
        for kind, times, last, shares in (
            ("normalization", 250, 10, (0.17, 25.5)),
            ("pointwise operations", 700, 100, (0.03, 13.5)),
        )
    ),
)
