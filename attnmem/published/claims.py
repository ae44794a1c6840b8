"""Numbers about attention that others printed: rows of their tables, whole, as claims.

A source is here because it is read and cited. From each come the rows, or the sentence, with a
quantity that this book computes for a program it has: bytes, traffic, FLOPs, intensity. A row is
taken whole, with the cells that do not fit. Times are not taken: they belong to one device.
"""

from collections.abc import Callable, Iterable
from functools import partial

from attnmem.prediction.allocator import cublas_workspace
from attnmem.programs import flash_sdpa, standard_attention
from attnmem.published import recomputed as ours
from attnmem.published.claim import Cells, M, over, row
from attnmem.published.sizes import CACHE, SEQUENCES
from attnmem.timeline import Step

# FlashAttention

DAO = "Dao et al. 2022, FlashAttention", "https://arxiv.org/abs/2205.14135"
A100 = "A100, B = 16, H = 8, d = 64, f16"
FIGURE_2 = "Figure 2, left; GPT-2 medium, N = 1024, d = 64, 16 heads, B = 64"
BOTH = "forward and backward"
FLASH_ATTENTION = [
    *row(
        f"memory of standard attention, {BOTH}",
        DAO,
        f"Table 21, row PyTorch Attention; {A100}",
        M,
        "36 104 336 1184 4416 17024",
        over((2**i for i in range(7, 13)), ours.standard_memory),
        note="4S + 10X. Our function has 6X; one that packs Q, K, V, as their benchmark, 8X.",
        fitted="2 of the 10 X",
    ),
    *row(
        f"memory of FlashAttention, {BOTH}",
        DAO,
        f"Table 21, row FlashAttention; {A100}",
        M,
        "22 44 104 209 418 836 1672 3344 6688 13376",
        over((2**i for i in range(7, 17)), ours.flash_memory),
        note="13X + 2L, and 11X + 2L up to 256 tokens. Their first code has 3X less.",
        fitted="3 of the 11 or 13 X",
    ),
    *row(
        f"bytes moved, {BOTH}, standard attention",
        DAO,
        FIGURE_2,
        "GB",
        "40.3",
        {"": partial(ours.traffic, standard_attention)},
        note="18S + 12X: as traced, but for a copy of dK, which moves 2X.",
        fitted="the missing 2X",
    ),
    *row(
        f"bytes moved, {BOTH}, FlashAttention",
        DAO,
        FIGURE_2,
        "GB",
        "4.4",
        {"": partial(ours.traffic, flash_sdpa)},
        note="As traced for today's kernels, each operand once: a lower bound.",
    ),
    *row(
        f"FLOPs, {BOTH}",
        DAO,
        FIGURE_2,
        "GFLOPs",
        "66.6 75.2",
        {
            "standard attention": partial(ours.products, 6),
            "FlashAttention": partial(ours.products, 7),
        },
        note="Products alone, as an author counts them now. What went wrong is a hypothesis.",
        acknowledged="https://github.com/Dao-AILab/flash-attention/issues/741",
    ),
]


# What a layer of a transformer keeps

KORTHIKANTI = (
    "Korthikanti et al. 2022, Reducing Activation Recomputation",
    "https://arxiv.org/abs/2205.05198",
)
LAYERS = {"GPT-3": (96, 2048, 12288), "MT-NLG": (128, 2048, 20480)}  # heads a, tokens s, width h


def _of_layers(compute: Callable[[int, int, int], float]) -> Cells:
    return {name: partial(compute, *sizes) for name, sizes in LAYERS.items()}


SECTION_5 = KORTHIKANTI, "section 5"
ACTIVATIONS = [
    *row(
        "bytes kept for each score in training with dropout",
        KORTHIKANTI,
        "section 4.1: 5as²b",
        "B",
        "5",
        {"": ours.kept_per_score},
        note="P, its mask, and the dropped P: traced for CUDA, in 16 bit.",
    ),
    *row("5as/h", *SECTION_5, "", "80 64", _of_layers(ours.score_terms)),
    *row(
        "memory saved, attention recomputed", *SECTION_5, "%", "70 65", _of_layers(ours.saved_share)
    ),
    *row(
        "FLOPs added, attention recomputed",
        *SECTION_5,
        "%",
        "2.7 1.6",
        _of_layers(ours.recomputed_share),
        mistaken=_of_layers(ours.equation_8),
        note="Their equation 8 has 1 + s/3h; one more forward pass makes 1 + 2s/9h.",
    ),
]


