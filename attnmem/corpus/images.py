"""Attention over images, part two: diffusion, blocks with halos, routing, reattention, video."""
# ruff: noqa: D102
# mypy: disable-error-code="no-any-return,no-untyped-call"

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnmem.corpus.entry import heads, hidden, module, program, side, width
from attnmem.workload import Workload


@module
class Restormer(nn.Module):
    """Q, K and V from a depthwise convolution, attention between channels:
    swz30/Restormer, basicsr/models/archs/restormer_arch.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        dim = width(w)
        self.num_heads, self.h = w.heads, side(w.seq_len)
        self.temperature = nn.Parameter(torch.ones(w.heads, 1, 1, dtype=w.dtype))
        self.qkv = nn.Conv2d(dim, dim * 3, kernel_size=1, bias=False, dtype=w.dtype)
        self.qkv_dwconv = nn.Conv2d(
            dim * 3, dim * 3, kernel_size=3, padding=1, groups=dim * 3, bias=False, dtype=w.dtype
        )
        self.project_out = nn.Conv2d(dim, dim, kernel_size=1, bias=False, dtype=w.dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        b, _, n, _ = q.shape
        x = hidden(q).transpose(1, 2).reshape(b, -1, self.h, n // self.h)
        q, k, v = self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        q, k, v = (y.reshape(b, self.num_heads, -1, n) for y in (q, k, v))
        q = torch.nn.functional.normalize(q, dim=-1)
        k = torch.nn.functional.normalize(k, dim=-1)
        attn = (q @ k.transpose(-2, -1)) * self.temperature
        return self.project_out((attn.softmax(dim=-1) @ v).reshape(x.shape))


@module
class DeepViT(nn.Module):
    """Weights mixed between heads and normed across them: lucidrains/vit-pytorch,
    vit_pytorch/deepvit.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.scale = w.head_dim**-0.5
        self.reattn_weights = nn.Parameter(torch.randn(w.heads, w.heads, dtype=w.dtype))
        self.reattn_norm = nn.LayerNorm(w.heads, dtype=w.dtype)
        self.dropout = nn.Dropout(0.1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        dots = torch.einsum("b h i d, b h j d -> b h i j", q, k) * self.scale
        attn = self.dropout(dots.softmax(dim=-1))
        attn = torch.einsum("b h i j, h g -> b g i j", attn, self.reattn_weights)
        attn = self.reattn_norm(attn.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return hidden(torch.einsum("b h i j, b h j d -> b h i d", attn, v))


@module
class CaiT(nn.Module):
    """Talking heads by a linear layer over the last dimension: facebookresearch/deit,
    cait_models.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.scale = w.head_dim**-0.5
        self.proj_l = nn.Linear(w.heads, w.heads, dtype=w.dtype)
        self.proj_w = nn.Linear(w.heads, w.heads, dtype=w.dtype)
        self.attn_drop = nn.Dropout(0.1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        attn = (q * self.scale) @ k.transpose(-2, -1)
        attn = self.proj_l(attn.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        attn = attn.softmax(dim=-1)
        attn = self.proj_w(attn.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        attn = self.attn_drop(attn)
        return (attn @ v).transpose(1, 2).reshape(q.shape[0], q.shape[2], -1)


def _rel_to_abs(x: Tensor) -> Tensor:
    b, h, length, _ = x.shape
    x = torch.cat((x, x.new_zeros(b, h, length, 1)), dim=3).flatten(2)
    x = torch.cat((x, x.new_zeros(b, h, length - 1)), dim=2)
    return x.reshape(b, h, length + 1, 2 * length - 1)[:, :, :length, length - 1 :]


@module
class BottleneckTransformer(nn.Module):
    """Relative logits of rows and columns, skewed by padding:
    lucidrains/bottleneck-transformer-pytorch,
    bottleneck_transformer_pytorch/bottleneck_transformer_pytorch.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.h, self.w = side(w.seq_len), w.seq_len // side(w.seq_len)
        scale = w.head_dim**-0.5
        rows = torch.randn(2 * self.h - 1, w.head_dim, dtype=w.dtype)
        self.rel_height = nn.Parameter(rows * scale)
        columns = torch.randn(2 * self.w - 1, w.head_dim, dtype=w.dtype)
        self.rel_width = nn.Parameter(columns * scale)

    @staticmethod
    def relative_logits(q: Tensor, rel_k: Tensor) -> Tensor:
        b, heads, h, w, _ = q.shape
        logits = torch.einsum("b h x y d, r d -> b h x y r", q, rel_k)
        logits = _rel_to_abs(logits.reshape(b, heads * h, w, -1))
        logits = logits.reshape(b, heads, h, w, w).unsqueeze(3)
        return logits.expand(-1, -1, -1, h, -1, -1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q = q * q.shape[-1] ** -0.5
        sim = torch.einsum("b h i d, b h j d -> b h i j", q, k)
        image = q.unflatten(2, (self.h, self.w))
        columns = self.relative_logits(image, self.rel_width)  # b h x i y j
        sim = sim + columns.permute(0, 1, 2, 4, 3, 5).reshape(sim.shape)
        rows = self.relative_logits(image.transpose(2, 3), self.rel_height)  # b h y j x i
        sim = sim + rows.permute(0, 1, 4, 2, 5, 3).reshape(sim.shape)
        attn = sim.softmax(dim=-1)
        return torch.einsum("b h i j, b h j d -> b h i d", attn, v)


@module
class HaloNet(nn.Module):
    """Blocks that see a halo, cut by unfold, padding masked: lucidrains/halonet-pytorch,
    halonet_pytorch/halonet_pytorch.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.h, self.w = side(w.seq_len), w.seq_len // side(w.seq_len)
        self.block, self.halo, self.heads = side(self.h, most=8), 3, w.heads
        if self.w % self.block:
            self.block = 1
        self.to_kv = nn.Linear(width(w), 2 * width(w), bias=False, dtype=w.dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        b, _, n, d = q.shape
        block, halo = self.block, self.halo
        x = hidden(k).transpose(1, 2).reshape(b, -1, self.h, self.w)
        queries = hidden(q).view(b, self.h // block, block, self.w // block, block, -1)
        queries = queries.permute(0, 1, 3, 2, 4, 5).reshape(-1, block**2, x.shape[1])
        window = block + 2 * halo
        around = F.unfold(x, kernel_size=window, stride=block, padding=halo)
        around = around.view(b, x.shape[1], -1, around.shape[-1]).permute(0, 3, 2, 1)
        around = around.reshape(-1, window**2, x.shape[1])
        k, v = self.to_kv(around).chunk(2, dim=-1)
        q, k, v = (heads(y, self.heads).flatten(0, 1) for y in (queries, k, v))
        sim = torch.einsum("b i d, b j d -> b i j", q * d**-0.5, k)
        mask = torch.ones(1, 1, self.h, self.w, device=q.device)
        mask = F.unfold(mask, kernel_size=window, stride=block, padding=halo)
        mask = mask.transpose(1, 2).repeat(b, 1, 1).view(-1, 1, 1, window**2)
        mask = mask.expand(-1, self.heads, -1, -1).reshape(-1, 1, window**2).bool()
        sim.masked_fill_(~mask, -torch.finfo(sim.dtype).max)
        out = torch.einsum("b i j, b j d -> b i d", sim.softmax(dim=-1), v)
        out = hidden(out.view(-1, self.heads, *out.shape[1:]))
        out = out.view(b, self.h // block, self.w // block, block, block, -1)
        return out.permute(0, 1, 3, 2, 4, 5).reshape(b, n, -1)


@module
class StandAlone(nn.Module):
    """A neighbourhood of 3×3 for each pixel and each channel, by unfold twice:
    leaderj1001/Stand-Alone-Self-Attention, attention.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.h, self.groups = side(w.seq_len), w.heads
        self.rel_h = nn.Parameter(torch.randn(width(w) // 2, 1, 1, 3, 1, dtype=w.dtype))
        self.rel_w = nn.Parameter(torch.randn(width(w) // 2, 1, 1, 1, 3, dtype=w.dtype))
        self.key_conv = nn.Conv2d(width(w), width(w), kernel_size=1, bias=False, dtype=w.dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        b, _, n, d = q.shape
        h, w = self.h, n // self.h
        q, k, v = (hidden(x).transpose(1, 2).reshape(b, -1, h, w) for x in (q, k, v))
        k, v = self.key_conv(F.pad(k, [1, 1, 1, 1])), F.pad(v, [1, 1, 1, 1])
        k, v = (x.unfold(2, 3, 1).unfold(3, 3, 1) for x in (k, v))
        above, beside = k.split(k.shape[1] // 2, dim=1)
        k = torch.cat((above + self.rel_h, beside + self.rel_w), dim=1)
        k = k.contiguous().view(b, self.groups, d, h, w, -1)
        v = v.contiguous().view(b, self.groups, d, h, w, -1)
        out = F.softmax(q.view(b, self.groups, d, h, w, 1) * k, dim=-1)
        return torch.einsum("bnchwk,bnchwk -> bnchw", out, v).view(b, -1, h, w)


@program
def biformer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Regions routed by topk, their keys and values gathered: rayleizhu/BiFormer,
    ops/bra_legacy.py.
    """
    b, h, n, d = q.shape
    p2 = side(n)
    q_pix = hidden(q).view(b, p2, n // p2, h * d)
    kv_pix = torch.cat((hidden(k), hidden(v)), dim=-1).view(b, p2, n // p2, 2 * h * d)
    q_win, k_win = q_pix.mean(2).detach(), kv_pix[..., : h * d].mean(2).detach()
    logits = (q_win * (h * d) ** -0.5) @ k_win.transpose(-2, -1)
    top, index = torch.topk(logits, k=min(4, p2), dim=-1)
    r_weight = torch.softmax(top, dim=-1)
    kv_sel = torch.gather(
        kv_pix.view(b, 1, p2, n // p2, -1).expand(-1, p2, -1, -1, -1),
        dim=2,
        index=index.view(b, p2, -1, 1, 1).expand(-1, -1, -1, n // p2, 2 * h * d),
    )
    kv_sel = r_weight.view(b, p2, -1, 1, 1) * kv_sel
    k_sel, v_sel = kv_sel.flatten(2, 3).flatten(0, 1).split([h * d, h * d], dim=-1)
    q_pix = heads(q_pix.flatten(0, 1), h)
    k_sel, v_sel = (x.unflatten(-1, (h, d)).transpose(1, 2) for x in (k_sel, v_sel))
    attn = (q_pix * (h * d) ** -0.5) @ k_sel.transpose(-2, -1)
    out = attn.softmax(dim=-1) @ v_sel
    return out.transpose(1, 2).reshape(b, n, h * d)


@module
class EfficientViT(nn.Module):
    """Linear attention by ReLU, its sum a padded column of ones, no autocast:
    mit-han-lab/efficientvit, efficientvit/models/nn/ops.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.proj = nn.Conv1d(width(w), width(w), kernel_size=1, dtype=w.dtype)

    @staticmethod
    def relu_linear_att(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        dtype = q.dtype
        if dtype in (torch.float16, torch.bfloat16):
            q, k, v = q.float(), k.float(), v.float()
        with torch.autocast(device_type=q.device.type, enabled=False):
            q, k = F.relu(q, inplace=False), F.relu(k, inplace=False)
            v = F.pad(v, (0, 0, 0, 1), mode="constant", value=1)
            vk = torch.matmul(v, k.transpose(-1, -2))
            out = torch.matmul(vk, q)
            return (out[:, :, :-1] / (out[:, :, -1:] + 1.0e-15)).to(dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = q.transpose(-1, -2), k.transpose(-1, -2), v.transpose(-1, -2)
        out = self.relu_linear_att(q, k, v)
        return self.proj(out.flatten(1, 2))


@program
def timesformer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Time first, then space, each with the other in the batch: facebookresearch/TimeSformer,
    timesformer/models/vit.py.
    """
    b, h, n, d = q.shape
    frames = side(n)
    q, k, v = (x.view(b, h, frames, n // frames, d) for x in (q, k, v))
    q_t, k_t, v_t = (x.permute(0, 3, 1, 2, 4).reshape(-1, h, frames, d) for x in (q, k, v))
    attn = (q_t @ k_t.transpose(-2, -1)) * d**-0.5
    x = attn.softmax(dim=-1) @ v_t
    x = x.view(b, n // frames, h, frames, d).permute(0, 3, 2, 1, 4)
    q_s, k_s = (y.permute(0, 2, 1, 3, 4).reshape(-1, h, n // frames, d) for y in (q, k))
    attn = (q_s @ k_s.transpose(-2, -1)) * d**-0.5
    x = attn.softmax(dim=-1) @ x.reshape(-1, h, n // frames, d)
    return x.transpose(1, 2).reshape(b, n, h * d)
