"""Attention in tiles: S is made a block at a time, and never held.

``statistics`` of rows that can be merged, the program ``attention``, its ``costs`` in closed form,
and the same program as one ``kernel`` for GPUs.
"""

from attnmem.tiles.attention import tiled_attention
from attnmem.tiles.statistics import Rows, attend, finish, merge

__all__ = ["Rows", "attend", "finish", "merge", "tiled_attention"]
