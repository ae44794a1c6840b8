"""The programs under study, and the run in which each of them is studied."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from attnmem.workload import Workload

# A program takes Q, K, V and returns O, or a tuple whose first element is O.
Program = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], Any]


def standard_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float | None = None,
    causal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Standard attention, O = softmax(Q·Kᵀ·scale)·V, returned with its intermediate matrices.

    ``q`` is ``[..., N, d]``, ``k`` is ``[..., M, d]`` and ``v`` is ``[..., M, d_v]``: any
    leading dimensions, the same for all three, in one floating-point dtype on one device.
    ``scale`` defaults to 1/√d. With ``causal``, query i sees the keys j ≤ i only.

    Returns ``(O, S, P)``: O ``[..., N, d_v]``, the scores S ``[..., N, M]`` and the weights P
    ``[..., N, M]``, whose rows sum to 1.

    Raises ``TypeError`` for something that is not a floating-point tensor, and ``ValueError``
    for shapes, dtypes or devices that do not fit together. Source: Vaswani et al. 2017,
    arXiv 1706.03762, equation 1.
    """
    _check_inputs(q, k, v)
    if scale is None:
        scale = 1 / math.sqrt(q.shape[-1])
    s = q @ k.transpose(-2, -1) * scale
    if causal:
        future = torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).triu(1)
        s = s.masked_fill(future, -math.inf)
    p = torch.softmax(s, dim=-1)
    o = p @ v
    return o, s, p


def run(
    program: Program, w: Workload, *, training: bool, device: torch.device
) -> Iterator[tuple[str, int]]:
    """Run ``program`` on random inputs of ``w``, pausing after each stage.

    Every number in the book belongs to this run. It creates Q, K, V; calls
    ``program(q, k, v)``, without gradients unless ``training``, and keeps only O; when
    training it then creates dO and calls ``O.backward(dO)``. Q, K, V and O stay alive to the
    end, dO to the end of backward.

    Yields ``("inputs", bytes)``, ``("forward", bytes)`` and, when training,
    ``("backward", bytes)``: the stage that has just ended, and the bytes of Q, K, V and O
    made so far. What else is alive at that moment is what the program keeps.
    """
    q, k, v = (
        torch.randn(w.shape, dtype=w.dtype, device=device, requires_grad=training) for _ in range(3)
    )
    own = sum(x.untyped_storage().nbytes() for x in (q, k, v))
    yield "inputs", own
    with torch.set_grad_enabled(training):
        o = program(q, k, v)
        o = o[0] if isinstance(o, tuple) else o
    own += o.untyped_storage().nbytes()
    yield "forward", own
    if training:
        o.backward(torch.randn_like(o, memory_format=torch.contiguous_format))
        yield "backward", own


def _check_inputs(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    for name, x in (("q", q), ("k", k), ("v", v)):
        if not isinstance(x, torch.Tensor) or not x.is_floating_point():
            got = x.dtype if isinstance(x, torch.Tensor) else type(x).__name__
            raise TypeError(f"{name} must be a floating-point tensor, got {got}")
        if x.ndim < 2 or x.shape[-1] == 0:
            raise ValueError(f"{name} must be [..., seq_len, head_dim], got {list(x.shape)}")
        if (x.dtype, x.device) != (q.dtype, q.device):
            raise ValueError(
                f"{name} must have q's dtype and device, {q.dtype} on {q.device}, "
                f"got {x.dtype} on {x.device}"
            )
    if k.shape[:-2] != q.shape[:-2] or k.shape[-1] != q.shape[-1]:
        raise ValueError(
            f"k must be [..., M, d] with q's leading dimensions and d, {list(q.shape)}, "
            f"got {list(k.shape)}"
        )
    if v.shape[:-1] != k.shape[:-1]:
        raise ValueError(
            f"v must be [..., M, d_v] with k's leading dimensions and M, {list(k.shape)}, "
            f"got {list(v.shape)}"
        )
