"""Encoders, translators and the first decoders, as their repositories write attention."""
# ruff: noqa: D102
# mypy: disable-error-code="no-any-return,no-untyped-call"

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnmem.corpus.entry import heads, hidden, module, only, program, width
from attnmem.workload import Workload


@module
class NanoGPT(nn.Module):
    """GPT-2's fused projection and its causal buffer: karpathy/nanoGPT, model.py."""

    bias: Tensor

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.n_head, size = w.heads, width(w)
        self.c_attn = nn.Linear(size, 3 * size, dtype=w.dtype)
        self.c_proj = nn.Linear(size, size, dtype=w.dtype)
        self.attn_dropout = nn.Dropout(0.1)
        self.resid_dropout = nn.Dropout(0.1)
        n = w.seq_len
        self.register_buffer("bias", torch.tril(torch.ones(n, n)).view(1, 1, n, n))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = hidden(q)
        b, n, size = x.size()
        q, k, v = (heads(part, self.n_head) for part in self.c_attn(x).split(size, dim=2))
        att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        att = att.masked_fill(self.bias[:, :, :n, :n] == 0, float("-inf"))
        att = self.attn_dropout(F.softmax(att, dim=-1))
        y = (att @ v).transpose(1, 2).contiguous().view(b, n, size)
        return self.resid_dropout(self.c_proj(y))


class _LectureHead(nn.Module):
    tril: Tensor

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.key = nn.Linear(width(w), w.head_dim, bias=False, dtype=w.dtype)
        self.query = nn.Linear(width(w), w.head_dim, bias=False, dtype=w.dtype)
        self.value = nn.Linear(width(w), w.head_dim, bias=False, dtype=w.dtype)
        self.register_buffer("tril", torch.tril(torch.ones(w.seq_len, w.seq_len)))
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        k, q = self.key(x), self.query(x)
        wei = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5
        wei = wei.masked_fill(self.tril[:n, :n] == 0, float("-inf"))
        wei = self.dropout(F.softmax(wei, dim=-1))
        return wei @ self.value(x)


