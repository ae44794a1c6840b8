"""The exercises of the chapter with more cures."""

from attnmem.exercises.kinds import Exercise, Number
from attnmem.exercises.task import Task
from attnmem.exercises.training import GRADIENTS

CHUNK = 64

EXERCISES: tuple[Exercise, ...] = (
    Number(
        right=7,
        unit="B per score",
        mistakes={
            "that is without dropout: its mask is one byte more": 6,
            "softmax keeps its P in 32 bit, since it runs in 32 bit under autocast": 5,
            "dropout's result is cast for the product, which keeps the cast one: 2 bytes": 9,
            "that is P in 32 bit alone; dropout and the product need something, too": 4,
        },
    ),
    Task(
        # Q, K, V, O, dO, their gradients, and P, dP, dS and the temporary of 64 queries
        peak=lambda w: 8 * w.head_bytes + 4 * w.score_bytes * CHUNK // w.seq_len,
        # Each chunk reads K thrice and V twice, and adds to their gradients.
        moved=lambda w: (
            23 * w.score_bytes + 7 * w.head_bytes + 13 * w.head_bytes * w.seq_len // CHUNK
        ),
        mistakes=GRADIENTS,
        training=True,
        limit=1.34,  # twice as many queries are as good an answer
        advice="a chunk of queries in a checkpoint keeps no scores",
    ),
    Number(
        right=70.6 * (2 + 2 + 12) / 8,
        unit="GB",
        mistakes={
            "that is of weights and gradients: the optimizer has 12 bytes more": 70.6 * 4 / 8,
            "that is of weights alone": 70.6 * 2 / 8,
            "that is of all cards together": 70.6 * 16,
            "that is of the optimizer alone: weights and gradients take 4 bytes more": 70.6
            * 12
            / 8,
        },
    ),
    Number(
        right=2.5,
        unit="",
        mistakes={
            "that is the mean of the two means: the second part has fewer targets": 3.0,
            "that is the sum of the two means": 6.0,
        },
    ),
)
