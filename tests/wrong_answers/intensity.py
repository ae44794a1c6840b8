"""Wrong answers that readers typically give, and what the check must say to them."""


def pv(w, tensors):
    flops = 2 * w.batch * w.heads * w.seq_len**2 * w.head_dim
    return flops / tensors


def decoding(w, elements):
    return 2 * w.heads * w.seq_len * w.head_dim / (elements * w.element_bytes)


VERDICTS = {"A": "compute", "B": "memory", "C": "compute", "D": "memory", "E": "open"}

WRONG = [
    ("intensity-1", 0.25, "4 bytes, and they move twice"),
    ("intensity-1", 0.5, "4 bytes, not 2"),
    ("intensity-1", 8, "bytes per FLOP"),
    ("intensity-1", 1 / 64, "per bit"),
    ("intensity-1", 0.625, "five operations"),
    ("intensity-1", "1/8", "expected a number of FLOP/B, got str '1/8'"),
    ("intensity-2", lambda w: pv(w, 2 * w.head_bytes), "P is read, too"),
    ("intensity-2", lambda w: pv(w, w.score_bytes), "limit for large N"),
    ("intensity-2", lambda w: pv(w, w.score_bytes + w.head_bytes), "three tensors move"),
    ("intensity-2", lambda w: pv(w, w.score_bytes + 2 * w.head_bytes) / 2, "two FLOPs"),
    ("intensity-2", lambda w: w.head_dim / (1 + 2 * w.head_dim / w.seq_len), "holds in 16 bit"),
    ("intensity-3", 154, "infinite N"),
    ("intensity-3", 312e12 / 2039e9, "infinite N"),
    ("intensity-3", 437, "with sparsity, twice"),
    ("intensity-3", 307, "with sparsity, and 2/N"),
    ("intensity-3", 10, "matrix units' work"),
    ("intensity-3", 83, "not below 2d"),
    ("intensity-3", 179, "too small"),
    ("intensity-4", VERDICTS | {"A": "memory"}, "not right for: A. .*this card's is low"),
    ("intensity-4", VERDICTS | {"C": "memory"}, "vector units' work"),
    ("intensity-4", VERDICTS | {"B": "compute", "D": "compute"}, "for: B, D. .*no d in it"),
    ("intensity-4", VERDICTS | {"E": "memory"}, "how large is S here"),
    ("intensity-4", ["memory"] * 5, "expected a dict, got list"),
    (
        "intensity-5",
        lambda w: w.score_bytes / (6 * w.score_bytes + 4 * w.head_bytes),
        "both are saved",
    ),
    ("intensity-5", lambda w: 1 / 3, "Q, K, V and O"),
    (
        "intensity-5",
        lambda w: 1 - 2 * w.score_bytes / (6 * w.score_bytes + 4 * w.head_bytes),
        "remains",
    ),
    (
        "intensity-5",
        lambda w: 2 * w.score_bytes / (4 * w.score_bytes + 4 * w.head_bytes),
        "what moves before",
    ),
    ("intensity-5", lambda w: 2 * w.score_bytes, "number of bytes"),
    (
        "intensity-6",
        lambda w: decoding(w, w.heads * (w.head_dim + w.seq_len * w.head_dim + w.seq_len)),
        "keys of its own",
    ),
    (
        "intensity-6",
        lambda w: decoding(w, w.heads * w.head_dim + w.seq_len * w.head_dim),
        "scores are written",
    ),
    ("intensity-6", lambda w: decoding(w, w.seq_len * w.head_dim), "keys alone"),
    (
        "intensity-6",
        lambda w: decoding(w, w.seq_len * w.head_dim + w.heads * w.seq_len),
        "queries are read",
    ),
    (
        "intensity-6",
        lambda w: (
            w.batch
            * decoding(w, w.batch * w.heads * (w.head_dim + w.seq_len) + w.seq_len * w.head_dim)
        ),
        "do not share keys",
    ),
    ("intensity-6", lambda w: pv(w, w.score_bytes + 2 * w.head_bytes), "whole sequence"),
]