@module
class LectureHeads(nn.Module):
    """One small module per head, side by side: karpathy/ng-video-lecture, gpt.py."""

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.heads = nn.ModuleList([_LectureHead(w) for _ in range(w.heads)])
        self.proj = nn.Linear(width(w), width(w), dtype=w.dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = hidden(q)
        return self.proj(torch.cat([head(x) for head in self.heads], dim=-1))


@only(lambda w: w.dtype is not torch.float16)  # -1e9 is no half
@module
class AnnotatedTransformer(nn.Module):
    """Four cloned projections and a mask of -1e9:
    harvardnlp/annotated-transformer, the_annotated_transformer.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.h = w.heads
        linear = nn.Linear(width(w), width(w), dtype=w.dtype)
        self.linears = nn.ModuleList([copy.deepcopy(linear) for _ in range(4)])
        self.dropout = nn.Dropout(p=0.1)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        mask = torch.triu(torch.ones(1, key.size(2), key.size(2), device=key.device), diagonal=1)
        mask = (mask.type(torch.uint8) == 0).unsqueeze(1)
        batches = query.size(0)
        query, key, value = (
            linear(hidden(x)).view(batches, -1, self.h, x.size(-1)).transpose(1, 2)
            for linear, x in zip(self.linears, (query, key, value), strict=False)
        )
        scores = torch.matmul(query, key.transpose(-2, -1)) / math.sqrt(query.size(-1))
        scores = scores.masked_fill(mask == 0, -1e9)
        p_attn = self.dropout(scores.softmax(dim=-1))
        x = torch.matmul(p_attn, value)
        x = x.transpose(1, 2).contiguous().view(batches, -1, self.h * query.size(-1))
        del query, key, value
        return self.linears[-1](x)


@program
def bert(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """A padded batch, and the mask added to the scores:
    huggingface/transformers, src/transformers/models/bert/modeling_bert.py.
    """
    b, _, n, _ = q.shape
    attention_mask = torch.ones(b, n, device=q.device)
    attention_mask[:, 3 * n // 4 :] = 0
    extended = attention_mask[:, None, None, :].to(dtype=q.dtype)
    extended = (1.0 - extended) * torch.finfo(q.dtype).min
    scores = torch.matmul(q, k.transpose(-1, -2))
    scores = scores / math.sqrt(q.size(-1))
    scores = scores + extended
    probs = nn.functional.softmax(scores, dim=-1)
    probs = nn.functional.dropout(probs, p=0.1, training=True)
    context = torch.matmul(probs, v).permute(0, 2, 1, 3).contiguous()
    return context.view(*context.size()[:-2], -1), probs


def _t5_bucket(relative: Tensor, buckets: int = 32, longest: int = 128) -> Tensor:
    buckets //= 2
    found = (relative > 0).to(torch.long) * buckets
    relative = torch.abs(relative)
    exact = buckets // 2
    growth = torch.log(relative.float() / exact) / math.log(longest / exact)
    far = exact + (growth * (buckets - exact)).to(torch.long)
    far = torch.min(far, torch.full_like(far, buckets - 1))
    found += torch.where(relative < exact, relative, far)
    return found


@module
class T5(nn.Module):
    """Relative positions from an embedding of buckets, added in place:
    huggingface/transformers, src/transformers/models/t5/modeling_t5.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.relative_attention_bias = nn.Embedding(32, w.heads, dtype=w.dtype)
        self.n_heads = w.heads
        self.o = nn.Linear(width(w), width(w), bias=False, dtype=w.dtype)

    def compute_bias(self, n: int) -> Tensor:
        device = self.relative_attention_bias.weight.device
        context = torch.arange(n, dtype=torch.long, device=device)[:, None]
        memory = torch.arange(n, dtype=torch.long, device=device)[None, :]
        values: Tensor = self.relative_attention_bias(_t5_bucket(memory - context))
        return values.permute([2, 0, 1]).unsqueeze(0)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = torch.matmul(q, k.transpose(3, 2))
        scores += self.compute_bias(q.shape[2])
        weights = nn.functional.softmax(scores.float(), dim=-1).type_as(scores)
        weights = nn.functional.dropout(weights, p=0.1, training=self.training)
        out = torch.matmul(weights, v).transpose(1, 2).contiguous()
        return self.o(out.view(q.shape[0], -1, self.n_heads * q.shape[-1]))


@module
class Deberta(nn.Module):
    """Content and position attend to one another through gather:
    huggingface/transformers, src/transformers/models/deberta_v2/modeling_deberta_v2.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.span = 32
        self.rel_embeddings = nn.Embedding(2 * self.span, width(w), dtype=w.dtype)
        self.query_proj = nn.Linear(width(w), width(w), dtype=w.dtype)
        self.key_proj = nn.Linear(width(w), width(w), dtype=w.dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        b, h, n, d = q.shape
        query, key, value = (x.reshape(-1, n, d) for x in (q, k, v))
        ids = torch.arange(n, device=q.device)
        distance = (ids[:, None] - ids[None, :]).unsqueeze(0)
        scale = math.sqrt(d * 3)
        scores = torch.bmm(query, key.transpose(-1, -2) / scale)
        rel = self.rel_embeddings.weight.unsqueeze(0)
        pos_key = heads(self.key_proj(rel), h).repeat(b, 1, 1, 1).view(b * h, -1, d)
        pos_query = heads(self.query_proj(rel), h).repeat(b, 1, 1, 1).view(b * h, -1, d)
        c2p = torch.bmm(query, pos_key.transpose(-1, -2))
        index = torch.clamp(distance + self.span, 0, self.span * 2 - 1)
        c2p = torch.gather(c2p, dim=-1, index=index.squeeze(0).expand([b * h, n, n]))
        scores = scores + c2p / scale
        p2c = torch.bmm(key, pos_query.transpose(-1, -2))
        index = torch.clamp(-distance + self.span, 0, self.span * 2 - 1)
        p2c = torch.gather(p2c, dim=-1, index=index.squeeze(0).expand([b * h, n, n]))
        scores = scores + p2c.transpose(-1, -2) / scale
        probs = torch.softmax(scores.view(b, h, n, n), dim=-1)
        context = torch.bmm(probs.view(b * h, n, n), value)
        return context.view(b, h, n, d).permute(0, 2, 1, 3).contiguous().flatten(2)


@module
class TransformerXL(nn.Module):
    """Sequence first, a memory of the last segment, and relative shift:
    kimiyoung/transformer-xl, pytorch/mem_transformer.py.
    """

    mems: Tensor
    r: Tensor

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.n_head, self.d_head = w.heads, w.head_dim
        self.qkv_net = nn.Linear(width(w), 3 * width(w), bias=False, dtype=w.dtype)
        self.r_net = nn.Linear(width(w), width(w), bias=False, dtype=w.dtype)
        self.r_w_bias = nn.Parameter(torch.randn(w.heads, w.head_dim, dtype=w.dtype))
        self.r_r_bias = nn.Parameter(torch.randn(w.heads, w.head_dim, dtype=w.dtype))
        self.register_buffer("mems", torch.randn(w.seq_len // 2, w.batch, width(w), dtype=w.dtype))
        self.register_buffer("r", torch.randn(3 * w.seq_len // 2, width(w), dtype=w.dtype))

    @staticmethod
    def _rel_shift(x: Tensor) -> Tensor:
        pad = torch.zeros((x.size(0), 1, *x.size()[2:]), device=x.device, dtype=x.dtype)
        padded = torch.cat([pad, x], dim=1)
        padded = padded.view(x.size(1) + 1, x.size(0), *x.size()[2:])
        return padded[1:].view_as(x)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = hidden(q).transpose(0, 1).contiguous()
        n, b, _ = x.shape
        chunks = torch.chunk(self.qkv_net(torch.cat([self.mems, x], 0)), 3, dim=-1)
        w_q, w_k, w_v = (c.reshape(-1, b, self.n_head, self.d_head) for c in chunks)
        w_q = w_q[-n:]
        m = w_k.size(0)
        r_k = self.r_net(self.r[:m]).view(m, self.n_head, self.d_head)
        ac = torch.einsum("ibnd,jbnd->ijbn", w_q + self.r_w_bias, w_k)
        bd = torch.einsum("ibnd,jnd->ijbn", w_q + self.r_r_bias, r_k)
        score = (ac + self._rel_shift(bd)).mul_(1 / self.d_head**0.5)
        mask = torch.triu(x.new_ones(n, m), diagonal=1 + m - n).bool()[:, :, None]
        score = score.float().masked_fill(mask[:, :, :, None], -float("inf")).type_as(score)
        prob = F.dropout(F.softmax(score, dim=1), 0.1, training=self.training)
        vec = torch.einsum("ijbn,jbnd->ibnd", prob, w_v)
        return vec.contiguous().view(n, b, -1).transpose(0, 1)


@module
class Fairseq(nn.Module):
    """Heads in the batch, products by bmm, softmax in float32:
    facebookresearch/fairseq, fairseq/modules/multihead_attention.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.num_heads, self.scaling = w.heads, w.head_dim**-0.5
        self.k_proj = nn.Linear(width(w), width(w), dtype=w.dtype)
        self.v_proj = nn.Linear(width(w), width(w), dtype=w.dtype)
        self.q_proj = nn.Linear(width(w), width(w), dtype=w.dtype)
        self.out_proj = nn.Linear(width(w), width(w), dtype=w.dtype)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key, value = (hidden(x).transpose(0, 1) for x in (query, key, value))
        n, b, size = query.shape
        q = self.q_proj(query)
        q *= self.scaling
        q, k, v = (
            x.contiguous().view(n, b * self.num_heads, -1).transpose(0, 1)
            for x in (q, self.k_proj(key), self.v_proj(value))
        )
        attn_weights = torch.bmm(q, k.transpose(1, 2))
        padding = torch.zeros(b, n, dtype=torch.bool, device=q.device)
        padding[:, -n // 8 :] = True
        attn_weights = attn_weights.view(b, self.num_heads, n, n)
        attn_weights = attn_weights.masked_fill(padding[:, None, None, :], float("-inf"))
        attn_weights = attn_weights.view(b * self.num_heads, n, n)
        attn_weights_float = F.softmax(attn_weights, dim=-1, dtype=torch.float32)
        attn_weights = attn_weights_float.type_as(attn_weights)
        attn = torch.bmm(F.dropout(attn_weights, 0.1, self.training), v)
        attn = attn.transpose(0, 1).contiguous().view(n, b, size)
        return self.out_proj(attn).transpose(0, 1)


@program
def whisper(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The scale split between Q and K, scores in float32: openai/whisper, whisper/model.py."""
    n, d = q.shape[-2:]
    mask = torch.empty(n, n, device=q.device).fill_(-torch.inf).triu_(1)
    scale = d**-0.25
    qk = (q * scale) @ (k * scale).transpose(-1, -2)
    qk = qk + mask[:n, :n]
    qk = qk.float()
    weights = F.softmax(qk, dim=-1).to(q.dtype)
    out = (weights @ v).permute(0, 2, 1, 3).flatten(start_dim=2)
    return out, qk.detach()
