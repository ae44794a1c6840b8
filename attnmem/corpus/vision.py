"""Attention over images: windows, tables of relative positions, convolutions, channels."""
# ruff: noqa: D102
# mypy: disable-error-code="no-any-return,no-untyped-call"

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnmem.corpus.entry import hidden, module, side, width
from attnmem.workload import Workload


@module
class TimmViT(nn.Module):
    """One permuted projection, normed Q and K, no fused kernel:
    huggingface/pytorch-image-models, timm/layers/attention.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.scale = w.heads, w.head_dim, w.head_dim**-0.5
        self.qkv = nn.Linear(width(w), 3 * width(w), bias=True, dtype=w.dtype)
        self.q_norm = nn.LayerNorm(w.head_dim, dtype=w.dtype)
        self.k_norm = nn.LayerNorm(w.head_dim, dtype=w.dtype)
        self.attn_drop = nn.Dropout(0.1)
        self.proj = nn.Linear(width(w), width(w), dtype=w.dtype)
        self.proj_drop = nn.Dropout(0.0)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = hidden(q)
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        q = q * self.scale
        attn = q @ k.transpose(-2, -1)
        attn = self.attn_drop(attn.softmax(dim=-1))
        x = (attn @ v).transpose(1, 2).reshape(b, n, c)
        return self.proj_drop(self.proj(x))


def _window_partition(x: Tensor, size: int) -> Tensor:
    b, h, w, c = x.shape
    x = x.view(b, h // size, size, w // size, size, c)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, size * size, c)


def _window_reverse(windows: Tensor, size: int, h: int, w: int) -> Tensor:
    x = windows.view(-1, h // size, w // size, size, size, windows.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, h, w, windows.shape[-1])


class _Windows(nn.Module):
    """What both Swins share: padding, the shift, its mask and the windows."""

    relative_position_index: Tensor

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.num_heads, self.size, self.shift = w.heads, 7, 3
        self.h, self.w = side(w.seq_len), w.seq_len // side(w.seq_len)
        self.qkv = nn.Linear(width(w), 3 * width(w), dtype=w.dtype)
        self.attn_drop = nn.Dropout(0.1)
        self.proj = nn.Linear(width(w), width(w), dtype=w.dtype)
        rows = torch.stack(torch.meshgrid(*[torch.arange(self.size)] * 2, indexing="ij"))
        flat = torch.flatten(rows, 1)
        relative = (flat[:, :, None] - flat[:, None, :]).permute(1, 2, 0).contiguous()
        relative[:, :, 0] += self.size - 1
        relative[:, :, 1] += self.size - 1
        relative[:, :, 0] *= 2 * self.size - 1
        self.register_buffer("relative_position_index", relative.sum(-1))

    def shift_mask(self, h: int, w: int, like: Tensor) -> Tensor:
        image = torch.zeros((1, h, w, 1), device=like.device)
        cuts = (slice(0, -self.size), slice(-self.size, -self.shift), slice(-self.shift, None))
        for count, (rows, columns) in enumerate((i, j) for i in cuts for j in cuts):
            image[:, rows, columns, :] = count
        windows = _window_partition(image, self.size).squeeze(-1)
        mask = windows.unsqueeze(1) - windows.unsqueeze(2)
        return mask.masked_fill(mask != 0, -100.0).masked_fill(mask == 0, 0.0)

    def window_attention(self, x: Tensor, mask: Tensor) -> Tensor:
        raise NotImplementedError

    def masked(self, attn: Tensor, mask: Tensor) -> Tensor:
        b, h, n, _ = attn.shape
        count = mask.shape[0]
        attn = attn.view(b // count, count, h, n, n) + mask.unsqueeze(1).unsqueeze(0)
        return attn.view(-1, h, n, n).softmax(dim=-1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = hidden(q)
        b, n, c = x.shape
        x = x.view(b, self.h, self.w, c)
        x = F.pad(x, (0, 0, 0, -self.w % self.size, 0, -self.h % self.size))
        h, w = x.shape[1:3]
        x = torch.roll(x, shifts=(-self.shift, -self.shift), dims=(1, 2))
        windows = self.window_attention(_window_partition(x, self.size), self.shift_mask(h, w, x))
        x = _window_reverse(windows, self.size, h, w)
        x = torch.roll(x, shifts=(self.shift, self.shift), dims=(1, 2))
        return x[:, : self.h, : self.w, :].contiguous().view(b, n, c)


@module
class Swin(_Windows):
    """Shifted windows and a table of biases: microsoft/Swin-Transformer,
    models/swin_transformer.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__(w)
        self.scale = w.head_dim**-0.5
        table = torch.zeros((2 * self.size - 1) ** 2, w.heads, dtype=w.dtype)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))

    def window_attention(self, x: Tensor, mask: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads)
        qkv = qkv.permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        q = q * self.scale
        attn = q @ k.transpose(-2, -1)
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)]
        bias = bias.view(n, n, -1).permute(2, 0, 1).contiguous()
        attn = attn + bias.unsqueeze(0)
        attn = self.attn_drop(self.masked(attn, mask.to(attn.dtype)))
        return self.proj((attn @ v).transpose(1, 2).reshape(b, n, c))


