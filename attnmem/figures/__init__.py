"""The book's pictures, drawn in one style."""

from attnmem.figures.attention import matrices, shapes
from attnmem.figures.memory import (
    lifetimes,
    live,
    memory_bars,
    memory_curves,
    peaks,
    stacks,
)
from attnmem.figures.speed import Point, Roof, intensities, rooflines, traffic

__all__ = [
    "Point",
    "Roof",
    "intensities",
    "lifetimes",
    "live",
    "matrices",
    "memory_bars",
    "memory_curves",
    "peaks",
    "rooflines",
    "shapes",
    "stacks",
    "traffic",
]
