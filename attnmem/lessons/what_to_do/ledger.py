"""Where the memory of a whole model goes in one step of training: Llama 3 8B, traced."""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from attnmem.catalog import model
from attnmem.corpus.steps import LlamaBlock
from attnmem.lessons.shared import known
from attnmem.lessons.table import Table
from attnmem.lessons.what_to_do.cures import RECORDED_WITH
from attnmem.prediction.call import trace_call
from attnmem.prediction.choice import assuming
from attnmem.prediction.trace import Trace

LLAMA = model("Llama 3 8B")
WIDTH = LLAMA.heads * LLAMA.head_dim
VOCABULARY = known(LLAMA.vocabulary)
W = LLAMA.workload()  # one sequence of its context, in 16 bit

#: A parameter's bytes in mixed precision: itself and its gradient in 16 bit, and in 32 bit for
#: AdamW a copy and two moments. Source: Rajbhandari et al. 2020, arXiv:1910.02054, section 3.1.
WEIGHT, GRADIENT, OPTIMIZER = 2, 2, 12


@cache
def blocks(count: int, attention: str, again: bool = False) -> Trace:
    """So many blocks forward and backward, with each in a checkpoint if ``again``."""
    with torch.device("meta"):
        layers = [
            LlamaBlock(WIDTH, attention, LLAMA.head_dim, known(LLAMA.mlp_width)).to(W.dtype)
            for _ in range(count)
        ]
        x = torch.randn(1, W.seq_len, WIDTH, dtype=W.dtype, requires_grad=True)
        turns = torch.randn(2, W.seq_len, LLAMA.head_dim, dtype=W.dtype)

    def step() -> None:
        y = x
        for layer in layers:
            call: Callable[..., torch.Tensor] = layer
            y = checkpoint(layer, y, *turns, use_reentrant=False) if again else call(y, *turns)
        y.backward(torch.empty_like(y))  # type: ignore[no-untyped-call]

    with assuming(**RECORDED_WITH):
        return trace_call(step)


def kept(attention: str, again: bool = False) -> int:
    """What all layers keep for backward: what a second one adds, times their number."""
    one, two = (blocks(count, attention, again).saved_bytes for count in (1, 2))
    return (two - one) * LLAMA.layers


@cache
def loss() -> Trace:
    """The head and its loss, forward and backward, with logits in 32 bit."""
    with torch.device("meta"):
        head = nn.Linear(WIDTH, VOCABULARY, bias=False, dtype=W.dtype)
        x = torch.randn(W.seq_len, WIDTH, dtype=W.dtype, requires_grad=True)
        labels = torch.randint(VOCABULARY, (W.seq_len,))

    def step() -> None:
        F.cross_entropy(head(x).float(), labels).backward()  # type: ignore[no-untyped-call]

    return trace_call(step)


def parameters() -> int:
    """How many numbers the model has: its blocks, an embedding, a head, and the last norm."""
    with torch.device("meta"):
        block = LlamaBlock(WIDTH, "sdpa", LLAMA.head_dim, known(LLAMA.mlp_width))
    a_block = sum(x.numel() for x in block.parameters())
    return LLAMA.layers * a_block + 2 * VOCABULARY * WIDTH + WIDTH


def attention_share(attention: str) -> int:
    """What attention keeps in all layers: Q, O, K and V of fewer heads, a number for each row.

    Standard attention keeps more, and whatever it keeps more is attention's.
    """
    inputs = 2 * W.head_bytes + 2 * W.head_bytes * LLAMA.kv_heads // LLAMA.heads
    rows = W.heads * W.seq_len * 4
    return LLAMA.layers * (inputs + rows) + kept(attention) - kept("sdpa")


def ledger() -> dict[str, tuple[int, ...]]:
    """Name -> bytes with standard attention, with the fused call, and with checkpoints too."""
    count = parameters()
    ways = (("standard", False), ("sdpa", False), ("sdpa", True))
    shares = *(attention_share(attention) for attention, _ in ways[:2]), 0
    return {
        "weights": (WEIGHT * count,) * 3,
        "gradients": (GRADIENT * count,) * 3,
        "optimizer": (OPTIMIZER * count,) * 3,
        "kept by attention": shares,
        "kept by the rest": tuple(kept(*way) - s for way, s in zip(ways, shares, strict=True)),
        "logits, at their peak": (loss().peak_bytes,) * 3,
    }


def at_the_loss() -> tuple[int, ...]:
    """What is alive then, in each column: all but the gradients."""
    rows = ledger()
    del rows["gradients"]
    return tuple(map(sum, zip(*rows.values(), strict=True)))


def parts() -> dict[str, dict[str, int]]:
    """The columns as bars, without gradients: in a few words -> name -> bytes."""
    rows = ledger()
    names = "kept by attention", "kept by the rest", "logits, at their peak", "weights", "optimizer"
    columns = "standard", "fused", "fused, in\ncheckpoints"
    return {
        words: {name.partition(",")[0]: rows[name][place] for name in names}
        for place, words in enumerate(columns)
    }


def table_of_llama() -> Table:
    """The ledger in GB, and what of it is there at once."""
    total = {"at the loss: all but gradients": at_the_loss()}
    rows = [(name, *(b / 1e9 for b in row)) for name, row in (ledger() | total).items()]
    columns = {"what": "", "standard": ",.1f", "fused": ",.1f", "and checkpoints": ",.1f"}
    return Table(columns, rows)
