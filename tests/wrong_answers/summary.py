"""Wrong answers that readers typically give, and what the check must say to them."""

import math

import torch

TRUE = (
    dict.fromkeys("AC", "always") | dict.fromkeys("BDF", "sometimes") | dict.fromkeys("EG", "never")
)
ORDERS = {name: "linear" if name in "BF" else "quadratic" for name in "ABCDEF"}
BLOCK = 128


def standard(q, k, v):
    return torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), dim=-1) @ v


def halves(merge):
    """Attention to two halves of the keys, merged in some way."""

    def my_attention(q, k, v):
        outputs, logs = [], []
        for keys, values in zip(k.chunk(2, dim=-2), v.chunk(2, dim=-2), strict=True):
            s = q @ keys.mT / math.sqrt(q.shape[-1])
            outputs.append(torch.softmax(s, dim=-1) @ values)
            logs.append(torch.logsumexp(s, dim=-1, keepdim=True))
        return merge(*outputs, *logs)

    return my_attention


def tiles(rescale_sum=True, rescale_output=True, queries=True, keys=True, own=False, cat=False):
    """The tiled program, with its mistakes."""

    def blocks(n, whole):
        return [slice(i, i + BLOCK) for i in range(0, n if whole else n // BLOCK * BLOCK, BLOCK)]

    def my_attention(q, k, v):
        n = q.shape[-2]
        o = torch.zeros_like(q)
        parts = []
        for rows in blocks(n, queries):
            m = torch.full_like(q[..., rows, :1], -math.inf)
            total = torch.zeros_like(m)
            out = torch.zeros_like(q[..., rows, :])
            for columns in [rows] if own else blocks(n, keys):
                s = q[..., rows, :] @ k[..., columns, :].mT / math.sqrt(q.shape[-1])
                larger = torch.maximum(m, s.amax(dim=-1, keepdim=True))
                p = (s - larger).exp()
                shrink = (m - larger).exp()
                total = total * (shrink if rescale_sum else 1) + p.sum(dim=-1, keepdim=True)
                out = out * (shrink if rescale_output else 1) + p @ v[..., columns, :]
                m = larger
            if cat:
                parts.append(out / total)
            else:
                o[..., rows, :] = out / total
        return torch.cat(parts, dim=-2) if cat else o

    return my_attention


def ceil(w):
    return -(-w.seq_len // BLOCK)


WRONG = [
    ("summary-1", TRUE | {"B": "always", "F": "always"}, "not right for: B, F. B: compare 2S"),
    ("summary-1", TRUE | {"G": "always"}, "G: backward computes S and P again"),
    ("summary-1", TRUE | {"D": "always"}, "D: it depends on d"),
    ("summary-1", "always", "expected a dict"),
    ("summary-2", ORDERS | {"C": "linear"}, "C: there are"),
    ("summary-2", ORDERS | {"E": "linear"}, "E: N/b blocks of queries"),
    ("summary-2", ORDERS | {"D": "linear"}, "D: every query meets every key"),
    ("summary-3", 11.25, "nearly"),
    ("summary-3", 3.18, "that root belongs"),
    ("summary-3", 116288, "divide it by the other"),
    ("summary-3", 0.099, "turn the fraction over"),
    ("summary-4", halves(lambda o1, o2, a1, a2: (o1 + o2) / 2), "do not count alike"),
    ("summary-4", halves(lambda o1, o2, a1, a2: o1 + o2), "no average"),
    ("summary-4", halves(lambda o1, o2, a1, a2: (a1 * o1 + a2 * o2) / (a1 + a2)), "logarithms"),
    (
        "summary-4",
        halves(lambda o1, o2, a1, a2: a1.exp() * o1 + a2.exp() * o2),
        "divide by the sum",
    ),
    ("summary-4", standard, "one half after the other"),
    ("summary-5", lambda w: 4 * w.head_bytes, "reads K and V again"),
    ("summary-5", lambda w: (2 + 2 * w.seq_len / BLOCK) * w.head_bytes, "may be smaller"),
    ("summary-5", lambda w: (1 + 2 * ceil(w)) * w.head_bytes, "O is written"),
    ("summary-5", lambda w: 6 * w.score_bytes + 4 * w.head_bytes, "stay on the chip"),
    ("summary-6", tiles(rescale_sum=False, rescale_output=False), "in the two sums"),
    ("summary-6", tiles(rescale_sum=False), "sum of exponentials must shrink"),
    ("summary-6", tiles(rescale_output=False), "output so far must shrink"),
    ("summary-6", tiles(keys=False), "block of keys is smaller"),
    ("summary-6", tiles(queries=False), "block of queries is smaller"),
    ("summary-6", tiles(own=True), "not only its own"),
    ("summary-6", tiles(cat=True), "into one tensor"),
    ("summary-6", standard, "into one tensor"),
]