@module
class SwinV2(_Windows):
    """Cosine attention with a learned scale, biases from a small network:
    microsoft/Swin-Transformer, models/swin_transformer_v2.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__(w)
        scale = torch.log(10 * torch.ones((w.heads, 1, 1), dtype=w.dtype))
        self.logit_scale = nn.Parameter(scale, requires_grad=True)
        self.cpb_mlp = nn.Sequential(
            nn.Linear(2, 512, bias=True, dtype=w.dtype),
            nn.ReLU(inplace=True),
            nn.Linear(512, w.heads, bias=False, dtype=w.dtype),
        )
        steps = torch.arange(-(self.size - 1), self.size, dtype=torch.float32)
        table = torch.stack(torch.meshgrid([steps, steps], indexing="ij"))
        table = table.permute(1, 2, 0).contiguous().unsqueeze(0) / (self.size - 1) * 8
        table = torch.sign(table) * torch.log2(torch.abs(table) + 1.0) / math.log2(8)
        self.register_buffer("relative_coords_table", table.to(w.dtype), persistent=False)

    def window_attention(self, x: Tensor, mask: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attn = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        most = torch.log(torch.tensor(1.0 / 0.01)).to(self.logit_scale.device)
        attn = attn * torch.clamp(self.logit_scale, max=most).exp()
        table = self.cpb_mlp(self.relative_coords_table).view(-1, self.num_heads)
        bias = table[self.relative_position_index.view(-1)].view(n, n, -1)
        bias = 16 * torch.sigmoid(bias.permute(2, 0, 1).contiguous())
        attn = self.masked(attn + bias.unsqueeze(0), mask.to(attn.dtype))
        return self.proj((attn @ v).transpose(1, 2).reshape(b, n, c))


@module
class SegmentAnything(nn.Module):
    """Relative positions decomposed into height and width, heads in the batch:
    facebookresearch/segment-anything, segment_anything/modeling/image_encoder.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.h, self.w = side(w.seq_len), w.seq_len // side(w.seq_len)
        self.rel_pos_h = nn.Parameter(torch.randn(2 * self.h - 1, w.head_dim, dtype=w.dtype))
        self.rel_pos_w = nn.Parameter(torch.randn(2 * self.w - 1, w.head_dim, dtype=w.dtype))
        self.proj = nn.Linear(width(w), width(w), dtype=w.dtype)

    @staticmethod
    def get_rel_pos(size: int, rel_pos: Tensor) -> Tensor:
        coords = torch.arange(size)[:, None] - torch.arange(size)[None, :] + (size - 1)
        return rel_pos[coords.long()]

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        b, heads, n, d = q.shape
        q, k, v = (x.reshape(b * heads, n, d) for x in (q, k, v))
        attn = (q * d**-0.5) @ k.transpose(-2, -1)
        rh = self.get_rel_pos(self.h, self.rel_pos_h)
        rw = self.get_rel_pos(self.w, self.rel_pos_w)
        r_q = q.reshape(b * heads, self.h, self.w, d)
        rel_h = torch.einsum("bhwc,hkc->bhwk", r_q, rh)
        rel_w = torch.einsum("bhwc,wkc->bhwk", r_q, rw)
        attn = attn.view(b * heads, self.h, self.w, self.h, self.w)
        attn = attn + rel_h[:, :, :, :, None] + rel_w[:, :, :, None, :]
        attn = attn.view(b * heads, n, n).softmax(dim=-1)
        x = (attn @ v).view(b, heads, self.h, self.w, -1).permute(0, 2, 3, 1, 4)
        return self.proj(x.reshape(b, self.h, self.w, -1))


