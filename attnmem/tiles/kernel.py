"""Attention as one kernel for GPUs, in Triton: a tile of S lives in registers and dies there.

How to read a kernel. ``forward`` below is what *one program* does; the GPU runs one for each block
of queries of each head, as many at a time as it has room for. Each value is a whole block, held in
the registers and the shared memory of one multiprocessor: only ``tl.load`` and ``tl.store`` touch
the GPU's memory. So the bytes that a kernel moves can be read off its loads. Names in capitals are
constants, known when the kernel is compiled: the compiler needs the shapes of blocks.

The module can be imported without Triton, so that a page can show it. ``TRITON_INTERPRET=1`` in the
environment runs kernels on a CPU, slowly.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from typing import Any

import torch

from attnmem.programs import _check_inputs
from attnmem.workload import ceil_div

if importlib.util.find_spec("triton"):
    triton: Any = importlib.import_module("triton")
    tl: Any = importlib.import_module("triton.language")
else:
    triton = tl = None


def jit(function: Any) -> Any:
    """Have Triton compile a function when it is first started; without Triton, leave it."""
    return triton.jit(function) if triton else function


#: Measured block sizes: (head_dim, causal) -> queries, keys, warps, stages; see the record.
BLOCKS = {
    (64, False): (128, 64, 4, 3),
    (64, True): (128, 64, 4, 3),
    (128, False): (128, 64, 8, 3),
    (128, True): (128, 64, 8, 3),
}

#: For head dimensions that were not measured: small enough for the shared memory of any GPU.
SMALL = (64, 32, 4, 2)

LOG2_E = math.log2(math.e)  # exp(x) = 2^(x·log₂e): the hardware has a power of two


@jit
def forward(
    Q, K, V, O, LSE,  # where the tensors begin in the GPU's memory
    n, m, log2_scale,  # queries, keys, and scale·log₂e
    D: tl.constexpr, WIDE: tl.constexpr,  # head dimension; and the next power of two
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    CAUSAL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One block of queries against all keys that it sees: O and log Σ exp(s) of its rows."""
    head = tl.program_id(1).to(tl.int64)  # which head; below, which block of queries
    # The last blocks first: with a causal mask they have the most to do.
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    rows = block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    keys = tl.arange(0, BLOCK_K)
    dims = tl.arange(0, WIDE)  # blocks have powers of two as their sizes; what is more is masked

    # Loaded once, kept to the end: the block of Q.
    q_at = Q + head * n * D + rows[:, None] * D + dims[None, :]
    q = tl.load(q_at, mask=(rows[:, None] < n) & (dims[None, :] < D), other=0.0)

    # The rows so far: their maximum, sum and output. They never leave the registers.
    maximum = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    output = tl.zeros([BLOCK_Q, WIDE], tl.float32)

    # Keys before `whole` are seen by all rows of the block, keys from `end` on by none.
    end = m
    whole = m // BLOCK_K * BLOCK_K
    if CAUSAL:
        end = tl.minimum(m, (block + 1) * BLOCK_Q)
        whole = tl.minimum(whole, block * BLOCK_Q // BLOCK_K * BLOCK_K)
    k_at = K + head * m * D + keys[None, :] * D + dims[:, None]  # this way round, it is Kᵀ
    v_at = V + head * m * D + keys[:, None] * D + dims[None, :]
    for start in tl.range(0, whole, BLOCK_K):
        # Each block of K and V is loaded once for each block of queries. While one is multiplied,
        # the next ones are on their way: that is what the stages are.
        k = tl.load(k_at + start * D, mask=dims[:, None] < D, other=0.0)
        s = tl.dot(q, k, input_precision=PRECISION) * log2_scale
        maximum, total, output, p = absorb(maximum, total, output, s)
        v = tl.load(v_at + start * D, mask=dims[None, :] < D, other=0.0)
        output = tl.dot(p.to(v.dtype), v, output, input_precision=PRECISION)
    for start in tl.range(whole, end, BLOCK_K):
        # The same where some rows see some keys only: at the diagonal, and at the end.
        there = start + keys < m
        k = tl.load(k_at + start * D, mask=there[None, :] & (dims[:, None] < D), other=0.0)
        s = tl.dot(q, k, input_precision=PRECISION) * log2_scale
        seen = there[None, :]
        if CAUSAL:
            seen = seen & (start + keys[None, :] <= rows[:, None])
        s = tl.where(seen, s, float("-inf"))
        maximum, total, output, p = absorb(maximum, total, output, s)
        v = tl.load(v_at + start * D, mask=there[:, None] & (dims[None, :] < D), other=0.0)
        output = tl.dot(p.to(v.dtype), v, output, input_precision=PRECISION)

    # Written once: O, and one number a row for backward. Neither S nor P was ever written.
    o_at = O + head * n * D + rows[:, None] * D + dims[None, :]
    o = (output / total[:, None]).to(O.dtype.element_ty)
    tl.store(o_at, o, mask=(rows[:, None] < n) & (dims[None, :] < D))
    lse = (
        maximum + tl.log2(total)
    ) / 1.4426950408889634  # log₂e: from powers of two to powers of e
    tl.store(LSE + head * n + rows, lse, mask=rows < n)


@jit
def absorb(maximum, total, output, s):
    """Merge the scores of a tile into the rows so far, all but its product with V."""
    new = tl.maximum(maximum, tl.max(s, 1))
    p = tl.exp2(s - new[:, None])
    old = tl.exp2(maximum - new)  # what the sum and the output so far shrink by
    return new, total * old + tl.sum(p, 1), output * old[:, None], p


# Backward is two kernels, so that each block of a gradient has one program that adds it up, in
# registers. The price is that both make S and dP: 7 matrix products where 5 would do, if programs
# added to dQ in the GPU's memory one after the other.


@jit
def backward_q(
    Q, K, V, O, DO, LSE, DELTA, DQ,
    n, m, log2_scale, scale,
    D: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    CAUSAL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One block of dQ, from all keys that its queries see; and Σ dP∘P = dO·O of its rows."""
    head = tl.program_id(1).to(tl.int64)
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    rows = block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    keys = tl.arange(0, BLOCK_K)
    dims = tl.arange(0, WIDE)
    at = head * n * D + rows[:, None] * D + dims[None, :]
    here = (rows[:, None] < n) & (dims[None, :] < D)
    q = tl.load(Q + at, mask=here, other=0.0)
    do = tl.load(DO + at, mask=here, other=0.0)
    o = tl.load(O + at, mask=here, other=0.0)
    delta = tl.sum(do.to(tl.float32) * o.to(tl.float32), 1)
    tl.store(DELTA + head * n + rows, delta, mask=rows < n)
    lse = tl.load(LSE + head * n + rows, mask=rows < n, other=0.0) * 1.4426950408889634
    dq = tl.zeros([BLOCK_Q, WIDE], tl.float32)
    end = m
    if CAUSAL:
        end = tl.minimum(m, (block + 1) * BLOCK_Q)
    for start in tl.range(0, end, BLOCK_K):
        k_at = head * m * D + (start + keys[:, None]) * D + dims[None, :]
        there = (start + keys[:, None] < m) & (dims[None, :] < D)
        k = tl.load(K + k_at, mask=there, other=0.0)  # keys past the end are 0, and add nothing
        v = tl.load(V + k_at, mask=there, other=0.0)
        s = tl.dot(q, k.T, input_precision=PRECISION) * log2_scale
        p = tl.exp2(s - lse[:, None])
        if CAUSAL:
            p = tl.where(start + keys[None, :] <= rows[:, None], p, 0.0)
        dp = tl.dot(do, v.T, input_precision=PRECISION)
        ds = p * (dp - delta[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision=PRECISION)
    tl.store(DQ + at, (dq * scale).to(DQ.dtype.element_ty), mask=here)


@jit
def backward_kv(
    Q, K, V, DO, LSE, DELTA, DK, DV,
    n, m, log2_scale, scale,
    D: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    CAUSAL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One block of dK and dV, from all queries that see its keys."""
    head = tl.program_id(1).to(tl.int64)
    keys = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    rows = tl.arange(0, BLOCK_Q)
    dims = tl.arange(0, WIDE)
    at = head * m * D + keys[:, None] * D + dims[None, :]
    here = (keys[:, None] < m) & (dims[None, :] < D)
    k = tl.load(K + at, mask=here, other=0.0)
    v = tl.load(V + at, mask=here, other=0.0)
    dk = tl.zeros([BLOCK_K, WIDE], tl.float32)
    dv = tl.zeros([BLOCK_K, WIDE], tl.float32)
    begin = 0
    if CAUSAL:
        begin = tl.program_id(0) * BLOCK_K // BLOCK_Q * BLOCK_Q
    for start in tl.range(begin, n, BLOCK_Q):
        q_at = head * n * D + (start + rows[:, None]) * D + dims[None, :]
        there = (start + rows[:, None] < n) & (dims[None, :] < D)
        q = tl.load(Q + q_at, mask=there, other=0.0)  # queries past the end are 0, and add nothing
        do = tl.load(DO + q_at, mask=there, other=0.0)
        row_at = head * n + start + rows
        lse = tl.load(LSE + row_at, mask=start + rows < n, other=0.0) * 1.4426950408889634
        delta = tl.load(DELTA + row_at, mask=start + rows < n, other=0.0)
        s = tl.dot(k, q.T, input_precision=PRECISION) * log2_scale  # Sᵀ
        p = tl.exp2(s - lse[None, :])
        if CAUSAL:
            p = tl.where(keys[:, None] <= start + rows[None, :], p, 0.0)
        dv = tl.dot(p.to(do.dtype), do, dv, input_precision=PRECISION)
        dp = tl.dot(v, do.T, input_precision=PRECISION)
        ds = p * (dp - delta[None, :])
        dk = tl.dot(ds.to(q.dtype), q, dk, input_precision=PRECISION)
    tl.store(DK + at, (dk * scale).to(DK.dtype.element_ty), mask=here)
    tl.store(DV + at, dv.to(DV.dtype.element_ty), mask=here)


def triton_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    block: tuple[int, int, int, int] | None = None,
) -> torch.Tensor:
    """Attention, O = softmax(Q·Kᵀ·scale)·V, by the kernels of this module.

    It takes what :func:`attnmem.tiles.attention.tiled_attention` takes, in 16 or 32 bit and with
    d_v = d. ``block`` is what a program of ``forward`` works on and with: (queries, keys, warps,
    stages), the first two powers of two from 16 on; by default what was fastest where it was
    measured (:data:`BLOCKS`).

    Raises what :func:`attnmem.programs.standard_attention` raises, ``ImportError`` without Triton,
    and ``ValueError`` for another head dimension of v, for 64 bit, and for no key at all.
    """
    if tl is None:
        raise ImportError("triton must be installed to run this kernel: it comes with torch's CUDA")
    _check_inputs(q, k, v)
    if v.shape[-1] != q.shape[-1] or q.dtype.itemsize > 4 or k.shape[-2] == 0:
        raise ValueError(
            "v must have q's head dimension, k a key, and both at most 32 bit, got "
            f"{q.dtype} {list(q.shape)}, {list(k.shape)} and {list(v.shape)}"
        )
    d = q.shape[-1]
    scale = d**-0.5 if scale is None else scale
    block = block or BLOCKS.get((d, causal), SMALL)
    heads = math.prod(q.shape[:-2])
    flat = (x.reshape(heads, *x.shape[-2:]).contiguous() for x in (q, k, v))
    o: torch.Tensor = _Kernel.apply(*flat, block, causal, scale)  # type: ignore[no-untyped-call]
    return o.reshape(q.shape)


class _Kernel(torch.autograd.Function):
    """Start the programs: forward a block of queries each, backward that and a block of keys."""

    @staticmethod
    def forward(ctx: Any, q: Any, k: Any, v: Any, block: Any, causal: bool, scale: float) -> Any:
        o, lse = torch.empty_like(q), q.new_empty(q.shape[:2], dtype=torch.float32)
        ctx.options = causal, scale
        sizes = _sizes(q, k, scale)
        forward[_grid(q, block[0])](
            q, k, v, o, lse, *sizes, **_constants(q, causal, block)
        )  # fmt: skip
        ctx.save_for_backward(q, k, v, o, lse)
        return o

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, do: Any) -> Any:
        q, k, v, o, lse = ctx.saved_tensors
        causal, scale = ctx.options
        do, delta = do.contiguous(), torch.empty_like(lse)
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        sizes = *_sizes(q, k, scale), scale
        of_q, of_kv = BACKWARD if q.dtype.itemsize == 2 else (SMALL, SMALL)
        backward_q[_grid(q, of_q[0])](
            q, k, v, o, do, lse, delta, dq, *sizes, **_constants(q, causal, of_q)
        )
        backward_kv[_grid(k, of_kv[1])](
            q, k, v, do, lse, delta, dk, dv, *sizes, **_constants(q, causal, of_kv)
        )
        return dq, dk, dv, None, None, None


#: Block sizes of backward_q and backward_kv in 16 bit.
BACKWARD = ((128, 64, 8, 2), (64, 128, 8, 2))


def _grid(x: torch.Tensor, size: int) -> tuple[int, int]:
    return ceil_div(x.shape[1], size), x.shape[0]


def _sizes(q: torch.Tensor, k: torch.Tensor, scale: float) -> tuple[int, int, float]:
    return q.shape[1], k.shape[1], scale * LOG2_E


def _constants(q: torch.Tensor, causal: bool, block: tuple[int, int, int, int]) -> dict[str, Any]:
    d = q.shape[-1]
    return {
        "D": d,
        "WIDE": max(16, 1 << (d - 1).bit_length()),
        "BLOCK_Q": block[0],
        "BLOCK_K": block[1],
        "CAUSAL": causal,
        "PRECISION": "ieee",  # of 32-bit inputs; by default they are cut to 19 bits (TF32)
        "num_warps": block[2],
        "num_stages": block[3],
    }
