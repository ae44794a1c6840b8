"""PyTorch's own attention: with masks of each kind, dropout, groups, caches, backends."""
# ruff: noqa: D102
# mypy: disable-error-code="no-any-return,no-untyped-call"

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnmem.corpus.entry import heads, hidden, kv_heads, module, program, turns, width
from attnmem.workload import Workload


@module
class CausalTutorial(nn.Module):
    """Dropout and the causal flag, chunks of one projection: pytorch/tutorials,
    intermediate_source/scaled_dot_product_attention_tutorial.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.num_heads, self.dropout = w.heads, 0.1
        self.c_attn = nn.Linear(width(w), 3 * width(w), bias=False, dtype=w.dtype)
        self.c_proj = nn.Linear(width(w), width(w), bias=False, dtype=w.dtype)
        self.resid_dropout = nn.Dropout(0.1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        projected = self.c_attn(hidden(q))
        query, key, value = (heads(x, self.num_heads) for x in projected.chunk(3, -1))
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        y = y.transpose(1, 2).reshape(q.size(0), -1, self.num_heads * q.size(-1))
        return self.resid_dropout(self.c_proj(y))


@program
def nanochat(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Rotary by halves, RMS norm without parameters, K and V expanded: karpathy/nanochat,
    nanochat/gpt.py.
    """
    b, h, n, d = q.shape
    n_kv = kv_heads(h)
    q, k, v = q.transpose(1, 2), k[:, :n_kv].transpose(1, 2), v[:, :n_kv].transpose(1, 2)
    angles = turns(n, d, device=q.device)[None, :, None, :]
    cos, sin = angles.cos().bfloat16(), angles.sin().bfloat16()

    def rotate(x: Tensor) -> Tensor:
        x1, x2 = x[..., : d // 2], x[..., d // 2 :]
        return torch.cat([x1 * cos + x2 * sin, x1 * (-sin) + x2 * cos], 3).to(x.dtype)

    q, k = (F.rms_norm(rotate(x), (d,)).transpose(1, 2) for x in (q, k))
    v = v.transpose(1, 2)
    k, v = (x[:, :, None].expand(b, n_kv, h // n_kv, n, d).reshape(b, h, n, d) for x in (k, v))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return y.transpose(1, 2).contiguous().view(b, n, -1)


@program
def falcon(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One head of K and V for all queries, groups left to PyTorch:
    huggingface/transformers, src/transformers/models/falcon/modeling_falcon.py.
    """
    b, h, n, d = q.shape
    out = F.scaled_dot_product_attention(q, k[:, :1], v[:, :1], is_causal=True, enable_gqa=True)
    return out.view(b, h, n, d).permute(0, 2, 1, 3).reshape(b, n, h * d)


@module
class Litgpt(nn.Module):
    """A cache filled by index_copy, two queries to a key by repeat_interleave, a sliding
    window as a float mask: Lightning-AI/litgpt, litgpt/model.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.h, self.groups, self.d = w.heads, kv_heads(w.heads), w.head_dim
        sizes = (self.h + 2 * self.groups) * self.d
        self.qkv = nn.Linear(width(w), sizes, bias=False, dtype=w.dtype)
        self.norm_q = nn.RMSNorm(w.head_dim, dtype=w.dtype)
        self.norm_k = nn.RMSNorm(w.head_dim, dtype=w.dtype)
        self.proj = nn.Linear(width(w), width(w), bias=False, dtype=w.dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = hidden(q)
        b, n, _ = x.size()
        sizes = (self.h * self.d, self.groups * self.d, self.groups * self.d)
        q, k, v = (heads(y, y.shape[-1] // self.d) for y in self.qkv(x).split(sizes, dim=-1))
        q, k = self.norm_q(q), self.norm_k(k)
        input_pos = torch.arange(n, device=x.device)
        k, v = (
            torch.zeros(b, self.groups, n + 16, self.d, device=x.device, dtype=x.dtype)
            .index_copy_(-2, input_pos, y)[..., :n, :]
            for y in (k, v)
        )  # fmt: skip
        k = k.repeat_interleave(self.h // self.groups, dim=1)
        v = v.repeat_interleave(self.h // self.groups, dim=1)
        mask = torch.full((n, n), float("-inf"), dtype=q.dtype, device=q.device)
        mask = mask.triu(diagonal=1) + mask.tril(diagonal=-(n // 4))
        scale = 1.0 / math.sqrt(self.d)
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask.view(1, 1, n, n), dropout_p=0.0, scale=scale
        )
        return self.proj(y.transpose(1, 2).reshape(b, n, -1))


@module
class GptFast(nn.Module):
    """Sixteen steps of decoding into a cache that was allocated before:
    pytorch-labs/gpt-fast, model.py.
    """

    causal_mask: Tensor

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.steps, self.groups = 16, kv_heads(w.heads)
        causal = torch.ones(w.seq_len, w.seq_len, dtype=torch.bool)
        self.register_buffer("causal_mask", torch.tril(causal))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        b, h, n, d = q.shape
        shape = (b, self.groups, n, d)
        k_cache = torch.zeros(shape, dtype=q.dtype, device=q.device)
        v_cache = torch.zeros(shape, dtype=q.dtype, device=q.device)
        outs = []
        for position in range(n - self.steps, n):
            input_pos = torch.tensor([position], device=q.device)
            k_cache[:, :, input_pos] = k[:, : self.groups, position : position + 1]
            v_cache[:, :, input_pos] = v[:, : self.groups, position : position + 1]
            mask = self.causal_mask[None, None, input_pos]
            keys = k_cache.repeat_interleave(h // self.groups, dim=1)
            values = v_cache.repeat_interleave(h // self.groups, dim=1)
            query = q[:, :, position : position + 1]
            outs.append(F.scaled_dot_product_attention(query, keys, values, attn_mask=mask))
        return torch.cat(outs, dim=2)


@program
def torchtune(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Documents packed into one sequence, their mask in blocks: pytorch/torchtune,
    torchtune/modules/attention.py.
    """
    b, h, n, d = q.shape
    n_kv = kv_heads(h)
    expand_shape = (b, n_kv, h // n_kv, -1, d)
    k = k[:, :n_kv].unsqueeze(2).expand(expand_shape).flatten(1, 2)
    v = v[:, :n_kv].unsqueeze(2).expand(expand_shape).flatten(1, 2)
    lengths = [n // 2, n // 3, n - n // 2 - n // 3]
    blocks = [torch.tril(torch.ones(x, x, dtype=torch.bool, device=q.device)) for x in lengths]
    mask = torch.stack([torch.block_diag(*blocks) for _ in range(b)])[:, None, :, :]
    out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=0.1)
    return out.transpose(1, 2).contiguous().view(b, n, -1)


@module
class Olmo(nn.Module):
    """Layer norm on all of Q and K, the causal bias as a float buffer: allenai/OLMo,
    olmo/model.py.
    """

    bias: Tensor

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.n_heads = w.heads
        self.q_norm = nn.LayerNorm(width(w), bias=False, dtype=w.dtype)
        self.k_norm = nn.LayerNorm(width(w), bias=False, dtype=w.dtype)
        self.attn_out = nn.Linear(width(w), width(w), bias=False, dtype=w.dtype)
        bias = torch.triu(torch.ones(w.seq_len, w.seq_len), diagonal=1)
        bias.masked_fill_(bias == 1, torch.finfo(bias.dtype).min)
        self.register_buffer("bias", bias.view(1, 1, w.seq_len, w.seq_len))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        dtype = k.dtype
        q = self.q_norm(hidden(q)).to(dtype=dtype)
        k = self.k_norm(hidden(k)).to(dtype=dtype)
        q, k = heads(q, self.n_heads), heads(k, self.n_heads)
        n = k.shape[-2]
        bias = self.bias[:, :, :n, :n].to(dtype)
        bias = bias.clamp(min=torch.finfo(dtype).min)
        att = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=0.0)
        return self.attn_out(hidden(att.contiguous()))


@module
class Ngpt(nn.Module):
    """Unit vectors, a learned scale, √d for 1/√d: NVIDIA/ngpt, model.py."""

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.sqk = nn.Parameter(torch.ones(width(w), dtype=torch.float32))
        self.heads = w.heads

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        b, h, n, d = q.shape
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        sqk = (self.sqk * 1.0).view(1, 1, h, d)
        q = sqk * (q / q.norm(p=2, dim=-1, keepdim=True).to(dtype=q.dtype))
        k = sqk * (k / k.norm(p=2, dim=-1, keepdim=True).to(dtype=k.dtype))
        q, k, v = (x.to(v.dtype).transpose(1, 2) for x in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=d**0.5)
        return y.transpose(1, 2).contiguous().view(b, n, h * d)


@module
class Beit(nn.Module):
    """A learned table of biases is the mask, and gets a gradient:
    huggingface/pytorch-image-models, timm/models/beit.py.
    """

    index: Tensor

    def __init__(self, w: Workload) -> None:
        super().__init__()
        n = w.seq_len
        self.table = nn.Parameter(torch.zeros(2 * n - 1, w.heads, dtype=w.dtype))
        places = torch.arange(n)
        self.register_buffer("index", places[:, None] - places[None, :] + n - 1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        n = q.shape[2]
        bias = self.table[self.index.view(-1)].view(n, n, -1)
        bias = bias.permute(2, 0, 1).contiguous().unsqueeze(0)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=0.0)
        return hidden(x)


@program
def palm(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Backends chosen by asking whether Q is on a GPU: lucidrains/PaLM-rlhf-pytorch,
    palm_rlhf_pytorch/attention.py.
    """
    k, v = k[:, 0].unsqueeze(1).expand_as(q), v[:, 0].unsqueeze(1).expand_as(q)
    mask = torch.ones(q.shape[0], q.shape[2], dtype=torch.bool, device=q.device)
    mask[:, -5:] = False
    mask = mask[:, None, None, :].expand(-1, q.shape[1], q.shape[2], -1)
    if q.is_cuda:
        backends = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    else:
        backends = [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
    with sdpa_kernel(backends):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
