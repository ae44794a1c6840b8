"""Numbers about attention that others printed, each below what recomputes it."""

from functools import partial

import torch

from attnmem.catalog import accelerator, model
from attnmem.formulas import standard_steps
from attnmem.prediction.allocator import cublas_workspace
from attnmem.prediction.trace import trace
from attnmem.programs import dropout_attention, standard_attention
from attnmem.published.claim import Claim
from attnmem.roofline import limits
from attnmem.workload import Workload

MB, GB, KIB, MIB, GIB = 10**6, 10**9, 2**10, 2**20, 2**30


# FlashAttention

DAO = "Dao et al. 2022, FlashAttention"
DAO_URL = "https://arxiv.org/abs/2205.14135"
GPT2 = model("GPT-2 medium").workload(1024, batch=64, dtype=torch.float16)


def flash_memory(n: int) -> float:
    """MiB: 4S + 10X, for sequences of ``n`` tokens."""
    w = Workload(batch=16, heads=8, seq_len=n, head_dim=64, dtype=torch.float16)
    return (4 * w.score_bytes + 10 * w.head_bytes) / MIB


def traffic(w: Workload) -> float:
    """GB that the steps of a forward and a backward pass move, as traced: 18S + 12X.

    Without the copy of dK that is laid out like K.
    """
    steps = trace(standard_attention, w, training=True).steps
    return sum(s.bytes_moved for s in steps if s.stage != "inputs" and s.name != "copy") / GB


def flops(w: Workload, products: int, heads: int) -> float:
    """GFLOPs of so many products, of some heads, and of 14 operations on each score of all.

    The 14 is what the printed number leaves.
    """
    product = 2 * w.batch * heads * w.seq_len**2 * w.head_dim
    return (products * product + 14 * w.score_elements) / GB


ONE_HEAD = "The products of one head in place of 16, and 14 operations per score of all 16 heads."
ONE_MORE = "The same, with one product more, for backward computes S again."
FLASH_ATTENTION = (
    *(
        Claim(
            f"memory of attention, forward and backward, N = {n}",
            f"{DAO}, Table 21, row PyTorch Attention; A100, B = 16, H = 8, d = 64, f16",
            DAO_URL,
            published=printed,
            last=1,
            unit="MiB (printed as MB)",
            compute=partial(flash_memory, n),
            note="4S + 10X. One of the ten X is in no program that we know.",
        )
        for n, printed in ((128, 36), (256, 104), (512, 336), (1024, 1184))
    ),
    Claim(
        "bytes that standard attention moves, forward and backward",
        f"{DAO}, Figure 2, left; GPT-2 medium, N = 1024, d = 64, 16 heads, B = 64",
        DAO_URL,
        published=40.3,
        last=0.1,
        unit="GB",
        compute=partial(traffic, GPT2),
        note="The sum over the traced steps, 18S + 12X.",
    ),
    *(
        Claim(
            f"FLOPs of {kind}, forward and backward",
            f"{DAO}, Figure 2, left",
            DAO_URL,
            published=printed,
            last=0.1,
            unit="GFLOPs",
            compute=partial(flops, GPT2, products, GPT2.heads),
            note=note,
            mistaken=partial(flops, GPT2, products, 1),
        )
        for kind, products, printed, note in (
            ("standard attention", 6, 66.6, ONE_HEAD),
            ("FlashAttention", 7, 75.2, ONE_MORE),
        )
    ),
)


# What a layer of a transformer keeps

KORTHIKANTI = "Korthikanti et al. 2022, Reducing Activation Recomputation"
KORTHIKANTI_URL = "https://arxiv.org/abs/2205.05198"
SECTION_5 = f"{KORTHIKANTI}, section 5", KORTHIKANTI_URL
GPT3, MT_NLG = (96, 2048, 12288), (128, 2048, 20480)  # heads a, length s, hidden size h


def score_terms(a: int, s: int, h: int) -> float:
    """5as/h of the sbh(34 + 5as/h) bytes that a layer keeps; 16 bit, dropout.

    ``a`` heads, ``s`` tokens, hidden size ``h``.
    """
    return 5 * a * s / h


def saved_share(a: int, s: int, h: int) -> float:
    """What part of these bytes the scores are, in per cent."""
    return 100 * score_terms(a, s, h) / (34 + score_terms(a, s, h))


def recomputed_share(a: int, s: int, h: int) -> float:
    """Attention's products, in per cent of a layer's, forward."""
    return 100 * 4 * s * s * h / (24 * s * h * h + 4 * s * s * h)


def kept_per_score() -> float:
    """Bytes kept for backward for each score, as traced, in 16 bit on CUDA."""
    w = Workload(batch=1, heads=12, seq_len=2048, head_dim=64, dtype=torch.bfloat16)
    return trace(dropout_attention, w, training=True).saved_bytes / w.score_elements


