"""The exercises of the chapter training."""

import torch

from attnmem.exercises.kinds import Choice, Exercise, Function, Number
from attnmem.exercises.task import Task, row_bytes

LAYERS = 24


def _softmax_and_scale(
    q: torch.Tensor, k: torch.Tensor, *, constant_sums: bool = False, constant_scale: bool = False
) -> torch.Tensor:
    """P, whose gradients leave something out: the sums of its rows, or the scale."""
    s = q @ k.mT
    scaled = s * q.shape[-1] ** -0.5
    e = torch.exp(s + (scaled - s).detach() if constant_scale else scaled)
    total = e.sum(dim=-1, keepdim=True)
    return e / (total.detach() if constant_sums else total)


GRADIENTS = {
    "dQ and dK lack the factor 1/√d": lambda q, k, v: (
        _softmax_and_scale(q, k, constant_scale=True) @ v
    ),
    "dS lacks the row sums: softmax's denominator depends on the scores too": lambda q, k, v: (
        _softmax_and_scale(q, k, constant_sums=True) @ v
    ),
    "dS lacks the row sums, and dQ and dK the factor 1/√d": lambda q, k, v: (
        _softmax_and_scale(q, k, constant_sums=True, constant_scale=True) @ v
    ),
    "the scores are not scaled by 1/√d": lambda q, k, v: (q @ k.mT).softmax(-1) @ v,
}

EXERCISES: tuple[Exercise, ...] = (
    Number(
        right=9,
        unit="B per score",
        mistakes={
            "in f32, P and the dropped P take four bytes each; backward needs the mask and both": 5,
            "that is P and the dropped P; backward also needs to know what was dropped": 8,
            "that is P alone: dropout's backward and that of the product need more": 4,
            "the mask says yes or no: one byte per score, in any dtype": 12,
            "scores are not kept: softmax's backward needs P only": 13,
        },
    ),
    Choice(
        right={"A": 1, "B": 3, "C": 1, "D": 2},
        mistakes={
            "A": "A: the program's names end with it; only what autograd needs stays.",
            "B": "B: softmax's backward needs P in f32, which is two S, and the product another "
            "tensor: P in f16.",
            "C": "C: the derivative of the sigmoid is P(1 − P): P is enough.",
            "D": "D: gelu's derivative can't be had from its value: two inputs can have the same. "
            "So autograd keeps the input, beside the result for the product.",
        },
    ),
    Choice(
        right={"P", "dP", "dS", "dP∘P"},
        mistakes={
            frozenset({"P", "dP", "dS"}): "that is the peak without the temporary that CUDA's "
            "softmax backward makes",
            frozenset({"S", "P", "dP", "dS"}): "S was freed in the forward pass: softmax's "
            "backward needs P, not S; but on CUDA it makes a temporary",
            frozenset({"S", "P", "dP", "dS", "dP∘P"}): "S was freed in the forward pass: "
            "softmax's backward needs P, not S",
            frozenset({"P", "mask", "dropped P", "dP", "dS", "dP∘P"}): "backward runs in reverse: "
            "which operations have finished when softmax's backward begins?",
            frozenset({"P", "mask", "dP", "dS", "dP∘P"}): "only dropout's backward needs the "
            "mask, and it has finished when softmax's begins",
            frozenset({"P", "mask", "dropped P"}): "that is what is kept between forward and "
            "backward: the peak comes later",
        },
        hint="go through backward, operation by operation: what does each need, allocate and free?",
    ),
    Function(
        right=lambda w: (LAYERS + 3) * w.score_bytes + (LAYERS + 5) * w.head_bytes,
        mistakes={
            "temporaries of backward exist once, for the layer at work, not in each layer": (
                lambda w: 4 * LAYERS * w.score_bytes + 6 * LAYERS * w.head_bytes
            ),
            "that is the peak on a CPU: CUDA's softmax backward makes one more tensor": (
                lambda w: (LAYERS + 2) * w.score_bytes + (LAYERS + 5) * w.head_bytes
            ),
            "each layer's output is kept too: it is the query of the next": (
                lambda w: (LAYERS + 3) * w.score_bytes + 6 * w.head_bytes
            ),
            "each layer keeps P only, not S and P": (
                lambda w: (2 * LAYERS + 3) * w.score_bytes + (LAYERS + 5) * w.head_bytes
            ),
            "one of the layers is the one at work: its P is counted twice": (
                lambda w: (LAYERS + 4) * w.score_bytes + (LAYERS + 6) * w.head_bytes
            ),
            "that is what is kept; backward allocates on top of it": (
                lambda w: LAYERS * w.score_bytes + (LAYERS + 5) * w.head_bytes
            ),
        },
    ),
    Choice(
        right={"none": 27, "all": 4, "first 12": 15, "last 12": 16},
        mistakes={
            "none": "none: what is kept, and three S more for the layer at work.",
            "all": "all: one P at a time, and backward's three S with it.",
            "first 12": "first 12: backward begins at the last layer, which has kept its P: it is "
            "one of the twelve.",
            "last 12": "last 12: backward begins at the last layer, which computes its P again "
            "while the twelve kept ones wait.",
        },
    ),
    Task(
        # One head's P, dP, dS and temporary; and Q, K, V, O, dO with all heads' gradients but one's
        peak=lambda w: (
            4 * w.score_bytes // w.heads + 8 * w.head_bytes - 2 * w.head_bytes // w.heads
        ),
        moved=lambda w: 23 * w.score_bytes + 22 * w.head_bytes,
        mistakes={
            "the heads are in the wrong order": lambda q, k, v: (
                (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
            ).flip(1),
            **GRADIENTS,
        },
        training=True,
        limit=1.09,  # other ways to cut and join the heads need up to one X more
        advice="only one head's N×N tensors need to be alive at a time",
    ),
    Task(
        # P and dP; Q, K, V, O, dO, dV and dO∘O; two numbers kept for each row, and its sum of dO∘O
        peak=lambda w: 2 * w.score_bytes + 7 * w.head_bytes + 3 * row_bytes(w),
        moved=lambda w: 32 * w.score_bytes + 18 * w.head_bytes + 8 * row_bytes(w),
        mistakes=GRADIENTS,
        training=True,
        limit=1.02,  # room for another tensor or two of N×d, not of N×N
        advice="keep tensors of N×d and rows only, and compute dS in the memory of dP",
    ),
)
