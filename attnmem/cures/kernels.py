"""What keeps scaled_dot_product_attention from its fused kernels, and the way round each."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnmem.cures.cure import Cure, workloads
from attnmem.workload import Workload


def unfused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as the formula says it."""
    p = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1)
    return p @ v


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same in one call."""
    return F.scaled_dot_product_attention(q, k, v)


def unfused_dropout(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Weights are dropped as models in training do."""
    p = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1)
    return F.dropout(p, 0.1) @ v


def fused_dropout(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The kernel drops them, and makes the same choice again in backward."""
    return F.scaled_dot_product_attention(q, k, v, dropout_p=0.1)


def three_dimensions(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Batch and heads in one dimension: no fused kernel takes ``[B·H, N, d]``."""
    shape = q.shape
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).view(shape)


def four_dimensions(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``[1, B·H, N, d]`` is enough."""
    shape = q.shape
    q, k, v = (x.flatten(0, 1).unsqueeze(0) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).view(shape)


def full_float_mask(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A number for each score of each head: the mask is as large as S, and made twice."""
    future = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).triu(1)
    mask = torch.zeros(*q.shape[:-1], k.shape[-2], dtype=q.dtype, device=q.device)
    mask = mask.masked_fill(future, float("-inf"))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def bool_mask(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A truth value for each pair of positions, which all heads share."""
    past = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=past)


def causal_flag(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """No mask: the kernel knows which positions are later."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class LearnedSlopes(nn.Module):
    """ALiBi's slopes as a parameter: the mask needs a gradient, and with it memory in backward."""

    needs_grad = True

    def __init__(self, w: Workload) -> None:
        super().__init__()
        slopes = 2.0 ** (-8 / w.heads * torch.arange(1, w.heads + 1))
        self.slopes = nn.Parameter(slopes.to(w.dtype), requires_grad=self.needs_grad)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention with a penalty on distance."""
        place = torch.arange(q.shape[-2], device=q.device)
        distance = (place - place[:, None]).abs().to(q.dtype)
        mask = self.slopes[:, None, None] * -distance
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask[None])


class FixedSlopes(LearnedSlopes):
    """The slopes that the paper fixes: nothing to learn, nothing to keep."""

    needs_grad = False


def grouped_in_float32(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Four queries share a head of K and V: in 32 bit no fused kernel takes such groups."""
    k, v = k[:, ::4], v[:, ::4]
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def repeated_in_float32(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """K and V are repeated, which costs 2X, and the efficient kernel takes them."""
    k, v = (x[:, ::4].repeat_interleave(4, dim=1) for x in (k, v))
    return F.scaled_dot_product_attention(q, k, v)


def repeated_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """K and V are repeated for each head of Q, as most models write it."""
    k, v = (x[:, ::4].repeat_interleave(4, dim=1) for x in (k, v))
    return F.scaled_dot_product_attention(q, k, v)


def shared_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """In 16 bit the kernel takes the groups as they are."""
    return F.scaled_dot_product_attention(q, k[:, ::4], v[:, ::4], enable_gqa=True)


def masked_odd_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A head dimension that 8 does not divide, and a mask: the only kernel left is unfused."""
    past = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=past)


def padded_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Zeros fill the head to a multiple of 8; the scale is of the true d."""
    d = q.shape[-1]
    lengths = q.shape[-2], k.shape[-2]
    past = torch.ones(lengths, dtype=torch.bool, device=q.device).tril()
    q, k, v = (F.pad(x, (0, -d % 8)) for x in (q, k, v))
    options = {"attn_mask": past, "scale": d**-0.5}
    return F.scaled_dot_product_attention(q, k, v, **options)[..., :d]


CURES = (
    Cure(
        name="fused kernel",
        symptom="Out of memory at a long sequence; the peak grows with N²",
        cause="S and P are written to memory",
        change="call `F.scaled_dot_product_attention`",
        before=unfused,
        after=(fused,),
        modes=(False, True),
    ),
    Cure(
        name="dropout",
        symptom="Training with dropout needs 5 bytes per score",
        cause="the weights, the choice and what is left of them are kept",
        change="`dropout_p` of the fused call",
        before=unfused_dropout,
        after=(fused_dropout,),
        modes=(True,),
        random=True,
    ),
    Cure(
        name="dimensions",
        symptom="The fused call needs twice what attention by hand needs",
        cause="tensors of 3 dimensions: every fused kernel wants 4",
        change="add a batch dimension: `x.unsqueeze(0)`",
        before=three_dimensions,
        after=(four_dimensions,),
        modes=(False, True),
    ),
    Cure(
        name="mask",
        symptom="The fused call needs memory that grows with N²",
        cause="the mask has a float for each score of each head",
        change="a boolean `[N, N]`, or `is_causal=True`",
        before=full_float_mask,
        after=(bool_mask, causal_flag),
        modes=(False, True),
    ),
    Cure(
        name="mask with a gradient",
        symptom="Backward needs more than forward, and grows with N²",
        cause="the mask needs a gradient",
        change="`detach()` the mask",
        before=LearnedSlopes,
        after=(FixedSlopes,),
        modes=(True,),
    ),
    Cure(
        name="groups in 16 bit",
        symptom="Grouped heads save nothing",
        cause="`repeat_interleave` makes K and V as large as Q",
        change="`enable_gqa=True`, without repeating",
        before=repeated_heads,
        after=(shared_heads,),
        modes=(False, True),
    ),
    Cure(
        name="groups in 32 bit",
        symptom="In 32 bit `enable_gqa=True` needs memory that grows with N²",
        cause="in 32 bit no fused kernel takes groups",
        change="repeat K and V (`repeat_interleave`)",
        before=grouped_in_float32,
        after=(repeated_in_float32,),
        workloads=workloads(dtype="float32"),
        modes=(False, True),
    ),
    Cure(
        name="odd head dimension",
        symptom="With a mask the fused call needs twice what attention by hand needs",
        cause="8 does not divide d: no fused kernel takes both",
        change="pad d with zeros, and keep the scale",
        before=masked_odd_head,
        after=(padded_head,),
        workloads=workloads(head_dim=60),
        modes=(False, True),
    ),
)
