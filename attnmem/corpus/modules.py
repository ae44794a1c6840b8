"""PyTorch's own modules, and projects built of them or beside them."""
# ruff: noqa: D102
# mypy: disable-error-code="no-any-return,no-untyped-call"

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnmem.corpus.entry import heads, hidden, module, width
from attnmem.workload import Workload


@module
class Clip(nn.Module):
    """nn.MultiheadAttention, sequence first, with a float mask: openai/CLIP, clip/model.py."""

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width(w), w.heads, dtype=w.dtype)
        self.ln_1 = nn.LayerNorm(width(w), dtype=w.dtype)
        mask = torch.empty(w.seq_len, w.seq_len).fill_(float("-inf")).triu_(1)
        self.attn_mask = mask

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = hidden(q).permute(1, 0, 2)
        mask = self.attn_mask.to(dtype=x.dtype, device=x.device)
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x.permute(1, 0, 2)


@module
class ClipPooling(nn.Module):
    """One query, the mean, through the function behind nn.MultiheadAttention:
    openai/CLIP, clip/model.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.num_heads, size = w.heads, width(w)
        place = torch.randn(w.seq_len + 1, size, dtype=w.dtype) / size**0.5
        self.positional_embedding = nn.Parameter(place)
        self.k_proj = nn.Linear(size, size, dtype=w.dtype)
        self.q_proj = nn.Linear(size, size, dtype=w.dtype)
        self.v_proj = nn.Linear(size, size, dtype=w.dtype)
        self.c_proj = nn.Linear(size, size // 2, dtype=w.dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = hidden(q).permute(1, 0, 2)
        x = torch.cat([x.mean(dim=0, keepdim=True), x], dim=0)
        x = x + self.positional_embedding[:, None, :].to(x.dtype)
        biases: list[Tensor] = [self.q_proj.bias, self.k_proj.bias, self.v_proj.bias]
        x, _ = F.multi_head_attention_forward(
            query=x[:1],
            key=x,
            value=x,
            embed_dim_to_check=x.shape[-1],
            num_heads=self.num_heads,
            q_proj_weight=self.q_proj.weight,
            k_proj_weight=self.k_proj.weight,
            v_proj_weight=self.v_proj.weight,
            in_proj_weight=None,
            in_proj_bias=torch.cat(biases),
            bias_k=None,
            bias_v=None,
            add_zero_attn=False,
            dropout_p=0.0,
            out_proj_weight=self.c_proj.weight,
            out_proj_bias=self.c_proj.bias,
            use_separate_proj_weight=True,
            training=self.training,
            need_weights=False,
        )
        return x.squeeze(0)


@module
class Detr(nn.Module):
    """nn.MultiheadAttention that returns its weights, with dropout and a padding mask:
    facebookresearch/detr, models/transformer.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width(w), w.heads, dropout=0.1, dtype=w.dtype)
        self.dropout = nn.Dropout(0.1)
        self.norm1 = nn.LayerNorm(width(w), dtype=w.dtype)

    def forward(self, src: Tensor, pos: Tensor, v: Tensor) -> Tensor:
        src, pos = hidden(src).transpose(0, 1), hidden(pos).transpose(0, 1)
        padding = torch.zeros(src.shape[1], src.shape[0], dtype=torch.bool, device=src.device)
        padding[:, -9:] = True
        q = k = src + pos
        src2 = self.self_attn(q, k, value=src, attn_mask=None, key_padding_mask=padding)[0]
        src = src + self.dropout(src2)
        src = self.norm1(src)
        return src


def _encoder(w: Workload) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(width(w), w.heads, 2 * width(w), 0.2, dtype=w.dtype)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


