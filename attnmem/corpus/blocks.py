"""Blocks joined by hand, and backward passes with a mathematics of their own."""
# ruff: noqa: D102
# mypy: disable-error-code="no-any-return,no-untyped-call"

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from attnmem.corpus.entry import heads, hidden, module, program, width
from attnmem.workload import Workload


@program
def ring_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Blocks of keys merged by the logarithm of their sums: zhuzilin/ring-flash-attention,
    ring_flash_attn/utils.py.
    """
    out, lse = None, None
    for block_k, block_v in zip(k.chunk(4, dim=2), v.chunk(4, dim=2), strict=True):
        scores = q @ block_k.transpose(-2, -1) * q.shape[-1] ** -0.5
        block_lse = torch.logsumexp(scores.float(), dim=-1, keepdim=True)
        block_out = torch.exp(scores - block_lse).to(q.dtype) @ block_v
        block_out = block_out.to(torch.float32)
        if out is None or lse is None:
            out, lse = block_out, block_lse
        else:
            out = out - F.sigmoid(block_lse - lse) * (out - block_out)
            lse = lse - F.logsigmoid(lse - block_lse)
    assert out is not None
    return out.to(q.dtype)


@program
def online_softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The loops of FlashAttention, with autograd through them:
    shreyansh26/FlashAttention-PyTorch, flash_attention_core/versions/fa1.py.
    """
    size = 64
    o = torch.zeros_like(q, dtype=torch.float32)
    total = torch.zeros(q.shape[:-1], device=q.device)[..., None]
    highest = torch.ones(q.shape[:-1], device=q.device)[..., None] * -1e10
    os = list(torch.split(o, size, dim=2))
    totals = list(torch.split(total, size, dim=2))
    maxes = list(torch.split(highest, size, dim=2))
    blocks = torch.split(q * q.shape[-1] ** -0.5, size, dim=2)
    for kj, vj in zip(torch.split(k, size, dim=2), torch.split(v, size, dim=2), strict=True):
        for i, qi in enumerate(blocks):
            s_ij = torch.einsum("... i d, ... j d -> ... i j", qi, kj).float()
            m_block, _ = torch.max(s_ij, dim=-1, keepdims=True)  # type: ignore[call-overload]
            m_new = torch.maximum(m_block, maxes[i])
            p_ij = torch.exp(s_ij - m_new)
            l_new = torch.exp(maxes[i] - m_new) * totals[i] + p_ij.sum(dim=-1, keepdim=True)
            p_v = torch.einsum("... i j, ... j d -> ... i d", p_ij, vj.float())
            os[i] = (totals[i] / l_new) * torch.exp(maxes[i] - m_new) * os[i] + p_v / l_new
            totals[i], maxes[i] = l_new, m_new
    return torch.cat(os, dim=2).to(q.dtype)


