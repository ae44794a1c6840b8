"""The book's pictures, drawn in one style."""

from attnmem.figures.counted import shares, traffic
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
from attnmem.figures.speed import Point, Roof, intensities, roof, rooflines
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
    "profiles",
    "roof",
    "rooflines",
    "score_matrices",
    "shares",
    "stacks",
    "tiles",
    "traffic",
]
