"""Other ways from scores to weights: signs, caps, heads that talk, convolutions, decay."""
# ruff: noqa: D102
# mypy: disable-error-code="no-any-return,no-untyped-call"

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnmem.corpus.entry import heads, hidden, kv_heads, module, program, turns, width
from attnmem.workload import Workload


def _rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    turned = torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)
    return (x * cos) + (turned * sin)


@module
class DiffTransformer(nn.Module):
    """The difference of two softmaxes: microsoft/unilm, Diff-Transformer/multihead_diffattn.py."""

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.h, self.n_kv, self.d = w.heads, kv_heads(w.heads), w.head_dim // 2
        n_rep = self.h // self.n_kv
        self.q_proj = nn.Linear(width(w), width(w), bias=False, dtype=w.dtype)
        self.k_proj = nn.Linear(width(w), width(w) // n_rep, bias=False, dtype=w.dtype)
        self.v_proj = nn.Linear(width(w), width(w) // n_rep, bias=False, dtype=w.dtype)
        self.out_proj = nn.Linear(width(w), width(w), bias=False, dtype=w.dtype)
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3)
        self.lambdas = nn.ParameterList(
            torch.zeros(self.d, dtype=torch.float32).normal_(mean=0, std=0.1) for _ in range(4)
        )
        self.subln = nn.RMSNorm(2 * self.d, eps=1e-5, dtype=w.dtype)

    def repeat_kv(self, x: Tensor) -> Tensor:
        b, h, n, d = x.shape
        r = self.h // self.n_kv
        return x[:, :, None, :, :].expand(b, h, r, n, d).reshape(b, h * r, n, d)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = hidden(q)
        b, n, _ = x.size()
        q = self.q_proj(x).view(b, n, 2 * self.h, self.d).transpose(1, 2)
        k = self.k_proj(x).view(b, n, 2 * self.n_kv, self.d).transpose(1, 2)
        v = self.v_proj(x).view(b, n, self.n_kv, 2 * self.d).transpose(1, 2)
        k, v = self.repeat_kv(k), self.repeat_kv(v)
        q *= self.d**-0.5
        weights = torch.matmul(q, k.transpose(-1, -2))
        mask = torch.zeros([n, n]).float().fill_(float("-inf")).type_as(weights)
        mask = torch.triu(mask.to(q.device), 1)
        weights = torch.nan_to_num(weights)
        weights += mask
        weights = F.softmax(weights, dim=-1, dtype=torch.float32).type_as(weights)
        q1, k1, q2, k2 = self.lambdas
        first = torch.exp(torch.sum(q1 * k1, dim=-1).float()).type_as(q)
        second = torch.exp(torch.sum(q2 * k2, dim=-1).float()).type_as(q)
        weights = weights.view(b, self.h, 2, n, n)
        weights = weights[:, :, 0] - (first - second + self.lambda_init) * weights[:, :, 1]
        attn = self.subln(torch.matmul(weights, v))
        attn = attn * (1 - self.lambda_init)
        return self.out_proj(attn.transpose(1, 2).reshape(b, n, self.h * 2 * self.d))


@module
class TalkingHeads(nn.Module):
    """Heads mixed by 1×1 convolutions, before the softmax and after:
    lucidrains/x-transformers, x_transformers/attend.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.pre_talk = nn.Conv2d(w.heads, w.heads, 1, bias=False, dtype=w.dtype)
        self.post_talk = nn.Conv2d(w.heads, w.heads, 1, bias=False, dtype=w.dtype)
        self.attn_dropout = nn.Dropout(0.1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        sim = torch.einsum("b h i d, b h j d -> b h i j", q, k) * q.shape[-1] ** -0.5
        kept = sim.clone()
        sim = self.pre_talk(sim)
        causal = torch.ones(sim.shape[-2:], device=q.device, dtype=torch.bool).triu(1)
        sim = sim.masked_fill(causal, -torch.finfo(sim.dtype).max)
        attn = F.softmax(sim, dim=-1, dtype=torch.float32)
        attn = self.post_talk(self.attn_dropout(attn.type(sim.dtype)))
        out = torch.einsum("b h i j, b h j d -> b h i d", attn, v)
        del kept
        return out


@program
def sparse_topk(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Only the largest scores of each row: lucidrains/x-transformers, x_transformers/attend.py."""
    sim = torch.einsum("bhid,bhjd->bhij", q, k) * q.shape[-1] ** -0.5
    lowest = -torch.finfo(sim.dtype).max
    top_values, _ = sim.topk(8, dim=-1)
    keep = (sim >= top_values[..., -1:]) & (sim > lowest)
    sim = sim.masked_fill(~keep, lowest)
    attn = sim.softmax(dim=-1)
    return torch.einsum("bhij,bhjd->bhid", attn, v)


@program
def one_key_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Multi-query, K and V without a dimension of heads, clamped by a soft cap:
    lucidrains/x-transformers, x_transformers/attend.py.
    """
    k, v = k[:, :1].squeeze(1), v[:, :1].squeeze(1)
    sim = torch.einsum("b h i d, b j d -> b h i j", q, k) * q.shape[-1] ** -0.5
    sim = (sim / 20.0).tanh() * 20.0
    sim = sim + sim.sigmoid().log()
    attn = sim.softmax(dim=-1)
    return torch.einsum("b h i j, b j d -> b h i d", attn, v)


@module
class SigmoidAttention(nn.Module):
    """Sigmoid for softmax, with normed Q and K and a bias of -log N:
    apple/ml-sigmoid-attention, attention_simulator/src/attention_simulator/layers/attention.py.
    """

    attn_temp: Tensor
    attn_bias: Tensor

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.num_heads, self.scale = w.heads, w.head_dim**-0.5
        self.qkv = nn.Linear(width(w), 3 * width(w), bias=False, dtype=w.dtype)
        self.q_norm = nn.LayerNorm(w.head_dim, dtype=w.dtype)
        self.k_norm = nn.LayerNorm(w.head_dim, dtype=w.dtype)
        self.proj = nn.Linear(width(w), width(w), bias=False, dtype=w.dtype)
        self.register_buffer("attn_temp", torch.zeros(1, dtype=w.dtype))
        self.register_buffer("attn_bias", torch.full((1,), -math.log(w.seq_len), dtype=w.dtype))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = hidden(q)
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        attn = (q * self.scale) @ k.transpose(-2, -1)
        attn = attn * torch.exp(self.attn_temp)
        attn = attn + self.attn_bias
        attn = torch.sigmoid(attn)
        return self.proj((attn @ v).transpose(1, 2).reshape(b, n, c))


@program
def cogview(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The mask multiplies the scores and takes 10000 from the rest:
    THUDM/CogView, mpu/sparse_transformer.py.
    """
    n = q.shape[2]
    mask = torch.ones((1, n, n), device=q.device, dtype=q.dtype).tril_().unsqueeze(1)
    scores = torch.matmul(q / math.sqrt(q.shape[-1]), k.transpose(-1, -2))
    scores = torch.mul(scores, mask) - 10000.0 * (1.0 - mask)
    probs = torch.nn.Softmax(dim=-1)(scores)
    return torch.matmul(F.dropout(probs, 0.1), v)


@module
class MultiTokenAttention(nn.Module):
    """A convolution over queries and keys on the scores, group norm on the heads:
    facebookresearch/RAM, projects/mta/mta_transformer.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(w.heads, 1, 6, 11, dtype=w.dtype) / 8)
        self.wpsm = nn.Linear(w.heads, w.heads, bias=False, dtype=w.dtype)
        self.subln = nn.RMSNorm(w.head_dim, eps=1e-5, dtype=w.dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        h, n, d = q.shape[1:]
        mask = torch.full((n, n), float("-inf"), device=q.device).triu(diagonal=1)
        scores = torch.matmul(q, k.transpose(2, 3)) * d**-0.5
        scores = torch.where(mask == float("-inf"), 0.0, scores)
        scores = F.pad(scores, (5, 5, 5, 0), value=0.0)
        scores = F.conv2d(scores, self.kernel, padding=0, groups=h)
        scores = self.wpsm(scores.transpose(1, -1)).transpose(1, -1)
        scores = scores + mask
        scores = F.softmax(scores.float(), dim=-1).type_as(q)
        out = self.subln(torch.matmul(scores, v))
        return out.transpose(1, 2).reshape(q.shape[0], n, -1)


@module
class RetNet(nn.Module):
    """Decay for softmax, normed by a detached sum, gated:
    microsoft/torchscale, torchscale/component/multiscale_retention.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.h, self.d, self.vd = w.heads, w.head_dim, 2 * w.head_dim
        self.q_proj = nn.Linear(width(w), width(w), bias=False, dtype=w.dtype)
        self.k_proj = nn.Linear(width(w), width(w), bias=False, dtype=w.dtype)
        self.v_proj = nn.Linear(width(w), 2 * width(w), bias=False, dtype=w.dtype)
        self.g_proj = nn.Linear(width(w), 2 * width(w), bias=False, dtype=w.dtype)
        self.out_proj = nn.Linear(2 * width(w), width(w), bias=False, dtype=w.dtype)
        self.group_norm = nn.RMSNorm(self.vd, elementwise_affine=False, dtype=w.dtype)

    def decay(self, n: int, like: Tensor) -> Tensor:
        steps = torch.arange(self.h, dtype=torch.float, device=like.device)
        rate = torch.log(1 - 2 ** (-5 - steps))
        index = torch.arange(n).to(rate)
        gone = index[:, None] - index[None, :]
        mask = torch.tril(torch.ones(n, n).to(rate))
        mask = torch.masked_fill(gone, ~mask.bool(), float("inf"))
        mask = torch.nan_to_num(torch.exp(mask * rate[:, None, None]))
        return (mask / mask.sum(dim=-1, keepdim=True).sqrt()).to(like)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = hidden(q)
        b, n, _ = x.size()
        angles = turns(n, self.d, device=x.device).repeat_interleave(2, dim=-1).to(x.dtype)
        sin, cos = torch.sin(angles), torch.cos(angles)
        q, k, v, g = self.q_proj(x), self.k_proj(x), self.v_proj(x), self.g_proj(x)
        k *= self.d**-0.5
        qr = _rotate_pairs(heads(q, self.h), cos, sin)
        kr = _rotate_pairs(heads(k, self.h), cos, sin)
        qk_mat = qr @ kr.transpose(-1, -2)
        qk_mat = qk_mat * self.decay(n, x)
        qk_mat = qk_mat / qk_mat.detach().sum(dim=-1, keepdim=True).abs().clamp(min=1)
        output = torch.matmul(qk_mat, heads(v, self.h)).transpose(1, 2)
        output = self.group_norm(output).reshape(b, n, self.vd * self.h)
        return self.out_proj(F.silu(g) * output)


@module
class ViTGAN(nn.Module):
    """Distances for products, by cdist, in a Lipschitz discriminator:
    wilile26811249/ViTGAN, models.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.scale_factor = width(w) ** -0.5
        self.w_out = nn.Linear(width(w), width(w), dtype=w.dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        attn = torch.cdist(q.float(), k.float(), p=2).to(q.dtype)
        attn = torch.softmax(attn * self.scale_factor, dim=-1)
        result = torch.einsum("... i j, ... j d -> ... i d", attn, v)
        return self.w_out(hidden(result))


@module
class SqueezeExcite(nn.Module):
    """Heads weighed by squeeze-and-excitation: moskomule/senet.pytorch, senet/se_module.py."""

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(w.heads, 2, bias=False, dtype=w.dtype),
            nn.ReLU(inplace=True),
            nn.Linear(2, w.heads, bias=False, dtype=w.dtype),
            nn.Sigmoid(),
        )

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1) @ v
        b, c, _, _ = x.size()
        y = self.avg_pool(x).view(b, c)
        y = self.fc(y).view(b, c, 1, 1)
        return x * y.expand_as(x)
