"""Masks and biases: prefixes, bands, blocks, padding, slopes, learned tables."""
# ruff: noqa: D102
# mypy: disable-error-code="no-any-return,no-untyped-call"

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnmem.corpus.entry import heads, hidden, module, program, width
from attnmem.workload import Workload


@program
def bloom(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """ALiBi is what baddbmm adds the scores to:
    huggingface/transformers, src/transformers/models/bloom/modeling_bloom.py.
    """
    b, h, n, d = q.shape
    slopes = torch.tensor([2 ** (-8 * (i + 1) / h) for i in range(h)], device=q.device)
    attention_mask = torch.ones(b, n, device=q.device)
    places = ((attention_mask.cumsum(dim=-1) - 1) * attention_mask)[:, None, :]
    alibi = (slopes[..., None] * places).reshape(b * h, 1, n).to(q.dtype)
    query = q.reshape(b * h, n, d)
    key = k.permute(0, 1, 3, 2).reshape(b * h, d, n)
    scores = alibi.baddbmm(batch1=query, batch2=key, beta=1.0, alpha=1.0 / math.sqrt(d))
    scores = scores.view(b, h, n, n)
    causal = torch.triu(torch.ones(n, n, dtype=torch.bool, device=q.device), diagonal=1)
    scores = torch.masked_fill(scores, causal, torch.finfo(scores.dtype).min)
    probs = F.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
    probs = F.dropout(probs, 0.1).view(b * h, n, n)
    context = torch.bmm(probs, v.reshape(b * h, n, d))
    return context.view(b, h, n, d).permute(0, 2, 1, 3).reshape(b, n, h * d)


@program
def mpt(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """K kept transposed, a bias of ALiBi and the causal mask as a flipped triangle:
    mosaicml/llm-foundry, llmfoundry/models/layers/attention.py.
    """
    b, h, n, d = q.shape
    k = k.permute(0, 1, 3, 2).contiguous()
    attn_weight = q.matmul(k) * (1 / math.sqrt(d))
    bias = torch.arange(1 - n, 1, dtype=torch.int32, device=q.device).view(1, 1, 1, n)
    m = torch.arange(1, h + 1, dtype=torch.float32, device=q.device).mul(8 / h)
    bias = bias * (1.0 / torch.pow(2, m.view(1, h, 1, 1)))
    attn_weight = attn_weight + bias.to(dtype=q.dtype)
    causal = attn_weight.new_ones(n, n, dtype=torch.float32).tril()
    causal = ~causal.to(torch.bool)
    attn_weight = attn_weight.masked_fill(causal.view(1, 1, n, n), torch.finfo(q.dtype).min)
    attn_weight = torch.softmax(attn_weight, dim=-1)
    out = attn_weight.to(v.dtype).matmul(v)
    return out.permute(0, 2, 1, 3).reshape(b, n, h * d), attn_weight


@program
def openpi(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A prefix that sees itself, a causal suffix, from cumulative sums:
    Physical-Intelligence/openpi, src/openpi/models_pytorch/pi0_pytorch.py.
    """
    b, h, n, d = q.shape
    att_masks = torch.tensor([0] * (n // 2) + [1] * (n - n // 2), dtype=torch.bool)
    att_masks = att_masks.to(q.device)[None, :].expand(b, n)
    pad_masks = torch.ones(b, n, dtype=torch.bool, device=q.device)
    cumsum = torch.cumsum(att_masks, dim=1)
    att_2d_masks = cumsum[:, None, :] <= cumsum[:, :, None]
    att_2d_masks = att_2d_masks & (pad_masks[:, None, :] * pad_masks[:, :, None])
    mask = torch.where(att_2d_masks[:, None, :, :], 0.0, -2.3819763e38)
    attn = torch.matmul(q, k.transpose(2, 3)) * d**-0.5
    attn = attn + mask[:, :, :, : k.shape[-2]]
    attn = nn.functional.softmax(attn, dim=-1, dtype=torch.float32).to(q.dtype)
    return torch.matmul(attn, v).transpose(1, 2).reshape(b, n, h * d)


@program
def flash_reference(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """A window to the left, computed in float32, rows without a key zeroed:
    Dao-AILab/flash-attention, tests/test_flash_attn.py.
    """
    dtype = q.dtype
    q, k, v = (x.transpose(1, 2).float() for x in (q, k, v))
    n, d = q.shape[1], q.shape[-1]
    scores = torch.einsum("bthd,bshd->bhts", q / math.sqrt(d), k)
    lengths = torch.full((q.shape[0], 1), n - 3, device=q.device)
    padding = torch.arange(n, device=q.device)[None, :] < lengths
    scores.masked_fill_(~padding[:, None, None, :], float("-inf"))
    rows = torch.arange(n, device=q.device, dtype=torch.long)[:, None]
    columns = torch.arange(n, device=q.device, dtype=torch.long)
    local = torch.logical_or(columns > rows, columns < rows - n // 4)
    scores.masked_fill_(local, float("-inf"))
    attention = torch.softmax(scores, dim=-1).to(v.dtype)
    attention = attention.masked_fill(torch.all(local, dim=-1, keepdim=True), 0.0)
    attention = attention.masked_fill(~padding[:, None, :, None], 0.0)
    output = torch.einsum("bhts,bshd->bthd", attention, v * 1.0)
    output.masked_fill_(~padding[:, :, None, None], 0.0)
    return output.to(dtype=dtype), attention.to(dtype=dtype)


@module
class XformersBias(nn.Module):
    """A bias that needs a gradient, K scaled before the product:
    facebookresearch/xformers, tests/test_mem_eff_attention.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        bias = torch.randn(w.batch * w.heads, 1, w.seq_len, dtype=w.dtype) * 3
        self.attn_bias = nn.Parameter(bias.expand(-1, w.seq_len, -1).clone())

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        b, h, n, d = q.shape
        q, k, v = (x.float().reshape(b * h, n, d) for x in (q, k, v))
        q = q * d**-0.5
        attn = q @ k.transpose(-2, -1)
        attn = attn + self.attn_bias.float()
        attn = attn.softmax(-1)
        drop = torch.rand(attn.shape, device=q.device) > 0.3
        attn = attn * (drop / (1 - 0.3))
        return (attn @ v).view(b, h, n, d).to(self.attn_bias.dtype)


@module
class BlockSparse(nn.Module):
    """A layout of blocks, made on the CPU and repeated to a mask: microsoft/DeepSpeed,
    deepspeed/ops/sparse_attention/sparsity_config.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.block, self.local = 16, 4
        blocks = -(-w.seq_len // self.block)
        layout = torch.zeros((w.heads, blocks, blocks), dtype=torch.int64, device="cpu")
        for start in range(0, blocks, self.local):
            layout[:, start : start + self.local, start : start + self.local] = 1
        for column in range(self.local - 1, blocks, self.local):
            layout[:, :, column] = 1
        self.layout = torch.tril(layout)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        n = q.shape[2]
        layout = self.layout.to(q.device)
        mask = layout.repeat_interleave(self.block, 1).repeat_interleave(self.block, 2)
        mask = mask[None, :, :n, :n].bool().tril()
        scores = torch.matmul(q, k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        lowest = torch.tensor(torch.finfo(q.dtype).min, dtype=q.dtype)  # a number, on the CPU
        scores = scores.masked_fill(~mask, lowest)
        return torch.matmul(torch.softmax(scores, dim=-1), v)


@module
class OpenNMT(nn.Module):
    """Embeddings of clipped distances, for K and for V: OpenNMT/OpenNMT-py,
    onmt/modules/multi_headed_attn.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.most, self.d = 20, w.head_dim
        self.relative_positions = nn.Embedding(2 * self.most + 1, w.head_dim, dtype=w.dtype)
        self.final_linear = nn.Linear(width(w), width(w), dtype=w.dtype)
        self.dropout = nn.Dropout(0.1)

    @staticmethod
    def relative_matmul(x: Tensor, z: Tensor, transpose: bool) -> Tensor:
        b, h, n, _ = x.shape
        x_t = x.permute(2, 0, 1, 3).contiguous().view(n, h * b, -1)
        product = torch.matmul(x_t, z.transpose(1, 2) if transpose else z)
        return product.view(n, b, h, -1).permute(1, 2, 0, 3)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        n = key.size(2)
        query = query / math.sqrt(self.d)
        scores = torch.matmul(query, key.transpose(2, 3))
        range_vec = torch.arange(n).unsqueeze(-1).expand(-1, n).transpose(0, 1)
        distance = range_vec - range_vec.transpose(0, 1)
        clipped = torch.clamp(distance, min=-self.most, max=self.most) + self.most
        relations = self.relative_positions(clipped.to(key.device))
        scores = scores + self.relative_matmul(query, relations, True)
        scores = scores.float()
        mask = torch.zeros(query.size(0), 1, 1, n, dtype=torch.bool, device=query.device)
        mask[..., -n // 10 :] = True
        scores = scores.masked_fill(mask, -1e18)
        attn = torch.softmax(scores, dim=-1).to(query.dtype)
        drop = self.dropout(attn)
        context = torch.matmul(drop, value)
        context.add_(self.relative_matmul(drop, relations, False))
        return self.final_linear(hidden(context).contiguous())


@module
class Rasbt(nn.Module):
    """A boolean buffer and a fill in place with -inf: rasbt/LLMs-from-scratch,
    ch03/01_main-chapter-code/multihead-attention.ipynb.
    """

    mask: Tensor

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.num_heads = w.heads
        self.w_query = nn.Linear(width(w), width(w), bias=False, dtype=w.dtype)
        self.out_proj = nn.Linear(width(w), width(w), dtype=w.dtype)
        self.dropout = nn.Dropout(0.1)
        ones = torch.ones(w.seq_len, w.seq_len)
        self.register_buffer("mask", torch.triu(ones, diagonal=1))

    def forward(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        queries = heads(self.w_query(hidden(q)), self.num_heads)
        attn_scores = queries @ keys.transpose(2, 3)
        n = attn_scores.shape[-1]
        attn_scores.masked_fill_(self.mask.bool()[:n, :n], -torch.inf)
        attn_weights = torch.softmax(attn_scores / keys.shape[-1] ** 0.5, dim=-1)
        context = (self.dropout(attn_weights) @ values).transpose(1, 2)
        return self.out_proj(context.contiguous().flatten(2))
