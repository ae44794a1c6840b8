"""Attention over sets, points, graphs, proteins and learned places in an image."""
# ruff: noqa: D102
# mypy: disable-error-code="no-any-return,no-untyped-call"

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnmem.corpus.entry import heads, hidden, module, program, side, width
from attnmem.workload import Workload


@module
class SetTransformer(nn.Module):
    """Induced points, heads split and joined along the batch by cat:
    juho-lee/set_transformer, modules.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.num_heads, self.dim = w.heads, width(w)
        self.inducing = nn.Parameter(torch.randn(1, 32, width(w), dtype=w.dtype))
        self.fc = nn.ModuleList([nn.Linear(width(w), width(w), dtype=w.dtype) for _ in range(4)])
        self.norm = nn.LayerNorm(width(w), dtype=w.dtype)

    def attend(self, query: Tensor, key: Tensor) -> Tensor:
        fc_q, fc_k, fc_v, fc_o = self.fc
        query, value, key = fc_q(query), fc_v(key), fc_k(key)
        size = self.dim // self.num_heads
        q_, k_, v_ = (torch.cat(x.split(size, 2), 0) for x in (query, key, value))
        a = torch.softmax(q_.bmm(k_.transpose(1, 2)) / math.sqrt(self.dim), 2)
        out = torch.cat((q_ + a.bmm(v_)).split(query.size(0), 0), 2)
        out = self.norm(out)
        out = out + F.relu(fc_o(out))
        return out

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = hidden(q)
        induced = self.attend(self.inducing.repeat(x.size(0), 1, 1), hidden(k))
        return self.attend(x, induced)


@module
class SlotAttention(nn.Module):
    """Softmax over the slots, then a GRU, three times: lucidrains/slot-attention,
    slot_attention/slot_attention.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        dim = self.dim = width(w)
        self.slots_mu = nn.Parameter(torch.randn(1, 1, dim, dtype=w.dtype))
        self.slots_logsigma = nn.Parameter(torch.zeros(1, 1, dim, dtype=w.dtype))
        self.to_q = nn.Linear(dim, dim, dtype=w.dtype)
        self.gru = nn.GRUCell(dim, dim, dtype=w.dtype)
        self.norm_slots = nn.LayerNorm(dim, dtype=w.dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = hidden(k), hidden(v)
        b, _, d = k.shape
        mu = self.slots_mu.expand(b, 7, -1)
        sigma = self.slots_logsigma.exp().expand(b, 7, -1)
        slots = mu + sigma * torch.randn(mu.shape, device=k.device, dtype=k.dtype)
        for _ in range(3):
            previous = slots
            query = self.to_q(self.norm_slots(slots))
            dots = torch.einsum("bid,bjd->bij", query, k) * d**-0.5
            attn = dots.softmax(dim=1) + 1e-8
            attn = attn / attn.sum(dim=-1, keepdim=True)
            updates = torch.einsum("bjd,bij->bid", v, attn)
            slots = self.gru(updates.reshape(-1, d), previous.reshape(-1, d))
            slots = slots.reshape(b, -1, d)
        return slots


@module
class Perceiver(nn.Module):
    """A few learned latents read all tokens: lucidrains/perceiver-pytorch,
    perceiver_pytorch/perceiver_pytorch.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.heads, self.scale = w.heads, w.head_dim**-0.5
        self.latents = nn.Parameter(torch.randn(64, width(w), dtype=w.dtype))
        self.to_q = nn.Linear(width(w), width(w), bias=False, dtype=w.dtype)
        self.to_kv = nn.Linear(width(w), 2 * width(w), bias=False, dtype=w.dtype)
        self.dropout = nn.Dropout(0.1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        context = hidden(k)
        x = self.latents[None].expand(context.shape[0], -1, -1)
        k, v = self.to_kv(context).chunk(2, dim=-1)
        q, k, v = (heads(y, self.heads).flatten(0, 1) for y in (self.to_q(x), k, v))
        sim = torch.einsum("b i d, b j d -> b i j", q, k) * self.scale
        attn = self.dropout(sim.softmax(dim=-1))
        out = torch.einsum("b i j, b j d -> b i d", attn, v)
        return hidden(out.view(-1, self.heads, *out.shape[1:]))


@module
class OpenFold(nn.Module):
    """Five dimensions, biases added in place, gated: aqlaboratory/openfold,
    openfold/model/primitives.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.rows, self.h = side(w.seq_len), w.heads
        self.linear_b = nn.Linear(width(w), w.heads, bias=False, dtype=w.dtype)
        self.linear_g = nn.Linear(width(w), width(w), dtype=w.dtype)
        self.linear_o = nn.Linear(width(w), width(w), dtype=w.dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        b, h, n, d = q.shape
        q_x = hidden(q).view(b, self.rows, n // self.rows, h * d)  # [*, I, J, C]
        query, key, value = (
            x.view(b, h, self.rows, n // self.rows, d).transpose(1, 2) for x in (q, k, v)
        )
        mask = torch.ones(q_x.shape[:-1], device=q.device, dtype=q.dtype)
        mask_bias = (1e4 * (mask - 1))[..., :, None, None, :]
        pair = self.linear_b(q_x[:, 0])
        pair = (pair[:, :, None] + pair[:, None]).permute(0, 3, 1, 2).unsqueeze(1)
        query = query / math.sqrt(d)
        a = torch.matmul(query, key.transpose(-1, -2))  # [*, I, H, J, J]
        for bias in (mask_bias, pair):
            a += bias
        a = torch.nn.functional.softmax(a, -1)
        o = torch.matmul(a, value).transpose(-2, -3)
        g = torch.sigmoid(self.linear_g(q_x)).view(*o.shape)
        o = o * g
        return self.linear_o(o.reshape(*o.shape[:-2], -1))


@module
class PointTransformer(nn.Module):
    """Vector attention to the nearest points, through topk and gather:
    lucidrains/point-transformer-pytorch, point_transformer_pytorch/point_transformer_pytorch.py.
    """

    pos: Tensor

    def __init__(self, w: Workload) -> None:
        super().__init__()
        dim = w.head_dim
        self.register_buffer("pos", torch.randn(w.batch, w.seq_len, 3, dtype=w.dtype))
        self.pos_mlp = nn.Sequential(
            nn.Linear(3, 16, dtype=w.dtype), nn.ReLU(), nn.Linear(16, dim, dtype=w.dtype)
        )
        self.attn_mlp = nn.Sequential(
            nn.Linear(dim, 2 * dim, dtype=w.dtype),
            nn.ReLU(),
            nn.Linear(2 * dim, dim, dtype=w.dtype),
        )

    @staticmethod
    def select(values: Tensor, indices: Tensor) -> Tensor:
        return values.gather(2, indices[..., None].expand(-1, -1, -1, values.shape[-1]))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = q[:, 0], k[:, 0], v[:, 0]
        n = q.shape[1]
        rel_pos = self.pos[:, :, None, :] - self.pos[:, None, :, :]
        qk_rel = q[:, :, None, :] - k[:, None, :, :]
        v = v[:, None].expand(-1, n, -1, -1)
        rel_dist = rel_pos.norm(dim=-1)
        _, indices = rel_dist.topk(16, largest=False)
        v, qk_rel = self.select(v, indices), self.select(qk_rel, indices)
        embedded = self.pos_mlp(self.select(rel_pos, indices))
        v = v + embedded
        attn = self.attn_mlp(qk_rel + embedded).softmax(dim=-2)
        return torch.einsum("b i j d, b i j d -> b i d", attn, v)


@program
def transformer_conv(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A graph's edges: messages gathered, softmax by scatter, sums by index_add:
    pyg-team/pytorch_geometric, torch_geometric/nn/conv/transformer_conv.py.
    """
    b, h, n, d = q.shape
    q, k, v = (x.transpose(1, 2).reshape(b * n, h, d) for x in (q, k, v))
    nodes = torch.arange(b * n, device=q.device)
    target = nodes.repeat_interleave(8)
    source = (target * 31 + torch.arange(8, device=q.device).repeat(b * n) * 17) % (b * n)
    query_i, key_j, value_j = q[target], k.index_select(0, source), v.index_select(0, source)
    alpha = (query_i * key_j).sum(dim=-1) / math.sqrt(d)
    index = target[:, None].expand_as(alpha)
    highest = alpha.new_zeros(b * n, h).scatter_reduce_(
        0, index, alpha.detach(), reduce="amax", include_self=False
    )
    alpha = (alpha - highest.index_select(0, target)).exp()
    total = alpha.new_zeros(b * n, h).scatter_add_(0, index, alpha) + 1e-16
    alpha = alpha / total.index_select(0, target)
    alpha = F.dropout(alpha, p=0.1, training=True)
    out = torch.zeros_like(q).index_add_(0, target, value_j * alpha.view(-1, h, 1))
    return out.reshape(b, n, h * d)


@module
class DeformableDetr(nn.Module):
    """Each query samples an image at four learned places, by grid_sample: huggingface/transformers,
    src/transformers/models/deformable_detr/modeling_deformable_detr.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.h, self.points, self.rows = w.heads, 4, side(w.seq_len)
        self.sampling_offsets = nn.Linear(width(w), w.heads * 4 * 2, dtype=w.dtype)
        self.attention_weights = nn.Linear(width(w), w.heads * 4, dtype=w.dtype)
        self.output_proj = nn.Linear(width(w), width(w), dtype=w.dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        b, h, n, d = q.shape
        rows, columns = self.rows, n // self.rows
        x = hidden(q)
        y_ref, x_ref = torch.meshgrid(
            torch.linspace(0.5, rows - 0.5, rows, dtype=torch.float32, device=q.device) / rows,
            torch.linspace(0.5, columns - 0.5, columns, device=q.device) / columns,
            indexing="ij",
        )
        reference = torch.stack((x_ref.reshape(-1), y_ref.reshape(-1)), -1).to(q.dtype)
        offsets = self.sampling_offsets(x).view(b, n, h, self.points, 2)
        size = torch.tensor([columns, rows], device=q.device)
        locations = reference[None, :, None, None, :] + offsets / size
        weights = F.softmax(self.attention_weights(x).view(b, n, h, self.points), -1)
        grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)
        value = v.flatten(0, 1).transpose(1, 2).reshape(b * h, d, rows, columns)
        sampled = nn.functional.grid_sample(
            value, grids, mode="bilinear", padding_mode="zeros", align_corners=False
        )
        weights = weights.transpose(1, 2).reshape(b * h, 1, n, self.points)
        out: Tensor = (sampled * weights).sum(-1).view(b, h * d, n)
        return self.output_proj(out.transpose(1, 2).contiguous())
