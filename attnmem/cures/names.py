"""What keeps a tensor longer than it is needed, or makes it once more: names, lists, copies."""
# mypy: disable-error-code="no-any-return,no-untyped-call"

import torch
import torch.nn.functional as F
from torch import Tensor

from attnmem.cures.cure import Cure

LAYERS = 4


def three_names(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Products, scores and weights each have a name, and with it their memory."""
    products = q @ k.transpose(-2, -1)
    scores = products * q.shape[-1] ** -0.5
    weights = torch.softmax(scores, dim=-1)
    return weights @ v


def no_names(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What has no name goes as soon as the next step is done."""
    return torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1) @ v


def in_place(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One N×N tensor is all: the weights are made where the scores were. Without gradients only."""
    s = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    s -= s.amax(dim=-1, keepdim=True)
    s.exp_()
    s /= s.sum(dim=-1, keepdim=True)
    return s @ v


def in_chunks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """So many queries at a time that their scores are small."""
    o = torch.empty_like(q)
    for rows, out in zip(q.split(256, dim=-2), o.split(256, dim=-2), strict=True):
        out.copy_(torch.softmax(rows @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1) @ v)
    return o


def weights_kept(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A model that returns the weights of every layer."""
    attentions = []
    for _ in range(LAYERS):
        p = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1)
        attentions.append(p)
        q = p @ v
    return q


def weights_dropped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same model when nobody asks for them."""
    for _ in range(LAYERS):
        q = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1) @ v
    return q


def _split(x: Tensor) -> Tensor:
    """Hidden states ``[B, N, H·d]``, as a projection leaves them, by heads: a view."""
    b, h, n, d = x.shape
    return x.view(b, n, h, d).transpose(1, 2)


def split_unfused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Heads are split from hidden states: bmm copies Q, Kᵀ and V if B > 1, and O is merged."""
    q, k, v = _split(q), _split(k), _split(v)
    p = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1)
    return (p @ v).transpose(1, 2).flatten(2)


def split_fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The fused kernels read split heads where they are, and write O as hidden states are."""
    q, k, v = _split(q), _split(k), _split(v)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def split_contiguous(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Copies that no fused kernel needs."""
    q, k, v = (_split(x).contiguous() for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


CURES = (
    Cure(
        name="names",
        symptom="Inference needs three N×N tensors",
        cause="a name keeps its tensor to the end of the function",
        change="drop the names; scale Q, and work in place",
        before=three_names,
        after=(no_names, in_place),
        modes=(False,),
    ),
    Cure(
        name="chunks",
        symptom="No fused kernel does what the model needs",
        cause="all rows of S exist at once",
        change="a few hundred queries at a time",
        before=no_names,
        after=(in_chunks,),
        modes=(False,),
    ),
    Cure(
        name="returned weights",
        symptom="Inference grows with the number of layers",
        cause="a list keeps the weights of every layer",
        change="ask for no weights (`output_attentions=False`)",
        before=weights_kept,
        after=(weights_dropped,),
        modes=(False,),
    ),
    Cure(
        name="split heads",
        symptom="More than the formula says, once B > 1",
        cause="products copy heads that lie apart",
        change="pass split heads to the fused call as they are",
        before=split_unfused,
        after=(split_fused,),
        modes=(False, True),
    ),
    Cure(
        name="contiguous",
        symptom="The fused call takes 4 tensors more than it needs",
        cause="`.contiguous()` copies Q, K and V, and joining the heads copies O",
        change="leave out `.contiguous()`",
        before=split_contiguous,
        after=(split_fused,),
        modes=(False, True),
    ),
)
