"""Q, K and V that differ in heads, in length or in width, and tensors of five dimensions."""
# ruff: noqa: D102
# mypy: disable-error-code="no-any-return,no-untyped-call"

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnmem.corpus.entry import heads, hidden, kv_heads, module, program, width
from attnmem.workload import Workload


@program
def grouped_sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Groups of queries, left to PyTorch's own flag: huggingface/transformers,
    src/transformers/integrations/sdpa_attention.py.
    """
    n_kv = kv_heads(q.shape[1])
    out = F.scaled_dot_product_attention(
        q,
        k[:, :n_kv],
        v[:, :n_kv],
        attn_mask=None,
        dropout_p=0.0,
        scale=q.shape[-1] ** -0.5,
        is_causal=True,
        enable_gqa=True,
    )
    return out.transpose(1, 2).contiguous()


@program
def dynamic_cache(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Decoding with a cache that grows by cat: huggingface/transformers,
    src/transformers/cache_utils.py.
    """
    prefix = q.shape[2] - 8
    keys, values = k[:, :, :prefix], v[:, :, :prefix]
    outs = []
    for step in range(prefix, prefix + 8):
        keys = torch.cat([keys, k[:, :, step : step + 1]], dim=-2)
        values = torch.cat([values, v[:, :, step : step + 1]], dim=-2)
        outs.append(F.scaled_dot_product_attention(q[:, :, step : step + 1], keys, values))
    return torch.cat(outs, dim=-2)


@module
class CrossDiffusers(nn.Module):
    """Cross-attention to 77 tokens with a float mask for each head: huggingface/diffusers,
    src/diffusers/models/attention_processor.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.heads = w.heads
        self.to_q = nn.Linear(width(w), width(w), bias=False, dtype=w.dtype)
        self.to_k = nn.Linear(width(w), width(w), bias=False, dtype=w.dtype)
        self.to_v = nn.Linear(width(w), width(w), bias=False, dtype=w.dtype)
        self.to_out = nn.Linear(width(w), width(w), dtype=w.dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        states, text = hidden(q), hidden(k)[:, :77]
        mask = torch.zeros(text.shape[0], 1, text.shape[1], dtype=q.dtype, device=q.device)
        mask[:, :, -20:] = -10000.0
        mask = mask.repeat_interleave(self.heads, dim=0)
        mask = mask.view(text.shape[0], self.heads, -1, mask.shape[-1])
        query, key, value = (
            heads(x, self.heads) for x in (self.to_q(states), self.to_k(text), self.to_v(text))
        )
        out = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=0.0, is_causal=False
        )
        out = out.transpose(1, 2).reshape(states.shape).to(query.dtype)
        return self.to_out(out)


@program
def hiera(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Windows as a fifth dimension, queries pooled by their maxima: facebookresearch/hiera,
    hiera/hiera.py.
    """
    b, h, n, d = q.shape
    stride = 4
    windows = n // 32 if n % 32 == 0 else 1
    q, k, v = (x.view(b, h, -1, windows, d).permute(0, 1, 3, 2, 4) for x in (q, k, v))
    tokens = n // windows // stride * stride
    q = q[..., :tokens, :].reshape(b, h, windows, stride, -1, d).max(dim=3).values
    x = F.scaled_dot_product_attention(q, k, v)
    return x.transpose(1, 3).reshape(b, -1, h * d)


@program
def flash_diff(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Two fused attentions, their values twice as wide as their keys: microsoft/unilm,
    Diff-Transformer/multihead_flashdiff_1.py.
    """
    half = q.shape[-1] // 2
    (q1, q2), (k1, k2) = q.split(half, dim=-1), k.split(half, dim=-1)
    first = F.scaled_dot_product_attention(q1, k1, v, is_causal=True)
    second = F.scaled_dot_product_attention(q2, k2, v, is_causal=True)
    attn = first - (0.8 - 0.6 * math.exp(-0.3)) * second
    return F.rms_norm(attn, (attn.shape[-1],)).transpose(1, 2).flatten(2)


@module
def torchvision_vit(w: Workload) -> nn.Module:
    """nn.MultiheadAttention in evaluation, where PyTorch has a fast path: pytorch/vision,
    torchvision/models/vision_transformer.py.
    """

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1 = nn.LayerNorm(width(w), eps=1e-6, dtype=w.dtype)
            self.self_attention = nn.MultiheadAttention(
                width(w), w.heads, dropout=0.1, batch_first=True, dtype=w.dtype
            )

        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            inputs = hidden(q)
            x = self.ln_1(inputs)
            x, _ = self.self_attention(x, x, x, need_weights=False)
            return x + inputs

    return Block().eval()


@module
class SimpleRetention(nn.Module):
    """A list of heads, each with its own decay, group norm across them:
    Jamie-Stirling/RetNet, src/retention.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        size = self.size = w.head_dim
        low, high, last = math.log(1 / 32), math.log(1 / 512), max(w.heads - 1, 1)
        self.gammas = [1 - math.exp(low + (high - low) * i / last) for i in range(w.heads)]
        self.w_q, self.w_k, self.w_v = (
            nn.ParameterList(torch.randn(size, size, dtype=w.dtype) / size for _ in range(w.heads))
            for _ in range(3)
        )
        self.w_g = nn.Parameter(torch.randn(width(w), width(w), dtype=w.dtype) / width(w))
        self.group_norm = nn.GroupNorm(w.heads, width(w), dtype=w.dtype)

    @staticmethod
    def decay(n: int, gamma: float, device: torch.device) -> Tensor:
        rows = torch.arange(n, device=device).unsqueeze(1)
        columns = torch.arange(n, device=device).unsqueeze(0)
        d = (gamma ** (rows - columns)) * (rows >= columns).float()
        d[d != d] = 0
        return d

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = hidden(q)
        outs = []
        for i, gamma in enumerate(self.gammas):
            part = x[:, :, i * self.size : (i + 1) * self.size]
            query, key, value = part @ self.w_q[i], part @ self.w_k[i], part @ self.w_v[i]
            decay = self.decay(x.shape[1], gamma, x.device).to(x.dtype)
            outs.append((query @ key.permute(0, 2, 1) * decay.unsqueeze(0)) @ value)
        y = torch.cat(outs, dim=2)
        y = self.group_norm(y.reshape(-1, y.shape[-1])).reshape(y.shape)
        gate = x @ self.w_g
        return (gate * torch.sigmoid(gate)) * y