@module
class WordLanguageModel(nn.Module):
    """Two layers of nn.TransformerEncoder, told that their mask is causal: pytorch/examples,
    word_language_model/model.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.encoder = _encoder(w)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        src = hidden(q).transpose(0, 1)
        mask = torch.log(torch.tril(torch.ones(len(src), len(src)))).to(src)
        return self.encoder(src, mask=mask, is_causal=True)


@module
def word_language_model_eval(w: Workload) -> nn.Module:
    """The same in evaluation, and batch first, where PyTorch has a fast path:
    pytorch/examples, word_language_model/model.py.
    """
    layer = nn.TransformerEncoderLayer(
        width(w), w.heads, 2 * width(w), 0.2, batch_first=True, dtype=w.dtype
    )
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()

    class Evaluated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return self.encoder(hidden(q))

    return Evaluated().eval()


@module
class Translation(nn.Module):
    """nn.Transformer, encoder and decoder, boolean masks: pytorch/examples,
    language_translation/src/model.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        size = width(w)
        options: dict[str, Any] = {"batch_first": True, "dtype": w.dtype}
        layer = nn.TransformerEncoderLayer(size, w.heads, 2 * size, 0.1, **options)
        self.transformer = nn.Transformer(
            size,
            w.heads,
            num_decoder_layers=1,
            dim_feedforward=2 * size,
            dropout=0.1,
            custom_encoder=nn.TransformerEncoder(layer, 1, enable_nested_tensor=False),
            **options,
        )

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        src, trg = hidden(k), hidden(q)
        n = trg.shape[1]
        trg_mask = torch.triu(torch.ones((n, n), device=q.device, dtype=torch.bool), diagonal=1)
        padding = torch.zeros(src.shape[:2], device=q.device, dtype=torch.bool)
        output: Tensor = self.transformer(
            src,
            trg,
            tgt_mask=trg_mask,
            tgt_is_causal=True,
            memory_is_causal=False,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        return output


@module
class Espnet(nn.Module):
    """Relative positions, shifted by a column of zeros, masked twice: espnet/espnet,
    espnet/nets/pytorch_backend/transformer/attention.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.h, self.d_k = w.heads, w.head_dim
        self.linear_q = nn.Linear(width(w), width(w), dtype=w.dtype)
        self.linear_pos = nn.Linear(width(w), width(w), bias=False, dtype=w.dtype)
        self.linear_out = nn.Linear(width(w), width(w), dtype=w.dtype)
        self.pos_bias_u = nn.Parameter(torch.empty(w.heads, w.head_dim, dtype=w.dtype))
        self.pos_bias_v = nn.Parameter(torch.empty(w.heads, w.head_dim, dtype=w.dtype))
        nn.init.xavier_uniform_(self.pos_bias_u)
        nn.init.xavier_uniform_(self.pos_bias_v)
        emb = torch.randn(1, 2 * w.seq_len - 1, width(w), dtype=w.dtype)
        self.register_buffer("pos_emb", emb)
        self.dropout = nn.Dropout(p=0.1)

    @staticmethod
    def rel_shift(x: Tensor) -> Tensor:
        zero_pad = torch.zeros((*x.size()[:3], 1), device=x.device, dtype=x.dtype)
        padded = torch.cat([zero_pad, x], dim=-1)
        padded = padded.view(*x.size()[:2], x.size(3) + 1, x.size(2))
        return padded[:, :, 1:].view_as(x)[:, :, :, : x.size(-1) // 2 + 1]

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        b, _, n, _ = q.shape
        query = self.linear_q(hidden(q)).view(b, -1, self.h, self.d_k)
        p = heads(self.linear_pos(self.pos_emb), self.h)
        q_u = (query + self.pos_bias_u).transpose(1, 2)
        q_v = (query + self.pos_bias_v).transpose(1, 2)
        matrix_ac = torch.matmul(q_u, k.transpose(-2, -1))
        matrix_bd = self.rel_shift(torch.matmul(q_v, p.transpose(-2, -1)))
        scores = (matrix_ac + matrix_bd) / math.sqrt(self.d_k)
        mask = torch.zeros(b, 1, 1, n, dtype=torch.bool, device=q.device)
        mask[..., -n // 12 :] = True
        scores = scores.masked_fill(mask, torch.finfo(scores.dtype).min)
        attn = torch.softmax(scores, dim=-1).masked_fill(mask, 0.0)
        x = torch.matmul(self.dropout(attn), v)
        x = x.transpose(1, 2).contiguous().view(b, -1, self.h * self.d_k)
        return self.linear_out(x)


@module
class Tacotron2(nn.Module):
    """Step by step, a convolution over the weights so far, tanh of sums for products:
    NVIDIA/tacotron2, model.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.query_layer = nn.Linear(width(w), 32, bias=False, dtype=w.dtype)
        self.memory_layer = nn.Linear(width(w), 32, bias=False, dtype=w.dtype)
        self.v = nn.Linear(32, 1, bias=False, dtype=w.dtype)
        self.location_conv = nn.Conv1d(2, 8, 31, padding=15, bias=False, dtype=w.dtype)
        self.location_dense = nn.Linear(8, 32, bias=False, dtype=w.dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        queries, memory = hidden(q)[:, :12], hidden(k)
        processed = self.memory_layer(memory)
        weights = memory.new_zeros(memory.shape[:2])
        total = torch.zeros_like(weights)
        mask = torch.arange(memory.shape[1], device=q.device) >= memory.shape[1] - 4
        contexts = []
        for query in queries.unbind(1):
            both = torch.cat((weights.unsqueeze(1), total.unsqueeze(1)), dim=1)
            located = self.location_dense(self.location_conv(both).transpose(1, 2))
            energies = self.v(
                torch.tanh(self.query_layer(query.unsqueeze(1)) + located + processed)
            )
            alignment = energies.squeeze(-1)
            alignment.data.masked_fill_(mask, -float("inf"))
            weights = F.softmax(alignment, dim=1)
            contexts.append(torch.bmm(weights.unsqueeze(1), memory).squeeze(1))
            total = total + weights
        return torch.stack(contexts, dim=1)
