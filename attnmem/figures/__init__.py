"""The book's pictures, drawn in one style."""

from attnmem.figures.allocator import segments
from attnmem.figures.attention import matrices, shapes
from attnmem.figures.bands import profiles
from attnmem.figures.blocks import across, block_traffic, tiles
from attnmem.figures.counted import over_roof, shares, traffic
from attnmem.figures.levels import hierarchy
from attnmem.figures.memory import (
    ledger,
    lifetimes,
    live,
    memory_bars,
    memory_curves,
    peaks,
    stacks,
)
from attnmem.figures.programs import Peak, program_peaks
from attnmem.figures.ranks import balance, held, links, rank_peaks
from attnmem.figures.speed import Point, Roof, intensities, roof, rooflines
from attnmem.figures.tokens import over_bytes, pages, programs_at_work, step_bytes, token_cost

__all__ = [
    "Peak",
    "Point",
    "Roof",
    "across",
    "balance",
    "block_traffic",
    "held",
    "hierarchy",
    "intensities",
    "ledger",
    "lifetimes",
    "links",
    "live",
    "matrices",
    "memory_bars",
    "memory_curves",
    "over_bytes",
    "over_roof",
    "pages",
    "peaks",
    "profiles",
    "program_peaks",
    "programs_at_work",
    "rank_peaks",
    "roof",
    "rooflines",
    "segments",
    "shapes",
    "shares",
    "stacks",
    "step_bytes",
    "tiles",
    "token_cost",
    "traffic",
]
