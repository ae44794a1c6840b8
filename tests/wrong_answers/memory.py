"""Wrong answers that readers typically give, and what the check must say to them."""

import torch

from attnmem.programs import flash_sdpa


def unscaled(q, k, v):
    return torch.softmax(q @ k.mT, dim=-1) @ v


def along_queries(q, k, v):
    return torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-2) @ v


def not_in_place(q, k, v):
    return torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1) @ v


def last_block_missing(q, k, v):
    o = torch.zeros_like(q)
    for start in range(0, q.shape[-2] - 255, 256):
        rows = slice(start, start + 256)
        o[..., rows, :] = not_in_place(q[..., rows, :], k, v)
    return o


WRONG = [
    ("memory-1", 8192**2 * 2 / 1e9, "one head"),
    ("memory-1", 8 * 8192**2 * 2 / 1e9, "heads of keys are fewer"),
    ("memory-1", 32 * 8192**2 * 4 / 1e9, "one of S and P, in 16 bit"),
    ("memory-1", 32 * 8192**2 / 1e9, "has no e"),
    ("memory-1", 32 * 8192**2 * 2, "three steps of k, M, G"),
    ("memory-1", 32 * 8192**2 * 2 / 2**30, "1 GB is 10⁹ bytes"),
    ("memory-1", "4 GB", "expected a number of GB, got str '4 GB'"),
    ("memory-2", lambda w: 2 * w.score_bytes + 4 * w.head_bytes, "keeps a name"),
    ("memory-2", lambda w: 3 * w.score_bytes + 3 * w.head_bytes, "O is alive too"),
    (
        "memory-2",
        lambda w: (3 * w.score_bytes + 4 * w.head_bytes) / w.heads,
        "by a factor of H",
    ),
    ("memory-3", lambda w: 99 * w.head_dim, "N/2d is to be 99"),
    ("memory-3", lambda w: 2 * w.head_dim, "half of the bytes"),
    ("memory-3", lambda w: 396 * w.head_dim, "S and P are two"),
    ("memory-4", unscaled, "not scaled"),
    ("memory-4", along_queries, "along the keys"),
    ("memory-4", not_in_place, r"O is right, but peak .*Alive at your peak: Q, K, V, bmm, S"),
    ("memory-5", not_in_place, "fewer queries at a time"),
    ("memory-5", last_block_missing, "some entry is off"),
    ("memory-5", flash_sdpa, "PyTorch's own attention"),
    ("memory-5", unscaled, "some entry is off"),
]
