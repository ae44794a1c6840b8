"""The book's pictures, drawn in one style."""

from attnmem.figures.memory import (
    lifetimes,
    live,
    memory_bars,
    memory_curves,
    peaks,
    score_matrices,
    stacks,
)
from attnmem.figures.profiles import profiles
from attnmem.figures.speed import Point, Roof, intensities, rooflines, traffic

__all__ = [
    "Point",
    "Roof",
    "intensities",
    "lifetimes",
    "live",
    "memory_bars",
    "memory_curves",
    "peaks",
    "profiles",
    "rooflines",
    "score_matrices",
    "stacks",
    "traffic",
]
