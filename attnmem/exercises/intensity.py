"""The exercises of the chapter intensity."""

import math

from attnmem.catalog import accelerator
from attnmem.exercises.kinds import Choice, Exercise, Function, Number
from attnmem.roofline import ridge_point
from attnmem.workload import Workload

# Exercise 3: in 16 bit, 1/d + 2/N is the inverse of the intensity.
SEQ_LEN = 2048
A100 = accelerator("A100 80 GB SXM4")
POINT = ridge_point(A100, matrix=True)


def _head_dim(inverse: float) -> float:
    return 1 / (inverse - 2 / SEQ_LEN)


def _product(w: Workload, *terms: float) -> float:
    """FLOPs per byte of a product in which each two FLOPs move the sum of ``terms`` in elements."""
    return 2 / w.element_bytes / sum(terms)


EXERCISES: tuple[Exercise, ...] = (
    Number(
        right=1 / 8,
        unit="FLOP/B",
        mistakes={
            "in f32 an entry has 4 bytes, and they move twice: read, and written": 1 / 4,
            "in f32 an entry has 4 bytes, not 2; they are read, and written": 1 / 2,
            "those are bytes per FLOP: turn the fraction over": 8,
            "that is FLOPs per bit: 8 bits are a byte": 1 / 64,
            "that is softmax's, with five operations per entry": 5 / 8,
        },
    ),
    Function(
        right=lambda w: _product(w, 1 / w.head_dim, 2 / w.seq_len),
        mistakes={
            "P is read, too, and it is the largest of the three": (
                lambda w: w.seq_len / w.element_bytes
            ),
            "V is read, and O is written, too: that is the limit for large N": (
                lambda w: 2 * w.head_dim / w.element_bytes
            ),
            "three tensors move: P and V are read, and O is written": (
                lambda w: _product(w, 1 / w.head_dim, 1 / w.seq_len)
            ),
            "a multiplication and an addition are two FLOPs": (
                lambda w: _product(w, 1 / w.head_dim, 2 / w.seq_len) / 2
            ),
            "that holds in 16 bit; in general e, the bytes of an element, is in it": (
                lambda w: 1 / (1 / w.head_dim + 2 / w.seq_len)
            ),
        },
    ),
    Number(
        right=math.ceil(_head_dim(1 / POINT)),
        exact=True,
        unit="dimensions",
        mistakes={
            "that is the balance point, as for infinite N: here 2/N counts": POINT + 0.5,
            "that rate is with sparsity, twice as high as the dense one": _head_dim(0.5 / POINT),
            "that rate is with sparsity, and 2/N counts": 2 * POINT + 0.5,
            "products on 16-bit inputs are the matrix units' work, not the vector units'": (
                math.ceil(_head_dim(1 / ridge_point(A100, matrix=False)))
            ),
            "in 16 bit e is 2, and the intensity stays below d, not below 2d": (
                math.ceil(_head_dim(2 / POINT))
            ),
        },
    ),
    Choice(
        right={"A": "compute", "B": "memory", "C": "compute", "D": "memory", "E": "open"},
        mistakes={
            "A": "A: not all products are below the balance point; this card's is low.",
            "B": "B: d/(1 + 2d/N) against the dense rate over the bandwidth of this card.",
            "C": "C: products in f32 are the vector units' work; they have a balance point, too.",
            "D": "D: softmax's intensity has no d in it.",
            "E": "E: how large is S here, and where does the step find it?",
        },
    ),
    Function(
        right=lambda w: w.score_bytes / (3 * w.score_bytes + 2 * w.head_bytes),
        mistakes={
            "the scaling reads S and writes S: both are saved": (
                lambda w: w.score_bytes / (6 * w.score_bytes + 4 * w.head_bytes)
            ),
            "nearly: that forgets what Q, K, V and O move": lambda w: 1 / 3,
            "that is the share that remains": (
                lambda w: (
                    (2 * w.score_bytes + 2 * w.head_bytes) / (3 * w.score_bytes + 2 * w.head_bytes)
                )
            ),
            "divide by what moves before, not by what remains": (
                lambda w: w.score_bytes / (2 * w.score_bytes + 2 * w.head_bytes)
            ),
            "that is a number of bytes; the share is it over all bytes moved": (
                lambda w: 2 * w.score_bytes
            ),
        },
    ),
    Function(
        right=lambda w: _product(w, 1 / w.heads, 1 / w.head_dim, 1 / w.seq_len),
        mistakes={
            "there each head of queries has keys of its own; here they share them": (
                lambda w: _product(w, 1, 1 / w.head_dim, 1 / w.seq_len)
            ),
            "the scores are written, too": lambda w: _product(w, 1 / w.heads, 1 / w.seq_len),
            "that counts the keys alone: queries are read, and scores are written": (
                lambda w: _product(w, 1 / w.heads)
            ),
            "the queries are read, too": lambda w: _product(w, 1 / w.heads, 1 / w.head_dim),
            "sequences do not share keys: each has its own": (
                lambda w: _product(w, 1 / (w.batch * w.heads), 1 / w.head_dim, 1 / w.seq_len)
            ),
            "that is a whole sequence of queries: here each head has one": (
                lambda w: _product(w, 1 / w.head_dim, 2 / w.seq_len)
            ),
            "a multiplication and an addition are two FLOPs": (
                lambda w: _product(w, 1 / w.heads, 1 / w.head_dim, 1 / w.seq_len) / 2
            ),
            "that holds in 16 bit; in general e, the bytes of an element, is in it": (
                lambda w: 1 / (1 / w.heads + 1 / w.head_dim + 1 / w.seq_len)
            ),
        },
    ),
)
