"""The exercises of the chapter on what to do."""

from attnmem.exercises.kinds import Choice, Exercise, Function

BLOCKS = 32

EXERCISES: tuple[Exercise, ...] = (
    Choice(
        right={"A": "fused", "B": "math", "C": "math", "D": "math", "E": "fused"},
        mistakes={
            "A": "A: nothing is in the way: 16 bit, and a flag instead of a mask.",
            "B": "B: in 32 bit no fused kernel takes groups.",
            "C": "C: flash takes no mask, and 8 does not divide 100, which the others want.",
            "D": "D: every fused kernel wants four dimensions.",
            "E": "E: the efficient kernel takes 32 bit, and a mask; 4 divides 80.",
        },
    ),
    Choice(
        right={"A": "logits", "B": "scores", "C": "fragmentation"},
        mistakes={
            "A": "A: B·N·vocabulary·4 bytes are 12.27 GiB.",
            "B": "B: B·H·N²·2 bytes are 24 GiB: one S.",
            "C": "C: little was asked for, and a hundred times as much was reserved and free.",
        },
    ),
    Function(
        right=lambda w: BLOCKS * w.head_bytes,
        mistakes={
            "the output of the last block is the input of none": (
                lambda w: (BLOCKS + 1) * w.head_bytes
            ),
            "the input of the first block counts, too": lambda w: (BLOCKS - 1) * w.head_bytes,
            "Q, K and V are made inside the block, and made again: its input alone is kept": (
                lambda w: 3 * BLOCKS * w.head_bytes
            ),
            "no scores are kept: they are inside the checkpoint": (
                lambda w: BLOCKS * (w.head_bytes + w.score_bytes)
            ),
        },
    ),
    Choice(
        right={"A": "checkpoint", "B": "no_grad", "C": "fused", "D": "loss"},
        mistakes={
            "A": "A: each layer keeps its tensors: let each block keep its input alone.",
            "B": "B: without it each layer keeps its tensors for a backward pass that never comes.",
            "C": "C: what grows with the square is S and P, and a fused kernel stores neither.",
            "D": "D: the logits are what is large: some hundred tokens of the loss at a time.",
        },
    ),
)