SAVED = "activation memory saved by recomputing attention"
ADDED = "FLOPs added by recomputing attention"
A_THIRD = "Our number is the share in the forward pass; of a training step it is a third."
ACTIVATIONS = (
    Claim(
        "bytes kept for each score in training with dropout",
        f"{KORTHIKANTI}, section 4.1: 5as²b",
        KORTHIKANTI_URL,
        published=5,
        last=1,
        unit="B",
        compute=kept_per_score,
        note="P, its mask, and the dropped P: traced for CUDA, in 16 bit.",
    ),
    Claim("5as/h, GPT-3", *SECTION_5, 80, 1, "", partial(score_terms, *GPT3)),
    Claim("5as/h, MT-NLG", *SECTION_5, 64, 1, "", partial(score_terms, *MT_NLG)),
    Claim(f"{SAVED}, GPT-3", *SECTION_5, 70, 1, "%", partial(saved_share, *GPT3)),
    Claim(f"{SAVED}, MT-NLG", *SECTION_5, 65, 1, "%", partial(saved_share, *MT_NLG)),
    Claim(f"{ADDED}, GPT-3", *SECTION_5, 2.7, 0.1, "%", partial(recomputed_share, *GPT3), A_THIRD),
    Claim(
        f"{ADDED}, MT-NLG", *SECTION_5, 1.6, 0.1, "%", partial(recomputed_share, *MT_NLG), A_THIRD
    ),
)


# Intensities, and the time of the exponentials

YUAN = "Yuan et al. 2024, LLM Inference Unveiled, Table 1", "https://arxiv.org/abs/2402.16363"


def intensities() -> tuple[float, float]:
    """Of QKᵀ and of softmax, in FLOPs per byte, at N = 2048 and d = 128 in 16 bit."""
    w = Workload(batch=1, heads=32, seq_len=2048, head_dim=128, dtype=torch.float16)
    qk, _, softmax, _ = standard_steps(w)
    return qk.intensity, softmax.intensity


def exponentials_share() -> float:
    """The exponentials' time, in per cent of the products', on an H100.

    Both at the rates of its data sheet, at d = 128 in 16 bit.
    """
    w = Workload(batch=1, heads=16, seq_len=8192, head_dim=128, dtype=torch.float16)
    qk, _, softmax, pv = standard_steps(w)
    h100 = accelerator("H100 SXM")
    products = limits(qk, h100)["compute"] + limits(pv, h100)["compute"]
    return 100 * limits(softmax, h100)["special functions"] / products


INTENSITIES = (
    Claim(
        "arithmetic intensity of QKᵀ, N = 2048, d = 128",
        *YUAN,
        published=114,
        last=1,
        unit="FLOP/B",
        compute=lambda: intensities()[0],
    ),
    Claim(
        "arithmetic intensity of softmax, 16 bit",
        *YUAN,
        published=1.25,
        last=0.01,
        unit="FLOP/B",
        compute=lambda: intensities()[1],
        note="Five operations per score, by their convention and ours.",
    ),
    Claim(
        "exponentials, of the time of the products, d = 128",
        "Shah et al. 2024, FlashAttention-3, section 3.1; H100 SXM",
        "https://arxiv.org/abs/2407.08608",
        published=50,
        last=1,
        unit="%",
        compute=exponentials_share,
        note="By data sheets: 16 special functions a clock on each multiprocessor.",
    ),
)


# Whole score matrices of long sequences

RABE = "Rabe and Staats 2021, Self-attention Does Not Need O(n²) Memory"
HF_DOCS = (
    "Hugging Face 2023, Optimizing LLMs for Speed and Memory, section 2",
    "https://huggingface.co/docs/transformers/en/llm_tutorial_optimization",
)


def score_matrices(how_many: int, n: int, element_bytes: int, unit: int) -> float:
    """So many N×N matrices, in a unit of so many bytes."""
    return how_many * n**2 * element_bytes / unit


