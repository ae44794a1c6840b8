"""Large language models: rotary embeddings, shared keys, caches, caps and sinks."""
# ruff: noqa: D102
# mypy: disable-error-code="no-any-return,no-untyped-call"

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnmem.corpus.entry import hidden, kv_heads, module, program, turns, width
from attnmem.workload import Workload


def _complex(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))


def _rotate_complex(x: Tensor, freqs_cis: Tensor) -> Tensor:
    """Of x ``[B, N, H, d]``, by complex numbers ``[N, d/2]``."""
    return torch.view_as_real(_complex(x) * freqs_cis[:, None]).flatten(3).type_as(x)


def _rotate_half(x: Tensor) -> Tensor:
    first, second = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return torch.cat((-second, first), dim=-1)


def _cis(n: int, d: int) -> Tensor:
    angles = turns(n, d)
    return torch.polar(torch.ones_like(angles), angles)


@module
class Llama(nn.Module):
    """Rotary by complex numbers, a cache written by slices, heads repeated by expand:
    meta-llama/llama, llama/model.py.
    """

    freqs_cis: Tensor

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.n_heads, self.n_kv, self.d = w.heads, kv_heads(w.heads), w.head_dim
        self.wq = nn.Linear(width(w), w.heads * self.d, bias=False, dtype=w.dtype)
        self.wk = nn.Linear(width(w), self.n_kv * self.d, bias=False, dtype=w.dtype)
        self.wv = nn.Linear(width(w), self.n_kv * self.d, bias=False, dtype=w.dtype)
        self.wo = nn.Linear(w.heads * self.d, width(w), bias=False, dtype=w.dtype)
        self.register_buffer("freqs_cis", _cis(2 * w.seq_len, w.head_dim), persistent=False)

    def repeat_kv(self, x: Tensor) -> Tensor:
        b, n, h, d = x.shape
        x = x[:, :, :, None, :].expand(b, n, h, self.n_heads // h, d)
        return x.reshape(b, n, self.n_heads, d)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = hidden(q)
        b, n, _ = x.shape
        xq = self.wq(x).view(b, n, self.n_heads, self.d)
        xk = self.wk(x).view(b, n, self.n_kv, self.d)
        xv = self.wv(x).view(b, n, self.n_kv, self.d)
        xq, xk = (_rotate_complex(y, self.freqs_cis[:n]) for y in (xq, xk))
        cache_k = torch.zeros(b, 2 * n, self.n_kv, self.d, device=x.device).to(xq)
        cache_v = torch.zeros(b, 2 * n, self.n_kv, self.d, device=x.device).to(xq)
        cache_k[:b, 0:n] = xk
        cache_v[:b, 0:n] = xv
        keys = self.repeat_kv(cache_k[:b, :n])
        values = self.repeat_kv(cache_v[:b, :n])
        xq, keys, values = (y.transpose(1, 2) for y in (xq, keys, values))
        scores = torch.matmul(xq, keys.transpose(2, 3)) / math.sqrt(self.d)
        mask = torch.full((n, n), float("-inf"), device=x.device)
        scores = scores + torch.triu(mask, diagonal=1).type_as(x)
        scores = F.softmax(scores.float(), dim=-1).type_as(xq)
        output = torch.matmul(scores, values).transpose(1, 2).contiguous().view(b, n, -1)
        return self.wo(output)


@program
def mistral(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A sliding window as the logarithm of a band, a rotating cache written by scatter:
    mistralai/mistral-inference, one_file_ref.py.
    """
    b, h, n, d = q.shape
    window, n_kv = n // 4, kv_heads(h)
    xq, xk, xv = q.transpose(1, 2), k[:, :n_kv].transpose(1, 2), v[:, :n_kv].transpose(1, 2)
    positions = torch.arange(0, n).to(q.device)
    cache = torch.empty(2, b, window, n_kv, d, dtype=q.dtype, device=q.device)
    place = (positions[-window:] % window)[None, :, None, None].repeat(b, 1, n_kv, d)
    with torch.no_grad():
        cache[0, :b].scatter_(dim=1, index=place, src=xk[:, -window:])
        cache[1, :b].scatter_(dim=1, index=place, src=xv[:, -window:])
    key = torch.repeat_interleave(xk, repeats=h // n_kv, dim=2).transpose(1, 2)
    value = torch.repeat_interleave(xv, repeats=h // n_kv, dim=2).transpose(1, 2)
    band = torch.full((n, n), dtype=q.dtype, fill_value=1, device=q.device)
    band = torch.tril(band, diagonal=0).to(q.dtype)
    band = torch.log(torch.triu(band, diagonal=-window))
    scores = torch.matmul(xq.transpose(1, 2), key.transpose(2, 3)) * d**-0.5
    scores += band[None, None, ...]
    scores = scores.float()
    scores = nn.functional.softmax(scores, dim=-1).type_as(q)
    return torch.matmul(scores, value).transpose(1, 2).contiguous().view(b, n, -1)


@module
class Gemma2(nn.Module):
    """Scores capped by tanh, a local mask, a cache written by index_copy:
    google/gemma_pytorch, gemma/model.py.
    """

    freqs_cis: Tensor

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.h, self.n_kv, self.d = w.heads, kv_heads(w.heads), w.head_dim
        sizes = (self.h + 2 * self.n_kv) * self.d
        self.qkv_proj = nn.Linear(width(w), sizes, bias=False, dtype=w.dtype)
        self.o_proj = nn.Linear(width(w), width(w), bias=False, dtype=w.dtype)
        self.register_buffer("freqs_cis", _cis(w.seq_len, w.head_dim))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = hidden(q)
        b, n, _ = x.shape
        parts = [self.h * self.d, self.n_kv * self.d, self.n_kv * self.d]
        xq, xk, xv = (y.view(b, -1, y.size(-1) // self.d, self.d) for y in
                      self.qkv_proj(x).split(parts, dim=-1))  # fmt: skip
        places = torch.arange(n, dtype=torch.long, device=x.device)
        freqs = self.freqs_cis.index_select(0, places)
        xq, xk = _rotate_complex(xq, freqs), _rotate_complex(xk, freqs)
        k_cache = torch.zeros(b, n, self.n_kv, self.d, dtype=x.dtype, device=x.device)
        v_cache = torch.zeros_like(k_cache)
        k_cache.index_copy_(1, places, xk)
        v_cache.index_copy_(1, places, xv)
        key = torch.repeat_interleave(k_cache, self.h // self.n_kv, dim=2)
        value = torch.repeat_interleave(v_cache, self.h // self.n_kv, dim=2)
        query = xq.transpose(1, 2)
        query.mul_(self.d**-0.5)
        scores = torch.matmul(query, key.transpose(1, 2).transpose(2, 3))
        scores = scores / 50.0
        scores = torch.tanh(scores)
        scores = scores * 50.0
        mask = torch.full((1, 1, n, n), -2.3819763e38).to(torch.float)
        mask = torch.triu(mask, diagonal=1).to(x.device)
        near = torch.triu(torch.ones((1, 1, n, n), device=x.device), 1 - n // 4)
        scores = scores + torch.where(near == 1, mask, -2.3819763e38)
        scores = F.softmax(scores.float(), dim=-1).type_as(query)
        output = torch.matmul(scores, value.transpose(1, 2))
        return self.o_proj(output.transpose(1, 2).contiguous().view(b, n, -1))


@module
class GptOss(nn.Module):
    """Learned sinks beside the scores, one sequence at a time:
    openai/gpt-oss, gpt_oss/torch/model.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.sinks = nn.Parameter(torch.empty(w.heads, dtype=w.dtype).normal_())
        self.window = w.seq_len // 4
        self.n_kv, self.repeats = kv_heads(w.heads), w.heads // kv_heads(w.heads)

    def sdpa(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        n, h, r, d = q.shape
        k = k[:, :, None, :].expand(-1, -1, r, -1)
        v = v[:, :, None, :].expand(-1, -1, r, -1)
        sinks = self.sinks.reshape(h, r, 1, 1).expand(-1, -1, n, -1)
        mask = torch.triu(q.new_full((n, n), -float("inf")), diagonal=1)
        mask += torch.tril(mask.new_full((n, n), -float("inf")), diagonal=-self.window)
        qk = torch.einsum("qhmd,khmd->hmqk", q, k)
        qk *= 1 / math.sqrt(d)
        qk += mask[None, None, :, :]
        qk = torch.cat([qk, sinks], dim=-1)
        weights = torch.softmax(qk, dim=-1)[..., :-1]
        return torch.einsum("hmqk,khmd->qhmd", weights, v).reshape(n, -1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        b, _, n, d = q.shape
        q = q.transpose(1, 2).reshape(b, n, self.n_kv, self.repeats, d)
        k, v = (x[:, : self.n_kv].transpose(1, 2) for x in (k, v))
        return torch.stack([self.sdpa(q[i], k[i], v[i]) for i in range(b)])


@program
def gpt_neox(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary by halves on a quarter of each head:
    huggingface/transformers, src/transformers/models/gpt_neox/modeling_gpt_neox.py.
    """
    n, d = q.shape[-2:]
    angles = turns(n, d // 4, device=q.device)
    emb = torch.cat((angles, angles), dim=-1)
    cos, sin = emb.cos().to(q.dtype)[None, None], emb.sin().to(q.dtype)[None, None]
    rotary = cos.shape[-1]
    q, k = (
        torch.cat((y * cos + _rotate_half(y) * sin, x[..., rotary:]), dim=-1)
        for x in (q, k)
        for y in (x[..., :rotary],)
    )
    mask = torch.full((n, n), torch.finfo(q.dtype).min, dtype=q.dtype, device=q.device)
    mask = torch.triu(mask, diagonal=1)[None, None].expand(q.shape[0], 1, -1, -1)
    weights = torch.matmul(q, k.transpose(2, 3)) * d**-0.5
    weights = weights + mask[:, :, :, : k.shape[-2]]
    weights = nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(q.dtype)
    out = torch.matmul(weights, v).transpose(1, 2).contiguous()
    return out.reshape(*out.shape[:2], -1), weights


@program
def megatron(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Sequence first, and baddbmm over an empty buffer:
    NVIDIA/Megatron-LM, megatron/core/transformer/dot_product_attention.py.
    """
    query, key, value = (x.permute(2, 0, 1, 3).contiguous() for x in (q, k, v))
    n, b, h, d = query.shape
    query = query.reshape(n, b * h, -1)
    key = key.view(n, b * h, -1)
    buffer = torch.empty((b * h, n, n), dtype=query.dtype, device=query.device)
    scores = torch.baddbmm(
        buffer,
        query.transpose(0, 1),
        key.transpose(0, 1).transpose(1, 2),
        beta=0.0,
        alpha=1.0 / math.sqrt(d),
    )
    scores = scores.view(b, h, n, n)
    mask = torch.tril(torch.ones((1, 1, n, n), device=q.device)) < 0.5
    scores.masked_fill_(mask, -10000.0)
    probs = F.dropout(torch.nn.Softmax(dim=-1)(scores), 0.1)
    value = value.view(n, b * h, -1)
    context = torch.bmm(probs.view(b * h, n, -1), value.transpose(0, 1))
    context = context.view(b, h, n, -1).permute(2, 0, 1, 3).contiguous()
    return context.view(n, b, h * d)


@module
class DeepSeekMLA(nn.Module):
    """Latent attention with the up-projection of K folded into Q:
    deepseek-ai/DeepSeek-V3, inference/model.py.
    """

    freqs_cis: Tensor

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.h, self.nope, self.rope, self.rank = w.heads, w.head_dim, 16, 48
        self.v_dim = w.head_dim // 2
        self.wq = nn.Linear(width(w), self.h * (self.nope + self.rope), bias=False, dtype=w.dtype)
        self.wkv_a = nn.Linear(width(w), self.rank + self.rope, bias=False, dtype=w.dtype)
        self.kv_norm = nn.RMSNorm(self.rank, dtype=w.dtype)
        self.wkv_b = nn.Linear(
            self.rank, self.h * (self.nope + self.v_dim), bias=False, dtype=w.dtype
        )
        self.wo = nn.Linear(self.h * self.v_dim, width(w), bias=False, dtype=w.dtype)
        self.register_buffer("freqs_cis", _cis(w.seq_len, self.rope), persistent=False)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = hidden(q)
        b, n, _ = x.size()
        query = self.wq(x).view(b, n, self.h, self.nope + self.rope)
        q_nope, q_pe = torch.split(query, [self.nope, self.rope], dim=-1)
        q_pe = _rotate_complex(q_pe, self.freqs_cis)
        kv, k_pe = torch.split(self.wkv_a(x), [self.rank, self.rope], dim=-1)
        k_pe = _rotate_complex(k_pe.unsqueeze(2), self.freqs_cis)
        wkv_b = self.wkv_b.weight.view(self.h, -1, self.rank)
        q_nope = torch.einsum("bshd,hdc->bshc", q_nope, wkv_b[:, : self.nope])
        kv_cache, pe_cache = self.kv_norm(kv), k_pe.squeeze(2)
        scores = torch.einsum("bshc,btc->bsht", q_nope, kv_cache)
        scores = scores + torch.einsum("bshr,btr->bsht", q_pe, pe_cache)
        scores = scores * (self.nope + self.rope) ** -0.5
        mask = torch.full((n, n), float("-inf"), device=x.device).triu_(1)
        scores += mask.unsqueeze(1)
        scores = scores.softmax(dim=-1, dtype=torch.float32).type_as(x)
        y = torch.einsum("bsht,btc->bshc", scores, kv_cache)
        y = torch.einsum("bshc,hdc->bshd", y, wkv_b[:, -self.v_dim :])
        return self.wo(y.flatten(2))
