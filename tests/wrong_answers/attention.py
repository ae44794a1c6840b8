"""Wrong answers that readers typically give, and what the check must say to them."""

import math

import torch
import torch.nn.functional as F


def scores(q, k):
    return q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])


def future(q):
    n = q.shape[-2]
    return torch.ones(n, n, dtype=torch.bool, device=q.device).triu(1)


def overflowing(q, k, v):
    e = torch.exp(scores(q, k) * 1000)
    return e / e.sum(dim=-1, keepdim=True) @ v


def one_maximum_for_all(q, k, v):
    s = scores(q, k) * 1000
    e = torch.exp(s - s.max())
    return e / e.sum(dim=-1, keepdim=True) @ v


def not_normalised(q, k, v):
    s = scores(q, k) * 1000
    return torch.exp(s - s.amax(dim=-1, keepdim=True)) @ v


def upside_down(q, k, v):
    return torch.softmax(scores(q, k).masked_fill(future(q).T, -math.inf), dim=-1) @ v


def zeros(q, k, v):
    return torch.softmax(torch.tril(scores(q, k)), dim=-1) @ v


def after_softmax(q, k, v):
    return torch.softmax(scores(q, k), dim=-1).masked_fill(future(q), 0) @ v


def not_its_own(q, k, v):
    mask = torch.ones_like(future(q)).triu()
    return torch.softmax(scores(q, k).masked_fill(mask, -math.inf), dim=-1) @ v


def online(rescale_total, rescale_output):
    def attention(q, k, v):
        m = torch.full_like(q[..., :1], -math.inf)
        total, o = torch.zeros_like(m), torch.zeros_like(q)
        for keys, values in zip(k.split(128, dim=-2), v.split(128, dim=-2), strict=True):
            s = scores(q, keys)
            larger = torch.maximum(m, s.amax(dim=-1, keepdim=True))
            shrink = torch.exp(m - larger)
            e = torch.exp(s - larger)
            total = total * shrink**rescale_total + e.sum(dim=-1, keepdim=True)
            o = o * shrink**rescale_output + e @ values
            m = larger
        return o / total

    return attention


def mean_of_blocks(q, k, v):
    pairs = list(zip(k.split(128, dim=-2), v.split(128, dim=-2), strict=True))
    return sum(torch.softmax(scores(q, a), dim=-1) @ b for a, b in pairs) / len(pairs)


def whole_rows(q, k, v):
    return torch.softmax(scores(q, k), dim=-1) @ v


WRONG = [
    ("attention-1", 96 * 2048**2 / 1e6, "one sequence"),
    ("attention-1", 8 * 2048**2 / 1e6, "one head: every head"),
    ("attention-1", 8 * 96 * 2048 * 128 / 1e6, "pairs of tokens"),
    ("attention-1", 8 * 96 * 2048 * 2049 / 2 / 1e6, "masks them then"),
    ("attention-1", 8 * 96 * 2048**2, "in millions"),
    (
        "attention-2",
        {"A": "flatter", "B": "sharper", "C": "same", "D": "uniform", "E": "same"},
        r"not right for: A, B\. A: without the division",
    ),
    (
        "attention-2",
        {"A": "sharper", "B": "flatter", "C": "sharper", "D": "same", "E": "sharper"},
        r"for: C, D, E\. C: the vector adds the same number",
    ),
    ("attention-2", {"A": "sharper"}, "not right for: B, C, D, E"),
    ("attention-2", "sharper", "expected a dict"),
    ("attention-3", lambda w: math.e / (math.e + w.seq_len - 1), "scores are −1, not 0"),
    ("attention-3", lambda w: 1.0, "infinite difference"),
    ("attention-3", lambda w: math.e / (math.e + w.seq_len / math.e), "N − 1 others"),
    ("attention-3", lambda w: 1 / w.seq_len, "average weight"),
    ("attention-4", overflowing, "subtract the row's largest score"),
    ("attention-4", one_maximum_for_all, "each row's own maximum"),
    ("attention-4", not_normalised, "must sum to 1"),
    ("attention-4", F.scaled_dot_product_attention, "not multiplied by 1000"),
    ("attention-5", upside_down, "upside down"),
    ("attention-5", zeros, "a score of 0"),
    ("attention-5", after_softmax, "do not sum to 1"),
    ("attention-5", not_its_own, "its own key"),
    ("attention-5", whole_rows, "there is no mask"),
    ("attention-6", online(False, False), "must be multiplied by"),
    ("attention-6", online(False, True), "the sum of exponentials must shrink, too"),
    ("attention-6", online(True, False), "the output so far must shrink, too"),
    ("attention-6", mean_of_blocks, "blocks do not count alike"),
    ("attention-6", whole_rows, r"O is right, but peak .*let go of each block"),
]