SEQUENCES = (
    *(
        Claim(
            f"memory overhead of standard attention, {kind}, N = {n}",
            f"{RABE}, Table {table}; one head",
            "https://arxiv.org/abs/2112.05682",
            published=printed,
            last=last,
            unit=f"{name[0]}iB (printed as {name})",
            compute=partial(score_matrices, how_many, n, 4, unit),
            note=f"{how_many} N×N in f32. JAX fuses; PyTorch, step by step, needs more.",
        )
        for table, kind, how_many, n, printed, last, name, unit in (
            (2, "inference", 1, 2**12, 64.0, 1.0, "MB", MIB),
            (2, "inference", 1, 2**14, 1.0, 1.0, "GB", GIB),
            (3, "with gradients", 2, 2**12, 128.0, 1.0, "MB", MIB),
            (3, "with gradients", 2, 2**14, 2.0, 0.1, "GB", GIB),
        )
    ),
    Claim(
        "attention matrix of 64K tokens in 32 bit",
        "Kitaev et al. 2020, Reformer, section 2",
        "https://arxiv.org/abs/2001.04451",
        published=16,
        last=1,
        unit="GiB (printed as GB)",
        compute=partial(score_matrices, 1, 2**16, 4, GIB),
        note="Of one head of one layer.",
    ),
    Claim(
        "QKᵀ of 40 heads in bfloat16, N = 16000",
        *HF_DOCS,
        published=19,
        last=1,
        unit="GiB (printed as GB)",
        compute=partial(score_matrices, 40, 16000, 2, GIB),
    ),
    Claim(
        "QKᵀ of 40 heads in bfloat16, N = 1000",
        *HF_DOCS,
        published=50,
        last=10,
        unit="MB",
        compute=partial(score_matrices, 40, 1000, 2, MB),
        note="The formula printed in the same sentence gives ours.",
    ),
)


# Keys and values that are kept

DEEPSEEK = (
    "Zhao et al. 2025, Insights into DeepSeek-V3, Table 1",
    "https://arxiv.org/abs/2505.09343",
)


def kv_cache(layers: int, kv_heads: int, head_dim: int, tokens: int) -> int:
    """Bytes of the keys and values of a sequence, over all layers, in 16 bit."""
    return 2 * 2 * layers * kv_heads * head_dim * tokens


CACHE = (
    Claim(
        "keys and values kept for a token by OPT-13B",
        "Kwon et al. 2023, PagedAttention, section 3",
        "https://arxiv.org/abs/2309.06180",
        published=800,
        last=1,
        unit="KiB (printed as KB)",
        compute=lambda: kv_cache(layers=40, kv_heads=40, head_dim=128, tokens=1) / KIB,
    ),
    Claim(
        "keys and values of 128k tokens in Llama 3.1 405B",
        "Hugging Face 2024, blog post Llama 3.1, table of KV cache sizes",
        "https://huggingface.co/blog/llama31",
        published=123.05,
        last=0.01,
        unit="GiB (printed as GB)",
        compute=lambda: kv_cache(126, 8, 128, 128000) / GIB,
        note="With 16 heads of keys, as the weights were first published; the paper has 8.",
        mistaken=lambda: kv_cache(126, 16, 128, 128000) / GIB,
    ),
    Claim(
        "keys and values for a token, Llama 3.1 405B",
        *DEEPSEEK,
        published=516.096,
        last=0.001,
        unit="kB",
        compute=lambda: kv_cache(126, 8, 128, 1) / 1000,
    ),
    Claim(
        "the same, compared with DeepSeek-V3",
        *DEEPSEEK,
        published=7.28,
        last=0.01,
        unit="times",
        compute=lambda: kv_cache(126, 8, 128, 1) / (2 * 61 * (512 + 64)),
        note="Both sizes in the table are right: 516.096 and 70.272 kB.",
    ),
)


# Devices

HE = "He 2022, Making Deep Learning Go Brrrr"


def rates_ratio(flops: float, time: float) -> float:
    """How much slower than products, with 99.80 % of FLOPs and 61.0 % of time.

    ``flops`` and ``time`` are the shares of the other operations, in per cent.
    """
    return (99.80 / 61.0) / (flops / time)


DEVICES = (
    Claim(
        "workspace of cuBLAS that looks like a leak",
        "PyTorch issue 95668",
        "https://github.com/pytorch/pytorch/issues/95668",
        published=8519680,
        last=1,
        unit="B",
        compute=lambda: cublas_workspace((8, 6)),
        note="On an A10G, of compute capability 8.6.",
    ),
    Claim(
        "balance point of a TPU v5e",
        "Austin et al. 2025, How to Scale Your Model, All About Rooflines",
        "https://jax-ml.github.io/scaling-book/roofline/",
        published=240,
        last=1,
        unit="FLOP/B",
        compute=lambda: 1.97e14 / 8.2e11,
        note="From the rates in the same sentence.",
    ),
    *(
        Claim(
            f"FLOP/s of {kind}, compared with matrix products",
            f"{HE}; from Ivanov et al. 2020, Table 1, which we saw quoted only",
            "https://horace.io/brrr_intro.html",
            published=times,
            last=last,
            unit="times less",
            compute=partial(rates_ratio, *shares),
        )
        for kind, times, last, shares in (
            ("normalization", 250, 10, (0.17, 25.5)),
            ("pointwise operations", 700, 100, (0.03, 13.5)),
        )
    ),
)

CLAIMS = FLASH_ATTENTION + ACTIVATIONS + INTENSITIES + SEQUENCES + CACHE + DEVICES
