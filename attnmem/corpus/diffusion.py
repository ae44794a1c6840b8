"""Attention of image generators: cross-attention, slices, channels first, joint streams."""
# ruff: noqa: D102
# mypy: disable-error-code="no-any-return,no-untyped-call"

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnmem.corpus.entry import heads, hidden, module, program, width
from attnmem.workload import Workload


@module
class LatentDiffusion(nn.Module):
    """Cross-attention to a short text with a padding mask:
    CompVis/latent-diffusion, ldm/modules/attention.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.scale, self.heads = w.head_dim**-0.5, w.heads
        self.to_k = nn.Linear(width(w), width(w), bias=False, dtype=w.dtype)
        self.to_v = nn.Linear(width(w), width(w), bias=False, dtype=w.dtype)
        linear = nn.Linear(width(w), width(w), dtype=w.dtype)
        self.to_out = nn.Sequential(linear, nn.Dropout(0.0))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        h = self.heads
        context = hidden(k)[:, :77]
        mask = torch.ones(context.shape[:2], dtype=torch.bool, device=q.device)
        mask[:, -11:] = False
        k, v = (
            heads(self.to_k(context), h).flatten(0, 1),
            heads(self.to_v(context), h).flatten(0, 1),
        )
        q = q.flatten(0, 1)
        sim = torch.einsum("b i d, b j d -> b i j", q, k) * self.scale
        mask = mask[:, None, None, :].expand(-1, h, -1, -1).reshape(-1, 1, mask.shape[1])
        sim.masked_fill_(~mask, -torch.finfo(sim.dtype).max)
        attn = sim.softmax(dim=-1)
        out = torch.einsum("b i j, b j d -> b i d", attn, v)
        out = hidden(out.view(-1, h, *out.shape[1:]))
        return self.to_out(out)


@program
def sliced_diffusers(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A few heads at a time, written into zeros, by baddbmm over an empty tensor:
    huggingface/diffusers, src/diffusers/models/attention_processor.py.
    """
    b, h, n, d = q.shape
    query, key, value = (x.reshape(b * h, n, d) for x in (q, k, v))
    states = torch.zeros((b * h, n, d), device=q.device, dtype=q.dtype)
    for start in range(0, b * h, 2):
        part = slice(start, start + 2)
        empty = torch.empty(query[part].shape[0], n, n, dtype=query.dtype, device=query.device)
        scores = torch.baddbmm(
            empty, query[part], key[part].transpose(-1, -2), beta=0, alpha=d**-0.5
        )
        del empty
        probs = scores.softmax(dim=-1)
        del scores
        states[part] = torch.bmm(probs.to(value.dtype), value[part])
    return states.reshape(b, h, n, d).permute(0, 2, 1, 3).reshape(b, n, h * d)


@program
def guided_diffusion(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Channels before pixels, the scale on both sides:
    openai/guided-diffusion, guided_diffusion/unet.py.
    """
    qkv = torch.cat([x.transpose(2, 3) for x in (q, k, v)], dim=2)
    b, h, triple, length = qkv.shape
    ch = triple // 3
    q, k, v = qkv.reshape(b * h, ch * 3, length).split(ch, dim=1)
    scale = 1 / math.sqrt(math.sqrt(ch))
    weight = torch.einsum("bct,bcs->bts", q * scale, k * scale)
    weight = torch.softmax(weight.float(), dim=-1).type(weight.dtype)
    a = torch.einsum("bts,bcs->bct", weight, v)
    return a.reshape(b, -1, length)


@program
def flux(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Rotary as 2×2 matrices: black-forest-labs/flux, src/flux/math.py."""
    b, h, n, d = q.shape
    scale = torch.arange(0, d, 2, dtype=torch.float64, device=q.device) / d
    omega = 1.0 / (10000**scale)
    places = torch.arange(n, device=q.device).expand(b, n)
    out = torch.einsum("...n,d->...nd", places, omega)
    out = torch.stack([torch.cos(out), -torch.sin(out), torch.sin(out), torch.cos(out)], dim=-1)
    freqs = out.unflatten(-1, (2, 2)).float().unsqueeze(1)
    xq = q.float().reshape(*q.shape[:-1], -1, 1, 2)
    xk = k.float().reshape(*k.shape[:-1], -1, 1, 2)
    xq = freqs[..., 0] * xq[..., 0] + freqs[..., 1] * xq[..., 1]
    xk = freqs[..., 0] * xk[..., 0] + freqs[..., 1] * xk[..., 1]
    q, k = xq.reshape(*q.shape).type_as(q), xk.reshape(*k.shape).type_as(k)
    x = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    return x.permute(0, 2, 1, 3).reshape(b, n, h * d)


@module
class JointAttention(nn.Module):
    """Text and image projected apart and attended together: Stability-AI/sd3.5, mmditx.py."""

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.num_heads, self.text = w.heads, w.seq_len // 4
        self.qkv = nn.ModuleList(nn.Linear(width(w), 3 * width(w), dtype=w.dtype) for _ in range(2))
        self.ln_q = nn.ModuleList(nn.RMSNorm(w.head_dim, eps=1e-6, dtype=w.dtype) for _ in "xc")
        self.ln_k = nn.ModuleList(nn.RMSNorm(w.head_dim, eps=1e-6, dtype=w.dtype) for _ in "xc")
        self.proj = nn.ModuleList(nn.Linear(width(w), width(w), dtype=w.dtype) for _ in "xc")

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        x = hidden(q)
        parts = []
        for i, stream in enumerate((x[:, : self.text], x[:, self.text :])):
            qkv = self.qkv[i](stream).unflatten(-1, (3, self.num_heads, -1)).movedim(2, 0)
            query, key, value = qkv.unbind(0)
            parts.append((self.ln_q[i](query), self.ln_k[i](key), value))
        q, k, v = (torch.cat(pair, dim=1).transpose(1, 2) for pair in zip(*parts, strict=True))
        attn = F.scaled_dot_product_attention(q, k, v, dropout_p=0.0)
        attn = attn.transpose(1, 2).reshape(x.shape)
        context, image = attn[:, : self.text], attn[:, self.text :]
        return self.proj[1](image), self.proj[0](context)
