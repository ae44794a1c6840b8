"""What others printed of attention on several GPUs, beside what recomputes it."""

import torch

from attnmem.lessons.more_gpus.times import BACKWARD, RECOMPUTED, efficiency
from attnmem.lessons.table import Table
from attnmem.workload import Workload

README = "https://github.com/zhuzilin/ring-flash-attention"
POST = "https://huggingface.co/blog/ulysses-sp"
GUIDE = "https://huggingface.co/docs/trl/en/long_context_training"

#: ring-flash-attention's README, iterations a second: what eight cards could do, ring, balanced.
ITERATIONS = (
    (73.9, 38.5, 63.0),
    (19.3, 10.4, 17.4),
    (46.7, 24.0, 38.2),
    (11.8, 6.2, 10.6),
    (106.6, 52.4, 74.8),
    (28.2, 14.4, 21.4),
    (66.5, 33.1, 47.9),
    (16.7, 8.7, 13.4),
)
#: What it prints of them, as shares in per cent.
PRINTED = (52.1, 53.9, 51.4, 52.5, 49.1, 51.1, 49.8, 52.1)
PRINTED_BALANCED = (85.2, 90.2, 81.7, 89.8, 70.2, 75.9, 72.0, 80.2)
#: Of a ring without balance, in an older version of that README, with other sizes.
PRINTED_BEFORE = (68.8, 61.5, 64.3, 56.6)
CARDS = 8
#: Hugging Face's post of March 2026: tokens -> peak of one of four H100, in GB; and that of one
#: H100 with 8192 tokens of its own. Qwen3-4B.
PEAKS = {8192: 22.8, 32768: 35.0, 65536: 50.5, 98304: 66.0}
ALONE_GB = 22.4
SHARED = 4
LAYERS, WIDTH, VOCABULARY, HEADS, HEAD_DIM = 36, 2560, 151936, 32, 128
#: TRL's guide: seconds of a step of Qwen3-8B, which has as many layers and heads, and its tokens,
#: which the release notes of 1.13.0 give in full.
STEP_SECONDS, STEP_TOKENS = 380.10, 1_048_576


def ring_shares() -> list[float]:
    """Of what eight cards could do, without balance."""
    return [ring / one for one, ring, _ in ITERATIONS]


def balanced_shares() -> list[float]:
    """The same, balanced."""
    return [balanced / one for one, _, balanced in ITERATIONS]


#: By how much the peak grows from 32k tokens to 96k, in GB, and for how many tokens of a rank.
GROWN_GB = PEAKS[98304] - PEAKS[32768]
GROWN_TOKENS = (98304 - 32768) // SHARED


def kept_gb(tokens: int) -> float:
    """What checkpointing keeps of so many tokens: the input of each layer, in 16 bit."""
    return tokens * LAYERS * WIDTH * 2 / 1e9


def logit() -> float:
    """Bytes for each logit, if logits were all that grows besides."""
    return (GROWN_GB - kept_gb(GROWN_TOKENS)) * 1e9 / GROWN_TOKENS / VOCABULARY


def more_alone_gb() -> float:
    """What one card with 8192 tokens should then need more than one of four that share them."""
    tokens = 8192 - 8192 // SHARED
    return kept_gb(tokens) + logit() * tokens * VOCABULARY / 1e9


def scores(heads: int) -> int:
    """Bytes of so many N × N tensors in 16 bit at 128k tokens."""
    n = 131072
    return Workload(
        batch=1, heads=heads, seq_len=n, head_dim=HEAD_DIM, dtype=torch.bfloat16
    ).score_bytes


def step_rates() -> tuple[float, float]:
    """TFLOP/s of each of eight cards if a step were attention alone, without and with recomputing.

    Attention is causal; its products are two forward and five backward.
    """
    forward = 4 * STEP_TOKENS**2 * HEADS * HEAD_DIM / 2 * LAYERS
    few, many = (n * forward / STEP_SECONDS / CARDS / 1e12 for n in (1 + BACKWARD, RECOMPUTED))
    return few, many


def table_of_printed() -> Table:
    """Printed, computed, and what we say to it."""
    readme, post = f"[ring-flash-attention]({README})", f"[Hugging Face]({POST})"
    one, all_heads = (scores(heads) / 1e12 for heads in (1, HEADS))
    return Table(
        dict.fromkeys(("claim", "source", "printed", "computed", "verdict"), ""),
        [
            (
                "causal ring, 8 cards",
                readme,
                f"{min(PRINTED)} to {max(PRINTED)} %",
                f"at most {100 * efficiency(CARDS):.1f} %",
                "bound",
            ),
            (
                "the same, balanced",
                readme,
                f"{min(PRINTED_BALANCED)} to {max(PRINTED_BALANCED)} %",
                "at most 100 %",
                "bound",
            ),
            (
                "growth of the peak, 32k to 96k",
                post,
                f"{GROWN_GB:.1f} GB",
                f"{kept_gb(GROWN_TOKENS):.1f} GB, checkpoints alone",
                "unexplained",
            ),
            (
                "a mask at 128k",
                post,
                "~1 TB",
                f"{one:.2f} TB; scores of {HEADS} heads: {all_heads:.1f} TB",
                "erratum",
            ),
        ],
    )