@module
class LeViT(nn.Module):
    """Values twice as wide, a table of biases by offset: facebookresearch/LeViT, levit.py."""

    attention_bias_idxs: Tensor

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.num_heads, self.key_dim, self.d = w.heads, w.head_dim // 2, w.head_dim
        self.scale = self.key_dim**-0.5
        self.qkv = nn.Linear(width(w), w.heads * (2 * self.key_dim + self.d), dtype=w.dtype)
        self.proj = nn.Sequential(nn.Hardswish(), nn.Linear(width(w), width(w), dtype=w.dtype))
        h = side(w.seq_len)
        points = [(i, j) for i in range(h) for j in range(w.seq_len // h)]
        rows, columns = torch.tensor(points).unbind(-1)
        offsets = (rows[:, None] - rows).abs() * (w.seq_len // h)
        offsets = offsets + (columns[:, None] - columns).abs()
        self.attention_biases = nn.Parameter(torch.zeros(w.heads, w.seq_len, dtype=w.dtype))
        self.register_buffer("attention_bias_idxs", offsets)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = hidden(q)
        b, n, _ = x.shape
        sizes = [self.key_dim, self.key_dim, self.d]
        q, k, v = self.qkv(x).view(b, n, self.num_heads, -1).split(sizes, dim=3)
        q, k, v = q.permute(0, 2, 1, 3), k.permute(0, 2, 1, 3), v.permute(0, 2, 1, 3)
        attn = q @ k.transpose(-2, -1) * self.scale
        attn = attn + self.attention_biases[:, self.attention_bias_idxs]
        attn = attn.softmax(dim=-1)
        x = (attn @ v).transpose(1, 2).reshape(b, n, -1)
        return self.proj(x)


@module
class PVT(nn.Module):
    """Keys and values from a strided convolution: whai362/PVT, classification/pvt.py."""

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.num_heads, self.scale = w.heads, w.head_dim**-0.5
        self.h = side(w.seq_len)
        self.kv = nn.Linear(width(w), 2 * width(w), dtype=w.dtype)
        self.sr = nn.Conv2d(width(w), width(w), kernel_size=2, stride=2, dtype=w.dtype)
        self.norm = nn.LayerNorm(width(w), dtype=w.dtype)
        self.proj = nn.Linear(width(w), width(w), dtype=w.dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = hidden(k)
        b, n, c = x.shape
        x_ = x.permute(0, 2, 1).reshape(b, c, self.h, n // self.h)
        x_ = self.norm(self.sr(x_).reshape(b, c, -1).permute(0, 2, 1))
        kv = self.kv(x_).reshape(b, -1, 2, self.num_heads, c // self.num_heads)
        k, v = kv.permute(2, 0, 3, 1, 4)
        attn = ((q @ k.transpose(-2, -1)) * self.scale).softmax(dim=-1)
        return self.proj((attn @ v).transpose(1, 2).reshape(b, n, c))


@module
class XCiT(nn.Module):
    """Attention between channels, not tokens: facebookresearch/xcit, xcit.py."""

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.num_heads = w.heads
        self.temperature = nn.Parameter(torch.ones(w.heads, 1, 1, dtype=w.dtype))
        self.qkv = nn.Linear(width(w), 3 * width(w), dtype=w.dtype)
        self.attn_drop = nn.Dropout(0.1)
        self.proj = nn.Linear(width(w), width(w), dtype=w.dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = hidden(q)
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads)
        qkv = qkv.permute(2, 0, 3, 1, 4)
        q, k, v = (y.transpose(-2, -1) for y in (qkv[0], qkv[1], qkv[2]))
        q = torch.nn.functional.normalize(q, dim=-1)
        k = torch.nn.functional.normalize(k, dim=-1)
        attn = (q @ k.transpose(-2, -1)) * self.temperature
        attn = self.attn_drop(attn.softmax(dim=-1))
        x = (attn @ v).permute(0, 3, 1, 2).reshape(b, n, c)
        return self.proj(x)
