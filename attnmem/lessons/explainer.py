"""What the box on the page of messages needs to answer as :mod:`attnmem.messages` does."""

from typing import Any

import torch

from attnmem.messages import answer, forms, odds, shapes
from attnmem.messages.reports import REPORTS
from attnmem.prediction import allocator


def data() -> dict[str, Any]:
    """Patterns, sizes, models and sentences: all that is not a rule."""
    return {
        "tried": [[pattern, rule.__name__[1:]] for pattern, rule in forms.TRIED.items()],
        "shape": forms.SHAPE,
        "state": forms.STATE,
        "backend": [*forms.BACKEND.items()],
        "itemsize": {
            name: dtype.itemsize
            for name, dtype in vars(torch).items()
            if isinstance(dtype, torch.dtype)
        },
        "rounding": {
            "small": allocator.SMALL,
            "large": allocator.LARGE,
            "buffer_small": allocator.BUFFER_SMALL,
            "buffer_large": allocator.BUFFER_LARGE,
            "first": forms.FIRST_ROUNDING,
            "metal": forms.METAL_ROUNDING,
        },
        "kinds": [vars(kind) for kind in shapes.KINDS],
        "families": [_family(family) | {"common": family.common} for family in shapes.families()],
        "images": [_family(image) for image in shapes.images()],
        "batches": shapes.BATCHES,
        "lengths": shapes.LENGTHS,
        "widths": shapes.WIDTHS,
        "near": odds.NEAR,
        "round": [*odds.ROUND],
        "limits": {
            "too_many": answer.TOO_MANY,
            "counts": answer.COUNTS,
            "likely": answer.LIKELY,
            "nothing": answer.NOTHING,
            "few": answer.FEW,
            "shown": answer.SHOWN,
        },
        "sentences": answer.SENTENCES,
        "examples": forms.EXAMPLES,
        "message": REPORTS[0].message,
    }


def _family(family: shapes.Family) -> dict[str, Any]:
    return {name: value for name, value in vars(family).items() if name != "source"}


def cures() -> tuple[str, ...]:
    """The sections that an answer may lead to, by their labels."""
    others = "what-to-do-fragmentation", "what-to-do-first"
    return tuple(dict.fromkeys([*(kind.cure for kind in shapes.KINDS), *others]))
