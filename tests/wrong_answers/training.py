"""Wrong answers that readers typically give, and what the check must say to them."""

import torch
from torch.utils.checkpoint import checkpoint


def whole(q, k, v):
    return torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1) @ v


def unscaled(q, k, v):
    return torch.softmax(q @ k.mT, dim=-1) @ v


def loop(q, k, v):
    heads = zip(q.split(1, dim=1), k.split(1, dim=1), v.split(1, dim=1), strict=True)
    return torch.cat([whole(*head) for head in heads], dim=1)


def without_gradients(q, k, v):
    with torch.no_grad():
        return whole(q, k, v)


def keys_detached(q, k, v):
    return whole(q, k.detach(), v)


def reversed_heads(q, k, v):
    heads = zip(q.split(1, dim=1), k.split(1, dim=1), v.split(1, dim=1), strict=True)
    return torch.cat([whole(*head) for head in reversed(list(heads))], dim=1)


def checkpointed(q, k, v):
    return checkpoint(whole, q, k, v, use_reentrant=False)


def own(*, row_sums=True, scale=True, transpose=True):
    class Attention(torch.autograd.Function):
        @staticmethod
        def forward(ctx, q, k, v):
            o = whole(q, k, v)
            ctx.save_for_backward(q, k, v, o)
            return o

        @staticmethod
        def backward(ctx, do):
            q, k, v, o = ctx.saved_tensors
            p = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1)
            dp = do @ v.mT
            if row_sums:
                dp = dp - (do * o).sum(dim=-1, keepdim=True)
            ds = p * dp
            if scale:
                ds = ds / q.shape[-1] ** 0.5
            return ds @ k, (ds.mT if transpose else ds) @ q, p.mT @ do

    return Attention.apply


WRONG = [
    ("training-1", 5, "four bytes each"),
    ("training-1", 8, "what was dropped"),
    ("training-1", 12, "yes or no"),
    ("training-1", 13, "scores are not kept"),
    ("training-1", 4, "P alone"),
    ("training-1", "9 B", "expected a number of B per score"),
    ("training-2", {"A": 3, "B": 3, "C": 1, "D": 2}, r"not right for: A\. A: the program's names"),
    ("training-2", {"A": 1, "B": 2, "C": 2, "D": 1}, r"B, C, D\. B: .* C: the derivative .* D: "),
    ("training-2", [1, 3, 1, 2], "expected a dict"),
    ("training-3", {"S", "P", "dP", "dS"}, "S was freed in the forward pass.* on CUDA"),
    ("training-3", {"S", "P", "dP", "dS", "dP∘P"}, "needs P, not S$"),
    ("training-3", {"P", "dP", "dS"}, "the temporary that CUDA's"),
    ("training-3", ["P", "mask", "dP", "dS", "dP∘P"], "only dropout's backward"),
    ("training-3", {"P", "mask", "dropped P"}, "the peak comes later"),
    ("training-3", {"S", "P"}, "operation by operation"),
    ("training-4", lambda w: 96 * w.score_bytes + 144 * w.head_bytes, "exist once"),
    ("training-4", lambda w: 26 * w.score_bytes + 29 * w.head_bytes, "on a CPU"),
    ("training-4", lambda w: 51 * w.score_bytes + 29 * w.head_bytes, "P only"),
    ("training-4", lambda w: 28 * w.score_bytes + 30 * w.head_bytes, "counted twice"),
    ("training-4", lambda w: 27 * w.score_bytes + 6 * w.head_bytes, "output is kept"),
    ("training-4", lambda w: 24 * w.score_bytes + 29 * w.head_bytes, "on top of it"),
    (
        "training-5",
        {"none": 24, "all": 1, "first 12": 12, "last 12": 12},
        "none: what is kept, .* all: one P .* first 12: .* last 12: ",
    ),
    (
        "training-5",
        {"none": 27, "all": 4, "first 12": 15, "last 12": 15},
        r"not right for: last 12\. last 12: backward begins",
    ),
    (
        "training-5",
        {"none": 27, "all": 4, "first 12": 16, "last 12": 16},
        r"not right for: first 12\. first 12: backward begins",
    ),
    ("training-6", whole, r"O is right, but peak .*only one head's"),
    ("training-6", loop, r"Alive at your peak: .*P 12.*only one head's"),
    ("training-6", checkpointed, r"O is right, but peak .*only one head's"),
    ("training-6", without_gradients, "autograd can't go back from O"),
    ("training-6", keys_detached, "O is right, but dK not"),
    ("training-6", reversed_heads, "in the wrong order"),
    ("training-6", unscaled, "not scaled"),
    ("training-7", own(row_sums=False), "dS lacks the row sums: softmax's denominator"),
    ("training-7", own(scale=False), "dQ and dK lack the factor"),
    ("training-7", own(row_sums=False, scale=False), "row sums, and dQ and dK"),
    ("training-7", own(transpose=False), "O is right, but dK not"),
    ("training-7", own(), r"O is right, but peak .*compute dS in the memory of dP"),
]
