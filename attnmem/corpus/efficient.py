"""Attention with less than N² of memory: low rank, kernels, landmarks, sampling."""
# ruff: noqa: D102
# mypy: disable-error-code="no-any-return,no-untyped-call"

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnmem.corpus.entry import hidden, module, only, program, side, width
from attnmem.workload import Workload


@module
class Linformer(nn.Module):
    """Keys and values projected along tokens: lucidrains/linformer, linformer/linformer.py."""

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.proj_k = nn.Parameter(torch.empty(w.seq_len, 64, dtype=w.dtype).uniform_(-0.05, 0.05))
        self.proj_v = nn.Parameter(torch.empty(w.seq_len, 64, dtype=w.dtype).uniform_(-0.05, 0.05))
        self.heads, self.dropout = w.heads, nn.Dropout(0.1)
        self.to_out = nn.Linear(width(w), width(w), dtype=w.dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        b, h, n, d = q.shape
        projected = ((hidden(k), self.proj_k[:n]), (hidden(v), self.proj_v[:n]))
        keys, values = (torch.einsum("bnd,nk->bkd", x, proj) for x, proj in projected)
        keys = keys.reshape(b, 64, -1, d).transpose(1, 2).expand(-1, h, -1, -1)
        values = values.reshape(b, 64, -1, d).transpose(1, 2).expand(-1, h, -1, -1)
        dots = torch.einsum("bhnd,bhkd->bhnk", q, keys) * (d**-0.5)
        attn = self.dropout(dots.softmax(dim=-1))
        out = torch.einsum("bhnk,bhkd->bhnd", attn, values)
        return self.to_out(out.transpose(1, 2).reshape(b, n, -1))


@module
class Performer(nn.Module):
    """Softmax estimated with random features in float32: lucidrains/performer-pytorch,
    performer_pytorch/performer_pytorch.py.
    """

    projection_matrix: Tensor

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.features = int(w.head_dim * math.log(w.head_dim))
        blocks = []
        for _ in range(-(-self.features // w.head_dim)):
            q, _ = torch.linalg.qr(torch.randn(w.head_dim, w.head_dim), mode="reduced")
            blocks.append(q.t())
        matrix = torch.cat(blocks)[: self.features]
        matrix = torch.diag(torch.randn(self.features, w.head_dim).norm(dim=1)) @ matrix
        self.register_buffer("projection_matrix", matrix)

    def softmax_kernel(self, data: Tensor, is_query: bool) -> Tensor:
        b, h, *_ = data.shape
        normalizer = data.shape[-1] ** -0.25
        ratio = self.projection_matrix.shape[0] ** -0.5
        projection = self.projection_matrix[None, None].expand(b, h, -1, -1).type_as(data)
        dash = torch.einsum("...id,...jd->...ij", normalizer * data, projection)
        diag = ((data**2).sum(dim=-1) / 2.0) * (normalizer**2)
        dims = (-1,) if is_query else (-1, -2)
        highest = torch.amax(dash, dim=dims, keepdim=True).detach()
        dash = ratio * (torch.exp(dash - diag.unsqueeze(dim=-1) - highest) + 1e-4)
        return dash.type_as(data)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        dtype = q.dtype
        q, k, v = q.float(), k.float(), v.float()
        q, k = self.softmax_kernel(q, is_query=True), self.softmax_kernel(k, is_query=False)
        d_inv = 1.0 / torch.einsum("...nd,...d->...n", q, k.sum(dim=-2).type_as(q))
        context = torch.einsum("...nd,...ne->...de", k, v)
        return torch.einsum("...de,...nd,...n->...ne", context, q, d_inv).to(dtype)


@program
def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The kernel elu + 1, heads after the sequence: idiap/fast-transformers,
    fast_transformers/attention/linear_attention.py.
    """
    queries, keys, values = (x.transpose(1, 2) for x in (q, k, v))
    lengths = torch.ones(queries.shape[:2], device=q.device, dtype=q.dtype)
    queries = F.elu(queries) + 1
    keys = F.elu(keys) + 1
    keys = keys * lengths[:, :, None, None]
    kv = torch.einsum("nshd,nshm->nhmd", keys, values)
    z = 1 / (torch.einsum("nlhd,nhd->nlh", queries, keys.sum(dim=1)) + 1e-6)
    out = torch.einsum("nlhd,nhmd,nlh->nlhm", queries, kv, z)
    return out.contiguous()


@program
def causal_linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax on Q and exponentials of K, cumulative sums over buckets:
    lucidrains/linear-attention-transformer,
    linear_attention_transformer/linear_attention_transformer.py.
    """
    b, h, n, d = q.shape
    bucket = side(n, most=64)
    dtype = q.dtype
    q = q.softmax(dim=-1) * d**-0.5
    k = torch.exp(k).type(dtype).clone()
    b_q, b_k, b_v = (x.reshape(b, h, -1, bucket, d) for x in (q, k, v))
    b_k_cumsum = b_k.sum(dim=-2).cumsum(dim=-2).type(dtype)
    context = torch.einsum("bhund,bhune->bhude", b_k, b_v)
    context = context.cumsum(dim=-3).type(dtype)
    context = F.pad(context, (0, 0, 0, 0, 1, 0), value=0.0)[:, :, :-1]
    b_k_cumsum = F.pad(b_k_cumsum, (0, 0, 1, 0), value=0.0)[:, :, :-1]
    d_inv = 1.0 / (torch.einsum("bhud,bhund->bhun", b_k_cumsum, b_q) + 1e-3)
    attn = torch.einsum("bhund,bhude,bhun->bhune", b_q, context, d_inv)
    return attn.reshape(b, h, n, d)


@program
def chunked_linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Between chunks a running sum, within one the masked product:
    fla-org/flash-linear-attention, fla/ops/linear_attn/naive.py.
    """
    b, h, n, d = q.shape
    size = side(n, most=64)
    q, k, v = (x.view(b, h, -1, size, d) for x in (q, k, v))
    q = q * d**-0.5
    kv = k.transpose(-1, -2) @ v
    kv = kv.cumsum(2)
    kv = torch.cat([torch.zeros_like(kv[:, :, :1]), kv[:, :, :-1]], dim=2)
    inter = q @ kv
    upper = torch.triu(torch.ones(size, size, dtype=torch.bool, device=q.device), diagonal=1)
    intra = (q @ k.transpose(-1, -2)).masked_fill_(upper, 0) @ v
    return (inter + intra).view(b, h, n, d)


@program
def cosformer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """ReLU weighed by sine and cosine of the place: OpenNLPLab/cosFormer, cosformer.py."""
    b, h, n, d = q.shape
    q, k = F.relu(q), F.relu(k)
    q, k, v = (x.permute(2, 0, 1, 3).reshape(n, b * h, d).transpose(0, 1) for x in (q, k, v))
    index = (math.pi / 2 * torch.arange(1, n + 1).reshape(1, -1, 1)).to(q)
    sin, cos = torch.sin(index / n), torch.cos(index / n)
    q_ = torch.cat([q * sin, q * cos], dim=-1)
    k_ = torch.cat([k * sin, k * cos], dim=-1)
    kv_ = torch.einsum("nld,nlm->ndm", k_, v)
    z_ = 1 / torch.clamp_min(torch.einsum("nld,nd->nl", q_, torch.sum(k_, dim=1)), 1e-6)
    out = torch.einsum("nld,ndm,nl->nlm", q_, kv_, z_)
    return out.transpose(0, 1).contiguous().view(n, b, -1)


@module
class Nystromformer(nn.Module):
    """Means of segments as landmarks, an inverse by iteration, a convolution of V added:
    mlpen/Nystromformer, code/attention_nystrom.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.landmarks = side(w.seq_len, most=64)
        self.conv = nn.Conv2d(
            w.heads, w.heads, (33, 1), padding=(16, 0), bias=False, groups=w.heads, dtype=w.dtype
        )

    @staticmethod
    def iterative_inv(mat: Tensor) -> Tensor:
        eye = torch.eye(mat.size(-1), device=mat.device, dtype=mat.dtype)
        v = 1 / torch.max(torch.sum(mat, dim=-2)) * mat.transpose(-1, -2)
        for _ in range(6):
            kv = torch.matmul(mat, v)
            inner = 15 * eye - torch.matmul(kv, 7 * eye - kv)
            v = torch.matmul(0.25 * v, 13 * eye - torch.matmul(kv, inner))
        return v

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        b, h, n, d = q.shape
        mask = torch.ones(b, n, device=q.device, dtype=q.dtype)
        q = q * mask[:, None, :, None] / math.sqrt(math.sqrt(d))
        k = k * mask[:, None, :, None] / math.sqrt(math.sqrt(d))
        q_landmarks = q.reshape(-1, h, self.landmarks, n // self.landmarks, d).mean(dim=-2)
        k_landmarks = k.reshape(-1, h, self.landmarks, n // self.landmarks, d).mean(dim=-2)
        kernel_1 = F.softmax(torch.matmul(q, k_landmarks.transpose(-1, -2)), dim=-1)
        kernel_2 = F.softmax(torch.matmul(q_landmarks, k_landmarks.transpose(-1, -2)), dim=-1)
        scores = torch.matmul(q_landmarks, k.transpose(-1, -2))
        kernel_3 = F.softmax(scores - 1e4 * (1 - mask[:, None, None, :]), dim=-1)
        x = torch.matmul(torch.matmul(kernel_1, self.iterative_inv(kernel_2)),
                         torch.matmul(kernel_3, v))  # fmt: skip
        x += self.conv(v * mask[:, None, :, None])
        return x


@program
def informer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A few queries picked by sampled keys, written over the running sum of V, tables of
    indices from the CPU: zhouhaoyi/Informer2020, models/attn.py.
    """
    b, h, n, d = q.shape
    count = min(5 * math.ceil(math.log(n)), n)
    k_expand = k.unsqueeze(-3).expand(b, h, n, n, d)
    index_sample = torch.randint(n, (n, count)).to(q.device)
    k_sample = k_expand[:, :, torch.arange(n).unsqueeze(1).to(q.device), index_sample, :]
    sampled = torch.matmul(q.unsqueeze(-2), k_sample.transpose(-2, -1)).squeeze(-2)
    sparsity = sampled.max(-1)[0] - torch.div(sampled.sum(-1), n)
    top = sparsity.topk(count, sorted=False)[1]
    batch, head = torch.arange(b)[:, None, None], torch.arange(h)[None, :, None]
    batch, head = batch.to(q.device), head.to(q.device)
    scores = torch.matmul(q[batch, head, top, :], k.transpose(-2, -1)) * (1.0 / math.sqrt(d))
    future = torch.ones(n, n, dtype=torch.bool).to(q.device).triu(1)
    future = future[None, None, :].expand(b, h, n, n)[batch, head, top, :]
    scores.masked_fill_(future.view(scores.shape), -math.inf)
    attn = torch.softmax(scores, dim=-1)
    context = v.cumsum(dim=-2)
    context[batch, head, top, :] = torch.matmul(attn, v).type_as(context)
    return context.transpose(2, 1).contiguous()


@only(lambda w: w.dtype is torch.float32)  # no transform of 333 halves
@program
def autoformer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Delays found by Fourier transforms, values rolled by gather: thuml/Autoformer,
    layers/AutoCorrelation.py.
    """
    b, h, n, d = q.shape
    queries, keys, values = (x.permute(0, 1, 3, 2).contiguous() for x in (q, k, v))
    q_fft = torch.fft.rfft(queries, dim=-1)
    k_fft = torch.fft.rfft(keys, dim=-1)
    corr = torch.fft.irfft(q_fft * torch.conj(k_fft), n=n, dim=-1)
    init_index = torch.arange(n)[None, None, None].repeat(b, h, d, 1).to(values.device)
    mean_value = torch.mean(torch.mean(corr, dim=1), dim=1)
    weights, delay = torch.topk(mean_value, int(math.log(n)), dim=-1)
    weights = torch.softmax(weights, dim=-1)
    doubled = values.repeat(1, 1, 1, 2)
    delays_agg = torch.zeros_like(values).float()
    for i in range(weights.shape[-1]):
        place = init_index + delay[:, i][:, None, None, None].repeat(1, h, d, n)
        pattern = torch.gather(doubled, dim=-1, index=place)
        delays_agg = delays_agg + pattern * weights[:, i][:, None, None, None].repeat(1, h, d, n)
    return delays_agg.permute(0, 3, 1, 2).contiguous()
