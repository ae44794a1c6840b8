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
from attnmem.figures.speed import Point, Roof, intensities, rooflines, traffic
from attnmem.figures.tiles import across, block_traffic, tiles

__all__ = [
    "Point",
    "Roof",
    "across",
    "block_traffic",
    "intensities",
    "lifetimes",
    "live",
    "memory_bars",
    "memory_curves",
    "peaks",
    "rooflines",
    "score_matrices",
    "stacks",
    "tiles",
    "traffic",
]
