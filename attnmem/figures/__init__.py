"""The book's pictures, drawn in one style."""

from attnmem.figures.allocator import segments
from attnmem.figures.attention import matrices, shapes
from attnmem.figures.memory import (
    lifetimes,
    live,
    memory_bars,
    memory_curves,
    peaks,
    stacks,
)
from attnmem.figures.programs import Peak, program_peaks
from attnmem.figures.speed import Point, Roof, intensities, rooflines, traffic

__all__ = [
    "Peak",
    "Point",
    "Roof",
    "intensities",
    "lifetimes",
    "live",
    "matrices",
    "memory_bars",
    "memory_curves",
    "peaks",
    "program_peaks",
    "rooflines",
    "segments",
    "shapes",
    "stacks",
    "traffic",
]
