"""Attention within windows, chunks and buckets, some of them sorted."""
# ruff: noqa: D102
# mypy: disable-error-code="no-any-return,no-untyped-call"

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnmem.corpus.entry import module, program, side, turns
from attnmem.workload import Workload


def _look_around(x: Tensor, value: float) -> Tensor:
    """Each bucket between its neighbours: ``[B, U, T, …]`` to ``[B, U, 3T, …]``."""
    count = x.shape[1]
    pad = (0, 0) * (x.ndim - 2) + (1, 1)
    padded = F.pad(x, pad, value=value)
    return torch.cat([padded[:, i : i + count] for i in range(3)], dim=2)


@program
def local_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Buckets that look around, rotary, sequences padded to a multiple:
    lucidrains/local-attention, local_attention/local_attention.py.
    """
    b, h, n, d = q.shape
    window = 32
    q, k, v = (F.pad(x.flatten(0, 1), (0, 0, 0, -n % window)) for x in (q, k, v))
    total = q.shape[1]
    q = q * d**-0.5
    places = torch.arange(total, device=q.device).view(1, -1, window)
    bq, bk, bv = (x.reshape(b * h, -1, window, d) for x in (q, k, v))
    bk, bv = _look_around(bk, -1.0), _look_around(bv, -1.0)
    freqs = turns(3 * window, d, device=q.device)
    freqs = torch.cat((freqs, freqs), dim=-1).to(q.dtype)
    half = d // 2
    bq, bk = (
        x * f.cos() + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * f.sin()
        for x, f in ((bq, freqs[-window:]), (bk, freqs))
    )
    bq_k = _look_around(places, -1)
    sim = torch.einsum("bhie,bhje->bhij", bq, bk)
    lowest = -torch.finfo(sim.dtype).max
    sim = sim.masked_fill(bq_k[:, :, None, :] == -1, lowest)
    sim = sim.masked_fill(places[..., :, None] < bq_k[..., None, :], lowest)
    attn = sim.softmax(dim=-1)
    out = torch.einsum("bhij,bhje->bhie", attn, bv)
    return out.reshape(b, h, total, d)[:, :, :n]


def _chunks(x: Tensor, w: int) -> Tensor:
    """Overlapping chunks of 2w, each w after the last, by as_strided."""
    x = x.view(x.size(0), x.size(1) // (w * 2), w * 2, x.size(2))
    size, stride = list(x.size()), list(x.stride())
    size[1], stride[1] = size[1] * 2 - 1, stride[1] // 2
    return x.as_strided(size=size, stride=stride)


def _skew(x: Tensor) -> Tensor:
    """Columns become diagonals: ``[B, C, M, L]`` to ``[B, C, M, M + L]``."""
    b, c, m, length = x.size()
    x = F.pad(x, (0, m + 1)).view(b, c, -1)
    return x[:, :, :-m].view(b, c, m, m + length)[:, :, :, :-1]


@program
def longformer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Sliding chunks: overlapping views, skewed by pad and view: allenai/longformer,
    longformer/sliding_chunks.py.
    """
    b, h, n, d = q.shape
    w = 32
    q, k, v = (F.pad(x.flatten(0, 1), (0, 0, 0, -n % (2 * w))) for x in (q, k, v))
    total = q.shape[1]
    chunked = torch.einsum("bcxd,bcyd->bcxy", _chunks(q * d**-0.5, w), _chunks(k, w))
    diagonal = F.pad(chunked, (0, 0, 0, 1))
    diagonal = diagonal.view(*diagonal.shape[:2], diagonal.shape[3], diagonal.shape[2])
    count = total // w - 1
    attn = diagonal.new_empty((b * h, count + 1, w, w * 2 + 1))
    attn[:, :-1, :, w:] = diagonal[:, :, :w, : w + 1]
    attn[:, -1, :, w:] = diagonal[:, -1, w:, : w + 1]
    attn[:, 1:, :, :w] = diagonal[:, :, -(w + 1) : -1, w + 1 :]
    attn[:, 0, 1:w, 1:w] = diagonal[:, 0, : w - 1, 1 - w :]
    attn = attn.view(b * h, total, 2 * w + 1)
    corner = torch.ones(w, w + 1, device=q.device, dtype=torch.bool).tril().flip(dims=[0])
    attn[:, :w, : w + 1].masked_fill_(corner[None], -float("inf"))
    attn[:, -w:, -(w + 1) :].masked_fill_(corner.flip(dims=(0, 1))[None], -float("inf"))
    prob = F.softmax(attn, dim=-1, dtype=torch.float32).type_as(attn)
    prob = F.dropout(prob, p=0.1)
    chunked_prob = prob.reshape(b * h, total // w, w, 2 * w + 1)
    padded = F.pad(v, (0, 0, w, w), value=-1)
    stride = (padded.stride(0), w * padded.stride(1), padded.stride(1), padded.stride(2))
    chunked_v = padded.as_strided((b * h, total // w, 3 * w, d), stride)
    context = torch.einsum("bcwd,bcdh->bcwh", _skew(chunked_prob), chunked_v)
    return context.reshape(b, h, total, d)[:, :, :n].transpose(1, 2)


@program
def reformer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Hashed by random rotations, sorted, attended in chunks, unsorted:
    lucidrains/reformer-pytorch, reformer_pytorch/reformer_pytorch.py.
    """
    b, h, n, d = q.shape
    hashes, bucket = 2, 32
    qk, value = (F.pad(x.flatten(0, 1), (0, 0, 0, -n % (2 * bucket))) for x in (q, v))
    batch, total, _ = qk.shape
    rotations = torch.randn((1, d, hashes, total // bucket // 2), dtype=q.dtype, device=q.device)
    rotated = torch.einsum("btf,bfhi->bhti", qk, rotations.expand(batch, -1, -1, -1))
    buckets = torch.argmax(torch.cat([rotated, -rotated], dim=-1), dim=-1)
    offsets = torch.arange(hashes, device=q.device).reshape(1, -1, 1) * (total // bucket)
    buckets = torch.reshape(buckets + offsets, (batch, -1))
    ticker = torch.arange(hashes * total, device=q.device).unsqueeze(0).expand_as(buckets)
    buckets_and_t = (total * buckets + (ticker % total)).detach()
    _, order = buckets_and_t.sort(dim=-1)
    sticker = ticker.gather(-1, order)
    _, undo_sort = sticker.sort(dim=-1)
    del ticker
    st = sticker % total

    def select(x: Tensor, index: Tensor) -> Tensor:
        return x.gather(1, index[:, :, None].expand(-1, -1, x.shape[-1]))

    def one_back(x: Tensor) -> Tensor:
        return torch.cat([x, torch.cat([x[:, -1:], x[:, :-1]], dim=1)], dim=2)

    chunks = hashes * total // bucket
    bq = select(qk, st).reshape(batch, chunks, -1, d)
    bv = one_back(select(value, st).reshape(batch, chunks, -1, d))
    bk = one_back(F.normalize(bq, p=2, dim=-1).type_as(bq))
    bq_t = st.reshape(batch, chunks, -1)
    bkv_t = one_back(bq_t)
    dots = torch.einsum("bhie,bhje->bhij", bq, bk) * (d**-0.5)
    dots.masked_fill_(bq_t[:, :, :, None] < bkv_t[:, :, None, :], -torch.finfo(dots.dtype).max)
    dots.masked_fill_(bq_t[:, :, :, None] == bkv_t[:, :, None, :], -5e4)
    lse = torch.logsumexp(dots, dim=-1, keepdim=True)
    dots = torch.exp(dots - lse).type_as(dots)
    so = torch.einsum("buij,buje->buie", dots, bv).reshape(batch, -1, d)
    o = select(so, undo_sort).reshape(batch, hashes, total, d)
    logits = lse.reshape(batch, -1).gather(1, undo_sort).reshape(batch, hashes, total, 1)
    probs = torch.exp(logits - torch.logsumexp(logits, dim=1, keepdim=True))
    return torch.sum(o * probs, dim=1).view(b, h, total, d)[:, :, :n]


@module
class Sinkhorn(nn.Module):
    """Buckets reordered by a doubly stochastic matrix, of which the top is kept:
    lucidrains/sinkhorn-transformer, sinkhorn_transformer/sinkhorn_transformer.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.buckets = side(w.seq_len)
        matrix = torch.randn(1, w.heads, 2 * w.head_dim, self.buckets, dtype=w.dtype)
        self.linear = nn.Parameter(matrix)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        b, h, n, d = q.shape
        b_q, b_k, b_v = (x.reshape(b * h, self.buckets, -1, d) for x in (q, k, v))
        x = torch.cat((b_q.sum(dim=2), b_k.sum(dim=2)), dim=-1)
        r = F.relu(x @ self.linear.expand(b, -1, -1, -1).reshape(b * h, 2 * d, self.buckets))
        r = torch.log(r + 1e-6)
        noise = torch.empty(r.shape, device=r.device).uniform_(0, 1)
        r = (r + -torch.log(-torch.log(noise + 1e-6) + 1e-6)) / 0.75
        for _ in range(7):
            r = r - torch.logsumexp(r, dim=2, keepdim=True)
            r = r - torch.logsumexp(r, dim=1, keepdim=True)
        r = torch.exp(r).type_as(q)
        values, indices = torch.topk(r, 1, dim=2)
        r = torch.zeros_like(r).scatter_(2, indices, values)
        b_k = torch.cat((torch.einsum("buv,bvtd->butd", r, b_k), b_k), dim=2)
        b_v = torch.cat((torch.einsum("buv,bvtd->butd", r, b_v), b_v), dim=2)
        dots = torch.einsum("buie,buje->buij", b_q, b_k) * (d**-0.5)
        out = torch.einsum("buij,buje->buie", dots.softmax(dim=-1), b_v)
        return out.reshape(b, h, n, d)


@module
class RoutingTransformer(nn.Module):
    """Clusters by topk, results averaged by scatter_add: lucidrains/routing-transformer,
    routing_transformer/routing_transformer.py.
    """

    means: Tensor

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.clusters = 8
        self.window = w.seq_len // 8
        means = torch.randn(w.heads, self.clusters, w.head_dim, dtype=w.dtype)
        self.register_buffer("means", F.normalize(means, dim=-1))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        b, h, _, d = q.shape
        with torch.no_grad():
            x = F.normalize(q, 2, dim=-1).type(q.dtype)
            dists = torch.einsum("bhld,hcd->bhlc", x, self.means)
        _, topk_indices = dists.topk(k=self.window, dim=-2)
        indices, _ = topk_indices.sort(dim=-2)
        indices = indices.transpose(-2, -1).reshape(b, h, -1)
        index = indices.unsqueeze(-1).expand(-1, -1, -1, d)
        q, k, v_ = (x.gather(2, index) for x in (q, F.normalize(q, 2, dim=-1), v))
        q, k, v_ = (x.reshape(b, h, self.clusters, -1, d) for x in (q, k, v_))
        dots = torch.einsum("bhnid,bhnjd->bhnij", q, k) * (d**-0.5)
        eye = torch.eye(self.window, device=q.device).bool()
        dots.masked_fill_(eye, -5e4)
        attn = F.dropout(dots.softmax(dim=-1), 0.1)
        so = torch.einsum("bhcij,bhcjd->bhcid", attn, v_).reshape(b, h, -1, d)
        total = torch.zeros_like(v).scatter_add(-2, index, so)
        count = torch.zeros_like(v).scatter_add(-2, index, torch.ones_like(so))
        return total / (count + 1e-5)


@program
def long_net(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Dilated segments, one offset per head, merged by their log-sum-exp:
    microsoft/torchscale, torchscale/component/dilated_attention.py.
    """
    b, h, n, d = q.shape
    outs, lses = [], []
    for ratio, segment in ((1, n // 8), (2, n // 2)):
        segment += -segment % ratio
        pad = -n % segment
        qs, ks, vs = (F.pad(x, (0, 0, 0, pad)) for x in (q, k, v))
        out = torch.zeros_like(qs)
        lse = torch.full(qs.shape[:-1], -1e8, device=q.device)
        for head in range(h):
            offset = head % ratio
            sparse = slice(offset, None, ratio)
            qi, ki, vi = (x[:, head].reshape(b, -1, segment, d)[:, :, sparse] for x in (qs, ks, vs))
            scores = qi @ ki.transpose(-1, -2) * d**-0.5
            norm = torch.logsumexp(scores.float(), dim=-1, keepdim=True)
            weights = torch.exp(scores - norm).type_as(qi)
            out[:, head, sparse] = (weights @ vi).flatten(1, 2)
            lse[:, head, sparse] = norm.detach().flatten(1)
        outs.append(out[:, :, :n])
        lses.append(lse[:, :, :n, None])
    with torch.no_grad():
        highest = torch.stack(lses, dim=0).max(0)[0]
        weights_ = [torch.exp(lse - highest) for lse in lses]
        total = torch.stack(weights_, dim=0).sum(0)
        weights_ = [x / total for x in weights_]
    merged = torch.zeros_like(q)
    for out, weight in zip(outs, weights_, strict=True):
        merged = merged + out * weight.type_as(out)
    return merged


@program
def dalle_axial(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Text in front, an image that attends to it and along its rows:
    lucidrains/DALLE-pytorch, dalle_pytorch/attention.py.
    """
    b, h, n, d = q.shape
    size = math.isqrt(3 * n // 4)
    image, text = size**2, n - size**2
    q, k, v = (x.reshape(b * h, n, d) for x in (q, k, v))
    q = q * d**-0.5
    (q_text, q_img), (k_text, k_img), (v_text, v_img) = (
        (x[:, :-image], x[:, -image:]) for x in (q, k, v)
    )
    dots_text = torch.einsum("b i d, b j d -> b i j", q_text, k_text)
    lowest = -torch.finfo(dots_text.dtype).max
    future = torch.ones(text, text, device=q.device).triu_(1).bool()
    dots_text.masked_fill_(future, lowest)
    out_text = torch.einsum("b i j, b j d -> b i d", dots_text.softmax(dim=-1), v_text)
    q_img, k_img, v_img = (x.view(b * h, size, size, d) for x in (q_img, k_img, v_img))
    to_image = torch.einsum("b x i d, b x j d -> b x i j", q_img, k_img)
    to_text = torch.einsum("b x i d, b j d -> b x i j", q_img, k_text)
    dots = torch.cat((to_text, to_image), dim=-1)
    causal = torch.ones(size, size, device=q.device).triu_(1).bool()
    mask = torch.zeros(size, text, device=q.device, dtype=torch.bool)
    mask = torch.cat((mask, causal), dim=-1)[None, None].repeat(b * h, size, 1, 1)
    dots.masked_fill_(mask, lowest)
    attn = dots.softmax(dim=-1)
    attn_text, attn_image = attn[..., :text], attn[..., text:]
    out_image = torch.einsum("b x i j, b x j d -> b x i d", attn_image, v_img)
    out_image = out_image + torch.einsum("b x i j, b j d -> b x i d", attn_text, v_text)
    out = torch.cat((out_text, out_image.reshape(b * h, -1, d)), dim=1)
    return out.view(b, h, n, d)
