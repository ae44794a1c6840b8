"""Programs that cannot run without data, or not as they are: they ask what a tensor holds, or
are compiled to other programs. None of them may be predicted silently.
"""
# ruff: noqa: D102
# mypy: disable-error-code="no-any-return,no-untyped-call"

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention

from attnmem.corpus.entry import hidden, module, program, width
from attnmem.workload import Workload


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1) @ v


@program
def current_position(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Reads with .item() how far decoding has come: mistralai/mistral-inference,
    one_file_ref.py.
    """
    positions = torch.tensor([k.shape[2] - 2], device=q.device)
    current = int(positions[-1].item()) + 1
    return _attend(q[:, :, -1:], k[:, :, :current], v[:, :, :current])


@program
def rows_without_keys(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Asks whether any row is masked entirely: lucidrains/x-transformers,
    x_transformers/attend.py.
    """
    mask = torch.ones(q.shape[0], 1, 1, q.shape[2], dtype=torch.bool, device=q.device)
    empty = ~mask.any(dim=-1)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    if empty.any():
        out = out.masked_fill(empty[..., None], 0.0)
    return out


@program
def overflowing(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Clamps where a value is infinite: huggingface/transformers,
    src/transformers/models/t5/modeling_t5.py.
    """
    out = _attend(q, k, v)
    if torch.isinf(out).any():
        most = torch.finfo(out.dtype).max - 1000
        out = torch.clamp(out, min=-most, max=most)
    return out


@program
def unpadded(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Takes the tokens that are no padding, by nonzero: huggingface/transformers,
    src/transformers/modeling_flash_attention_utils.py.
    """
    b, h, n, d = q.shape
    mask = torch.ones(b, n, dtype=torch.int32, device=q.device)
    indices = torch.nonzero(mask.flatten(), as_tuple=False).flatten()
    q, k, v = (x.transpose(1, 2).reshape(b * n, h, d)[indices].transpose(0, 1) for x in (q, k, v))
    return _attend(q, k, v).transpose(0, 1)


@program
def packed_documents(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Finds where documents begin by a boolean index: huggingface/transformers,
    src/transformers/modeling_flash_attention_utils.py.
    """
    n = q.shape[2]
    position_ids = torch.arange(n, device=q.device) % (n // 2)
    starts = torch.arange(n, device=q.device)[position_ids == 0]
    outs = [
        _attend(*(x[:, :, start:end] for x in (q, k, v)))
        for start, end in zip(starts, [*starts[1:], n], strict=True)
    ]
    return torch.cat(outs, dim=2)


@program
def lengths_as_list(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Splits a packed sequence by lengths that are in a tensor: huggingface/transformers,
    src/transformers/models/qwen2_vl/modeling_qwen2_vl.py.
    """
    n = q.shape[2]
    cu_seqlens = torch.tensor([0, n // 3, n], device=q.device)
    lengths = cu_seqlens[1:] - cu_seqlens[:-1]
    splits = [torch.split(x, lengths.tolist(), dim=2) for x in (q, k, v)]
    outs = [_attend(*parts) for parts in zip(*splits, strict=True)]
    return torch.cat(outs, dim=2)


@program
def rolled_by_delay(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Rolls the values by what topk found: thuml/Autoformer, layers/AutoCorrelation.py."""
    n = q.shape[2]
    corr = torch.einsum("bhid,bhjd->ij", q, k).float().mean(0)
    weights, index = torch.topk(corr, int(math.log(n)), dim=-1)
    weights = torch.softmax(weights, dim=-1).to(v.dtype)
    out = torch.zeros_like(v)
    for i in range(len(index)):
        out = out + torch.roll(v, -int(index[i]), 2) * weights[i]
    return out


@program
def through_numpy(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Leaves PyTorch for NumPy and comes back: THUDM/CogView, mpu/sparse_transformer.py."""
    copy = torch.tensor(q.cpu().detach().float().numpy(), device=q.device).to(q.dtype)
    return _attend(copy, k, v)


@program
def distinct_offsets(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Asks for the different values of a tensor: facebookresearch/RAM,
    projects/mta/mta_transformer.py.
    """
    offsets = torch.zeros(q.shape[0], dtype=torch.long, device=q.device)
    chunks = torch.unique(offsets)
    return torch.cat([_attend(q, k, v) for _ in chunks], dim=2)


@module
class DetectedMask(nn.Module):
    """nn.TransformerEncoder compares its mask with a causal one: pytorch/examples,
    word_language_model/model.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width(w), w.heads, 2 * width(w), 0.2, dtype=w.dtype)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        src = hidden(q).transpose(0, 1)
        mask = torch.log(torch.tril(torch.ones(len(src), len(src)))).to(src)
        return self.encoder(src, mask=mask)


@program
def compiled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compiled before it runs: pytorch/tutorials,
    intermediate_source/scaled_dot_product_attention_tutorial.py.
    """
    return torch.compile(_attend)(q, k, v)


@program
def flex(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A score function for a kernel that is made of it: meta-pytorch/attention-gym,
    examples/benchmark.py.
    """

    def softcap(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return 30 * torch.tanh(score / 30)

    return flex_attention(q, k, v, score_mod=softcap)
