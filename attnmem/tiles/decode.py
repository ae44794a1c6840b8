"""Attention for one token, as two kernels for GPUs: parts of the keys side by side, then a merge.

A token has one query for each head. So there is one block of queries for each head of keys, too few
to fill a GPU; what is left to cut are the keys (split-KV). ``part`` below is one program: it takes
some keys of one head, for all queries that share this head, and leaves what ``Rows`` keeps:
maximum, sum and output. ``join`` merges the parts of a row. How to read a kernel says
:mod:`attnmem.tiles.kernel`. Source: Dao et al. 2023, Flash-Decoding for long-context inference.
"""

from __future__ import annotations

import math

import torch

from attnmem.tiles.kernel import LOG2_E, jit, tl
from attnmem.workload import ceil_div

#: How many programs are started for each multiprocessor, where the keys allow it.
WAVES = 4

#: The fewest queries of a matrix product in Triton: others are filled up with zeros.
LEAST_ROWS = 16


@jit
def part(
    Q, K, V, OUTPUT, MAXIMUM, TOTAL,
    m, each, log2_scale,  # keys, keys of a part, and scale·log₂e
    GROUP: tl.constexpr, ROWS: tl.constexpr,  # queries that share a head of keys; and as many rows
    D: tl.constexpr, REST: tl.constexpr,  # numbers of a value; numbers that a key has more
    LATENT: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Some keys of one head, for the queries of its group: maximum, sum and output of each."""
    split = tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    wide: tl.constexpr = D + REST  # numbers of a key, and of a query
    rows = tl.arange(0, ROWS)
    keys = tl.arange(0, BLOCK_K)
    dims = tl.arange(0, D)
    there = rows[:, None] < GROUP
    q_at = Q + (head * GROUP + rows[:, None]) * wide
    q = tl.load(q_at + dims[None, :], mask=there, other=0.0)
    if REST > 0:
        more = D + tl.arange(0, REST)
        q_more = tl.load(q_at + more[None, :], mask=there, other=0.0)

    maximum = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    output = tl.zeros([ROWS, D], tl.float32)
    begin = split * each
    end = tl.minimum(begin + each, m)
    for start in tl.range(begin, end, BLOCK_K):
        seen = start + keys < end
        k_at = K + (head * m + start + keys[:, None]) * wide
        # An 8-bit cache is cast here, in registers: memory has been read already.
        k = tl.load(k_at + dims[None, :], mask=seen[:, None], other=0.0).to(q.dtype)
        s = tl.dot(q, tl.trans(k))
        if REST > 0:
            k_more = tl.load(k_at + more[None, :], mask=seen[:, None], other=0.0).to(q.dtype)
            s = tl.dot(q_more, tl.trans(k_more), s)
        s = tl.where(seen[None, :], s * log2_scale, float("-inf"))
        new = tl.maximum(maximum, tl.max(s, 1))
        p = tl.exp2(s - new[:, None])
        old = tl.exp2(maximum - new)
        total = total * old + tl.sum(p, 1)
        maximum = new
        if LATENT:
            v = k  # values are the first numbers of their keys: nothing more is loaded
        else:
            v_at = V + (head * m + start + keys[:, None]) * D + dims[None, :]
            v = tl.load(v_at, mask=seen[:, None], other=0.0).to(q.dtype)
        output = tl.dot(p.to(q.dtype), v, output * old[:, None])

    row = (head * GROUP + rows) * tl.num_programs(0) + split
    tl.store(OUTPUT + row[:, None] * D + dims[None, :], output, mask=there)
    tl.store(MAXIMUM + row, maximum, mask=rows < GROUP)
    tl.store(TOTAL + row, total, mask=rows < GROUP)


@jit
def join(OUTPUT, MAXIMUM, TOTAL, O, splits, D: tl.constexpr, SPLITS: tl.constexpr):
    """One row: its parts, each shrunk to the largest maximum, are added and divided."""
    row = tl.program_id(0).to(tl.int64)
    dims = tl.arange(0, D)
    parts = tl.arange(0, SPLITS)
    there = parts < splits
    maximum = tl.load(MAXIMUM + row * splits + parts, mask=there, other=float("-inf"))
    shrink = tl.exp2(maximum - tl.max(maximum, 0))
    total = tl.sum(tl.load(TOTAL + row * splits + parts, mask=there, other=0.0) * shrink, 0)
    output = tl.zeros([D], tl.float32)
    for start in tl.range(0, splits):
        at = row * splits + start
        here = tl.exp2(tl.load(MAXIMUM + at) - tl.max(maximum, 0))
        output += here * tl.load(OUTPUT + at * D + dims)
    tl.store(O + row * D + dims, (output / total).to(O.dtype.element_ty))


def triton_decode(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor | None = None,
    *,
    splits: int | None = None,
    scale: float | None = None,
    value_dim: int | None = None,
) -> torch.Tensor:
    """Attention of one token, ``q`` ``[B, H, 1, d]``, to ``k`` and ``v``: O ``[B, H, 1, d_v]``.

    ``k`` is ``[B, kv_heads, M, d]``, ``v`` ``[B, kv_heads, M, d_v]``, in q's dtype or in 8 bit;
    all are contiguous, on a GPU. Without ``v``, the cache is a latent one: the values are the first
    ``value_dim`` numbers of the keys. ``splits``: in how many parts the keys are cut, by default so
    many that the GPU has :data:`WAVES` programs a multiprocessor. ``scale`` defaults to 1/√d.

    Raises ``ImportError`` without Triton, and ``ValueError`` for shapes that do not fit, and for
    d_v and d − d_v that are no powers of two from 16 on (d − d_v may be 0).
    """
    if tl is None:
        raise ImportError("triton must be installed to run this kernel: it comes with torch's CUDA")
    batch, heads, n, d = q.shape
    d_v = v.shape[-1] if v is not None else value_dim or d
    of_k = (batch, k.shape[1], k.shape[2])
    if n != 1 or k.shape != (*of_k, d) or heads % k.shape[1] or not k.shape[2]:
        raise ValueError(
            "q must be [B, H, 1, d] and k [B, kv_heads, M, d], kv_heads a divisor of H, got "
            f"{list(q.shape)} and {list(k.shape)}"
        )
    if (v is not None and v.shape != (*of_k, d_v)) or not (_power(d_v) and _power(d - d_v, d)):
        raise ValueError(
            "v must be [B, kv_heads, M, d_v], d_v and d - d_v powers of two from 16 on, got "
            f"{list(k.shape)} and {list(v.shape) if v is not None else d_v}"
        )
    each, splits = cut(k.shape[2], batch * k.shape[1], splits, _multiprocessors(q))
    group, rest = heads // k.shape[1], d - d_v
    numbers = (batch * heads, splits)
    output = q.new_empty(*numbers, d_v, dtype=torch.float32)
    maximum, total = (q.new_empty(numbers, dtype=torch.float32) for _ in range(2))
    o = q.new_empty(batch, heads, 1, d_v)
    scale = d**-0.5 if scale is None else scale
    part[splits, batch * k.shape[1]](
        q, k, k if v is None else v, output, maximum, total, k.shape[2], each, scale * LOG2_E,
        GROUP=group, ROWS=max(LEAST_ROWS, 1 << (group - 1).bit_length()), D=d_v, REST=rest,
        LATENT=v is None, BLOCK_K=block_keys(d_v), num_warps=4 if d_v <= 128 else 8,
        num_stages=3 if d_v <= 128 else 2,
    )  # fmt: skip
    join[batch * heads,](
        output, maximum, total, o, splits, D=d_v, SPLITS=1 << (splits - 1).bit_length()
    )
    return o


def cut(m: int, heads: int, splits: int | None, multiprocessors: int) -> tuple[int, int]:
    """The keys of a part, and the number of parts: as many as asked for, or as fill the GPU.

    A part has whole blocks of 64 keys, and no part is empty. ``heads`` of keys, over the batch.

    >>> cut(131072, 8, None, 132), cut(100, 8, None, 132), cut(131072, 256, None, 132)
    ((2048, 64), (64, 2), (43712, 3))
    """
    wanted = splits or max(1, ceil_div(WAVES * multiprocessors, heads))
    each = 64 * ceil_div(ceil_div(m, wanted), 64)
    return each, ceil_div(m, each)


def block_keys(d_v: int) -> int:
    """How many keys a program has at once: of wide ones fewer, so that they fit on the chip."""
    return 64 if d_v <= 128 else 32


def _power(size: int, or_none_of: int = 0) -> bool:
    """Whether a size is a power of two from 16 on; with ``or_none_of``, or 0."""
    return (size >= 16 and math.log2(size).is_integer()) or (or_none_of > 0 and size == 0)


def _multiprocessors(q: torch.Tensor) -> int:
    if q.device.type != "cuda":  # Triton's interpreter
        return 8
    return torch.cuda.get_device_properties(q.device).multi_processor_count