# Intensities, and the time of the exponentials

YUAN = "Yuan et al. 2024, LLM Inference Unveiled", "https://arxiv.org/abs/2402.16363"
STEPS = {"QKᵀ": 0, "PV": 3, "softmax": 2}
WHOLE, TOKEN = ("prefill", ours.whole), ("decode", ours.token)


def _value(step: Callable[[int], Step], name: str, column: str) -> float:
    return float(getattr(step(STEPS[name]), column))


def _of_steps(step: Callable[[int], Step], column: str, names: Iterable[str]) -> Cells:
    return {name: partial(_value, step, name, column) for name in names}


INTENSITIES = [
    *(
        claim
        for (part, step), what, column, unit, printed, names in (
            (WHOLE, "FLOPs", "flops", "GFLOPs", "34 34", ("QKᵀ", "PV")),
            (WHOLE, "FLOPs", "flops", "MFLOPs", "671", ("softmax",)),
            (WHOLE, "traffic", "bytes_moved", "MB", "302 302 537", STEPS),
            (WHOLE, "intensity", "intensity", "FLOP/B", "114 114 1.25", STEPS),
            (TOKEN, "FLOPs", "flops", "MFLOPs", "17 17", ("QKᵀ", "PV")),
            (TOKEN, "FLOPs", "flops", "kFLOPs", "328", ("softmax",)),
            (TOKEN, "traffic", "bytes_moved", "MB", "17 17", ("QKᵀ", "PV")),
            (TOKEN, "traffic", "bytes_moved", "kB", "262", ("softmax",)),
            (TOKEN, "intensity", "intensity", "FLOP/B", "0.99 0.99 1.25", STEPS),
        )
        for claim in row(
            what,
            YUAN,
            f"Table 1, {part}; Llama 2 7B, N = 2048, d = 128",
            unit,
            printed,
            _of_steps(step, column, names),
        )
    ),
    *row(
        "exponentials, of the time of the products, d = 128",
        ("Shah et al. 2024, FlashAttention-3", "https://arxiv.org/abs/2407.08608"),
        "section 3.1; H100 SXM",
        "%",
        "50",
        {"": ours.exponentials_share},
        note="By data sheets: 16 special functions a clock on each multiprocessor.",
    ),
]


# Devices

HE = "He 2022, Making Deep Learning Go Brrrr", "https://horace.io/brrr_intro.html"
IVANOV = "from Ivanov et al. 2020, Table 1, which we saw quoted only"

DEVICES = [
    *row(
        "workspace of cuBLAS that looks like a leak",
        ("PyTorch issue 95668", "https://github.com/pytorch/pytorch/issues/95668"),
        "",
        "B",
        "8519680",
        {"": lambda: cublas_workspace((8, 6))},
        note="On an A10G, of compute capability 8.6.",
    ),
    *row(
        "balance point of a TPU v5e",
        (
            "Austin et al. 2025, How to Scale Your Model",
            "https://jax-ml.github.io/scaling-book/roofline/",
        ),
        "All About Rooflines",
        "FLOP/B",
        "240",
        {"": lambda: 1.97e14 / 8.2e11},
        note="From the rates in the same sentence.",
    ),
    *row(
        "FLOP/s of normalization, compared with products",
        HE,
        IVANOV,
        "times less",
        "250",
        {"": partial(ours.rates_ratio, 0.17, 25.5)},
        last=10,
    ),
    *row(
        "FLOP/s of pointwise operations, compared with products",
        HE,
        IVANOV,
        "times less",
        "700",
        {"": partial(ours.rates_ratio, 0.03, 13.5)},
        last=100,
    ),
]

CLAIMS = (*FLASH_ATTENTION, *ACTIVATIONS, *INTENSITIES, *SEQUENCES, *CACHE, *DEVICES)