class _Sparsemax(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        ctx.dim = dim
        highest, _ = x.max(dim=dim, keepdim=True)
        x = x - highest
        sorted_x, _ = torch.sort(x, dim=dim, descending=True)
        cumulative = sorted_x.cumsum(dim) - 1
        rho = torch.arange(1, x.size(dim) + 1, device=x.device, dtype=x.dtype)
        support = rho * sorted_x > cumulative
        size = support.sum(dim=dim).unsqueeze(dim)
        tau = cumulative.gather(dim, size - 1)
        tau /= size.to(x.dtype)
        output = torch.clamp(x - tau, min=0)
        ctx.save_for_backward(size, output)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        size, output = ctx.saved_tensors
        grad = grad_output.clone()
        grad[output == 0] = 0
        mean = grad.sum(dim=ctx.dim).unsqueeze(ctx.dim) / size.to(output.dtype)
        return torch.where(output != 0, grad - mean, grad), None


@program
def sparsemax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Weights that reach zero: sorted, summed up and cut, with their own backward:
    deep-spin/entmax, entmax/activations.py.
    """
    scores = torch.matmul(q, k.transpose(-2, -1)) * q.shape[-1] ** -0.5
    weights: Tensor = _Sparsemax.apply(scores, -1)
    return torch.matmul(weights, v)


class _Reversible(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, blocks: Any) -> Tensor:
        x1, x2 = x.chunk(2, dim=-1)
        with torch.no_grad():
            for f, g in blocks:
                x1 = x1 + f(x2)
                x2 = x2 + g(x1)
        ctx.y, ctx.blocks = torch.cat([x1, x2], dim=-1).detach(), blocks
        return ctx.y.clone()

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        (y1, y2), (dy1, dy2) = ctx.y.chunk(2, dim=-1), dy.chunk(2, dim=-1)
        del ctx.y
        for f, g in reversed(ctx.blocks):
            with torch.enable_grad():
                y1.requires_grad = True
                gy1 = g(y1)
                torch.autograd.backward(gy1, dy2)
            with torch.no_grad():
                x2 = y2 - gy1
                del gy1
                dx1 = dy1 + y1.grad
                y1.grad = None
            with torch.enable_grad():
                x2.requires_grad = True
                fx2 = f(x2)
                torch.autograd.backward(fx2, dx1)
            with torch.no_grad():
                x1 = y1 - fx2
                del fx2
                dx2 = dy2 + x2.grad
                x2.grad = None
            y1, y2, dy1, dy2 = x1.detach(), x2.detach(), dx1, dx2
        return torch.cat([dy1, dy2], dim=-1), None


class _SelfAttention(nn.Module):
    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.heads = w.heads
        self.norm = nn.LayerNorm(width(w), dtype=w.dtype)
        self.to_qk = nn.Linear(width(w), width(w), bias=False, dtype=w.dtype)
        self.to_v = nn.Linear(width(w), width(w), bias=False, dtype=w.dtype)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        qk, v = heads(self.to_qk(x), self.heads), heads(self.to_v(x), self.heads)
        dots = torch.einsum("bhie,bhje->bhij", qk, qk) * (qk.shape[-1] ** -0.5)
        return hidden(torch.einsum("bhij,bhje->bhie", dots.softmax(dim=-1), v))


@module
class ReversibleLayers(nn.Module):
    """Two layers whose inputs are computed back from their outputs:
    lucidrains/reformer-pytorch, reformer_pytorch/reversible.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        blocks = []
        for _ in range(2):
            linear = nn.Linear(width(w), width(w), dtype=w.dtype)
            blocks.append(nn.ModuleList([_SelfAttention(w), nn.Sequential(linear, nn.GELU())]))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = hidden(q)
        x = _Reversible.apply(torch.cat([x, x], dim=-1), self.blocks)
        return torch.stack(x.chunk(2, dim=-1)).sum(dim=0)


@program
def nearest_keys(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The nearest memories by topk, attended to beside the local ones:
    lucidrains/memorizing-transformers-pytorch,
    memorizing_transformers_pytorch/memorizing_transformers_pytorch.py.
    """
    b, n = q.shape[0], q.shape[2]
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    mem_k, mem_v = k[:, :, : n // 2].mean(1).detach(), v[:, :, : n // 2].mean(1).detach()
    with torch.no_grad():
        near = torch.einsum("bhid,bjd->bhij", q, mem_k).topk(8, dim=-1).indices
    picked = torch.arange(b, device=q.device)[:, None, None, None]
    keys, values = mem_k[picked, near], mem_v[picked, near]
    sim_mem = torch.einsum("b h i d, b h i j d -> b h i j", q, keys) * 20.0
    sim = torch.einsum("b h i d, b h j d -> b h i j", q, k) * 20.0
    causal = torch.ones((n, n), dtype=torch.bool, device=q.device).triu(1)
    sim = sim.masked_fill(causal, -torch.finfo(sim.dtype).max)
    attn = torch.cat((sim_mem, sim), dim=-1).softmax(dim=-1)
    local_attn, mem_attn = attn[..., 8:], attn[..., :8]
    out = torch.einsum("b h i j, b h j d -> b h i d", local_attn, v)
    out = out + torch.einsum("b h i j, b h i j d -> b h i d", mem_attn, values)
    return out
