"""Attention whose sequence is spread over several GPUs: each rank holds a part of Q, K and V.

``transport`` moves blocks of K and V between ranks, ``blocks`` computes with one of them,
``splits`` are the programs.
"""

from attnmem.ranks.splits import all_to_all_attention, gather_attention, ring_attention

__all__ = ["all_to_all_attention", "gather_attention", "ring_attention"]
