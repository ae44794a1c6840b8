"""Training steps of two small models, a GPT-2 and a Llama, as their projects write them.

After karpathy/nanoGPT, model.py and train.py, and meta-llama/llama3, llama/model.py, with the loop
of pytorch/torchtitan, torchtitan/train.py. Two layers of modest width, real vocabularies.
"""
# ruff: noqa: D102

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from attnmem.corpus.entry import heads, hidden, turns

aten = torch.ops.aten

# What a selective checkpoint keeps, after torchtitan: products and attention.
KEPT = {
    aten.mm.default,
    aten.addmm.default,
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
}


def _policy(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if op in KEPT else CheckpointPolicy.PREFER_RECOMPUTE


def _attend(kind: str, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """Causal attention: PyTorch's own, or standard attention with all of S and P."""
    if kind == "sdpa":
        grouped = q.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(
            q, k, v, is_causal=True, dropout_p=dropout, enable_gqa=grouped
        )
    n, groups = q.shape[-2], q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(groups, 1) if groups > 1 else x for x in (k, v))
    s = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    future = torch.ones(n, n, dtype=torch.bool, device=q.device).triu(1)
    p = torch.softmax(s.masked_fill(future, -torch.inf), dim=-1)
    return F.dropout(p, dropout) @ v


class GPTBlock(nn.Module):
    """Attention and an MLP, each after a LayerNorm, with dropout."""

    def __init__(self, width: int, attention: str) -> None:
        super().__init__()
        self.attention = attention
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (heads(y, x.shape[-1] // 64) for y in self.qkv(self.norm1(x)).chunk(3, -1))
        attended = _attend(self.attention, q, k, v, 0.1 if self.training else 0.0)
        x = x + self.dropout(self.out(hidden(attended)))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm2(x)))))  # type: ignore[no-any-return]


class GPT(nn.Module):
    """Token and position embeddings, blocks, and an output layer tied to the embeddings."""

    tokens: ClassVar = 50257

    def __init__(self, attention: str, width: int = 256, length: int = 512) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(self.tokens, width), nn.Embedding(length, width)
        self.dropout = nn.Dropout(0.1)
        self.blocks = nn.ModuleList(GPTBlock(width, attention) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, self.tokens, bias=False)
        self.token.weight = self.head.weight

    def forward(self, tokens: Tensor, wrap: Callable[..., Any]) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.token(tokens) + self.position(places))
        for block in self.blocks:
            x = wrap(block, x)
        return self.head(self.norm(x))  # type: ignore[no-any-return]


class LlamaBlock(nn.Module):
    """Attention with grouped heads and rotated Q and K, and a gated MLP, each after an RMSNorm."""

    def __init__(self, width: int, attention: str) -> None:
        super().__init__()
        self.attention = attention
        self.norm1, self.norm2 = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.q, self.out = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.k, self.v = (nn.Linear(width, width // 4, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(width, 1408, bias=False) for _ in range(2))
        self.down = nn.Linear(1408, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        y = self.norm1(x)
        q, k, v = (heads(f(y), f.out_features // 64) for f in (self.q, self.k, self.v))
        q, k = (_rotate(z, cos, sin) for z in (q, k))
        x = x + self.out(hidden(_attend(self.attention, q, k, v, 0.0)))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))  # type: ignore[no-any-return]


class Llama(nn.Module):
    """Token embeddings, blocks, and an output layer of its own."""

    tokens: ClassVar = 32000

    def __init__(self, attention: str, width: int = 512) -> None:
        super().__init__()
        self.token = nn.Embedding(self.tokens, width)
        self.blocks = nn.ModuleList(LlamaBlock(width, attention) for _ in range(2))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.head = nn.Linear(width, self.tokens, bias=False)

    def forward(self, tokens: Tensor, wrap: Callable[..., Any]) -> Tensor:
        x = self.token(tokens)
        angles = turns(tokens.shape[1], 64, tokens.device).repeat(1, 2)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        for block in self.blocks:
            x = wrap(block, x, cos, sin)
        return self.head(self.norm(x))  # type: ignore[no-any-return]


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


MODELS = {"GPT": GPT, "Llama": Llama}
PRECISIONS = ("float32", "bfloat16", "autocast")
ATTENTIONS = ("sdpa", "standard")
CHECKPOINTS: dict[str, Callable[..., Any]] = {
    "none": lambda block, *args: block(*args),
    "block": functools.partial(checkpoint, use_reentrant=False),
    "selective": functools.partial(
        checkpoint,
        use_reentrant=False,
        context_fn=functools.partial(create_selective_checkpoint_contexts, _policy),
    ),
}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": functools.partial(torch.optim.SGD, lr=0.1),
    "AdamW, a loop": functools.partial(torch.optim.AdamW, foreach=False),
    "AdamW, foreach": functools.partial(torch.optim.AdamW, foreach=True),
    "AdamW, fused": functools.partial(torch.optim.AdamW, fused=True),
}


@dataclass(frozen=True)
class Recipe:
    """One way to train one of the models: a batch of 2 sequences of 512 tokens."""

    model: str
    precision: str
    attention: str
    checkpoint: str
    optimizer: str

    @property
    def name(self) -> str:
        """What it is, in words."""
        saved = "" if self.checkpoint == "none" else f", {self.checkpoint} checkpoints"
        return f"{self.model}, {self.precision}, {self.attention}{saved}, {self.optimizer}"

    def start(self, device: str | torch.device) -> Callable[[], None]:
        """Make the model, its optimizer and data on ``device``, and return the training step."""
        with torch.device(device):
            model = MODELS[self.model](self.attention)
            tokens = torch.randint(model.tokens, (2, 513))
        if self.precision == "bfloat16":
            model.to(torch.bfloat16)
        optimizer = OPTIMIZERS[self.optimizer](model.parameters())
        wrap = CHECKPOINTS[self.checkpoint]

        def step() -> None:
            with torch.autocast("cuda", torch.bfloat16, enabled=self.precision == "autocast"):
                logits = model(tokens[:, :-1], wrap)
                loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            loss.backward()  # type: ignore[no-untyped-call]
            if self.model == "Llama":
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return step

    def from_nothing(self, steps: int, device: str | torch.device = "cuda") -> Callable[[], None]:
        """A call that makes everything itself, and takes so many steps."""

        def train() -> None:
            step = self.start(device)
            for _ in range(steps):
                step()

        return train


def calls(
    chosen: Iterable[Recipe], device: str | torch.device
) -> Iterator[tuple[str, Callable[[], None]]]:
    """The first and the second step of each recipe, and both after making its model."""
    for recipe in chosen:
        step = recipe.start(device)
        yield f"{recipe.name}: first step", step
        yield f"{recipe.name}: second step", step
        del step  # and the model
        yield f"{recipe.name}: all of it", recipe.from_nothing(2, device)


def recipes() -> Iterator[Recipe]:
    """Every recipe: 144."""
    choices = (MODELS, PRECISIONS, ATTENTIONS, CHECKPOINTS, OPTIMIZERS)
    return itertools.starmap(Recipe, itertools.product(*choices))
