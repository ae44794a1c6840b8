"""The programs under study, and the run in which each of them is studied.

A program takes Q, K and V, ``[B, H, N, d]`` in one dtype on one device, and returns O of the same
shape, alone or first in a tuple. Peaks that a description names are those of inference: S is one
N×N tensor over batch and heads, X one of Q, K, V, O. A program that is named after a kernel of
PyTorch's raises ``RuntimeError`` where that kernel does not take the inputs.

The programs are taught in :ref:`memory-programs`.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

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
    leading dimensions, the same for all three, in one floating-point dtype on one device. The last
    of them, the heads, may be fewer in k and v: each of these serves a group of q's, in order,
    whose queries are rows of one product with it. ``scale`` defaults to 1/√d. With ``causal``,
    query i sees the keys j ≤ i only.

    Returns ``(O, S, P)``: O ``[..., N, d_v]``, the scores S ``[..., N, M]`` and the weights P
    ``[..., N, M]``, whose rows sum to 1.

    Raises ``TypeError`` for something that is not a floating-point tensor, and ``ValueError``
    for shapes, dtypes or devices that do not fit together. Source: Vaswani et al. 2017,
    arXiv 1706.03762, equation 1.

    >>> q, k, v = torch.ones(3, 1, 12, 4, 64)  # equal scores, hence equal weights
    >>> o, s, p = standard_attention(q, k, v)
    >>> list(o.shape), list(s.shape), list(p.shape)
    ([1, 12, 4, 64], [1, 12, 4, 4], [1, 12, 4, 4])
    >>> p[0, 0, 3].tolist()
    [0.25, 0.25, 0.25, 0.25]
    >>> _, _, p = standard_attention(q, k, v, causal=True)
    >>> p[0, 0, 1].tolist()
    [0.5, 0.5, 0.0, 0.0]
    """
    _check_inputs(q, k, v, groups=True)
    if scale is None:
        scale = 1 / math.sqrt(q.shape[-1])
    if k.shape[:-2] != q.shape[:-2]:
        return _grouped(q, k, v, scale, causal)
    s = q @ k.transpose(-2, -1) * scale
    if causal:
        future = torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).triu(1)
        s = s.masked_fill(future, -math.inf)
    p = torch.softmax(s, dim=-1)
    o = p @ v
    return o, s, p


def _grouped(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, causal: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same where heads share keys: K and V are not repeated, and are read once a group."""
    rows = q.reshape(*k.shape[:-2], -1, q.shape[-1])  # the queries of a group, one after another
    s = rows @ k.transpose(-2, -1) * scale
    if causal:
        future = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=s.device).triu(1)
        s = s.view(*q.shape[:-1], -1).masked_fill(future, -math.inf).view(s.shape)
    p = torch.softmax(s, dim=-1)
    o = p @ v
    return o.view(*q.shape[:-1], -1), s.view(*q.shape[:-1], -1), p.view(*q.shape[:-1], -1)


# The ways people really write it, each a few lines. The memory chapter compares their peaks.


def named_products(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Both products keep a name, and with it their memory: 3S + 4X."""
    products = q @ k.transpose(-2, -1)
    s = products / math.sqrt(q.shape[-1])
    p = torch.softmax(s, dim=-1)
    return p @ v


def one_liner(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """No name holds S, so it is freed before O is allocated: 2S + 3X."""
    return torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), dim=-1) @ v


def scaled_queries(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Q is scaled first, which costs N·d instead of N²."""
    s = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)
    p = torch.softmax(s, dim=-1)
    return p @ v


def scaled_in_place(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The scores are scaled where they are."""
    s = q @ k.transpose(-2, -1)
    s /= math.sqrt(q.shape[-1])
    p = torch.softmax(s, dim=-1)
    return p @ v


def causal_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Standard attention with a causal mask."""
    o, _, _ = standard_attention(q, k, v, causal=True)
    return o


def dropout_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Weights are dropped with probability 0.1, as in training."""
    p = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), dim=-1)
    return F.dropout(p, 0.1) @ v


def softmax_in_float32(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Softmax of 16-bit scores in 32 bit, as models for half precision do."""
    s = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    p = torch.softmax(s, dim=-1, dtype=torch.float32).to(q.dtype)
    return p @ v


def _fused(backend: SDPBackend, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v)


def math_sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """PyTorch's own attention, unfused."""
    return _fused(SDPBackend.MATH, q, k, v)


def flash_sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """PyTorch's FlashAttention kernel."""
    return _fused(SDPBackend.FLASH_ATTENTION, q, k, v)


def efficient_sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """PyTorch's memory-efficient kernel."""
    return _fused(SDPBackend.EFFICIENT_ATTENTION, q, k, v)


def cudnn_sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The attention kernel of NVIDIA's cuDNN."""
    return _fused(SDPBackend.CUDNN_ATTENTION, q, k, v)


PROGRAMS: tuple[Program, ...] = (
    standard_attention,
    named_products,
    one_liner,
    scaled_queries,
    scaled_in_place,
    causal_attention,
    dropout_attention,
    softmax_in_float32,
    math_sdpa,
    flash_sdpa,
    efficient_sdpa,
    cudnn_sdpa,
)


def run(
    program: Program,
    w: Workload,
    *,
    training: bool,
    device: torch.device,
    name: Callable[[str, torch.Tensor], None] = lambda label, tensor: None,
) -> Iterator[tuple[str, int]]:
    """Run ``program`` on random inputs of ``w``, pausing after each stage.

    Every number in the book belongs to this run. It creates Q, K, V; calls
    ``program(q, k, v)``, without gradients unless ``training``, and keeps only O; when
    training it then creates dO and calls ``O.backward(dO)``. Q, K, V and O stay alive to the
    end, dO to the end of backward.

    Yields ``("inputs", bytes)``, ``("forward", bytes)`` and, when training,
    ``("backward", bytes)``: the stage that has just ended, and the bytes of Q, K, V and O
    made so far. What else is alive at that moment is what the program keeps. ``name`` is told
    the label of each tensor that the run itself makes. Raises ``TypeError`` if ``program`` returns
    something else than O, and whatever ``program`` raises.

    >>> w = Workload(batch=1, heads=2, seq_len=16, head_dim=8, dtype=torch.float32)
    >>> list(run(one_liner, w, training=True, device=torch.device("cpu")))
    [('inputs', 3072), ('forward', 4096), ('backward', 4096)]
    """
    q, k, v = (
        torch.randn(shape, dtype=w.dtype, device=device, requires_grad=training)
        for shape in w.shapes
    )
    for label, tensor in (("Q", q), ("K", k), ("V", v)):
        name(label, tensor)
    yield "inputs", _storage_bytes(q, k, v)
    with torch.set_grad_enabled(training):
        o = program(q, k, v)
        o = o[0] if isinstance(o, tuple) and o else o
    if not isinstance(o, torch.Tensor):
        raise TypeError(
            "program must return O, a tensor, or a tuple whose first element is O; "
            f"got {type(o).__name__}"
        )
    name("O", o)
    own = _storage_bytes(q, k, v, o)
    yield "forward", own
    if training:
        parameters = _leaves(program, o, (q, k, v))
        do = torch.randn_like(o, memory_format=torch.contiguous_format)
        name("dO", do)
        try:
            o.backward(do)  # type: ignore[no-untyped-call]
            for label, tensor in (("dQ", q), ("dK", k), ("dV", v)):
                if tensor.grad is not None:
                    name(label, tensor.grad)
            del do
            yield "backward", own
        finally:  # the next run makes them again
            for parameter in parameters:
                parameter.grad = None


def _leaves(program: Program, o: torch.Tensor, but: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """The tensors ``but`` some whose gradients a backward pass from ``o`` makes first."""
    found = dict.fromkeys(program.parameters() if isinstance(program, torch.nn.Module) else ())
    seen = {o.grad_fn}
    nodes = [o.grad_fn] if o.grad_fn else []
    while nodes:
        node = nodes.pop()
        if hasattr(node, "variable"):
            found[node.variable] = None
        for following, _ in node.next_functions:
            if following and following not in seen:
                seen.add(following)
                nodes.append(following)
    inputs = {id(x) for x in but}
    return [x for x in found if x.grad is None and id(x) not in inputs]


def _storage_bytes(*tensors: torch.Tensor) -> int:
    """The bytes of the memory behind tensors; shared memory counts once."""
    storages = {x.untyped_storage()._cdata: x.untyped_storage().nbytes() for x in tensors}
    return sum(storages.values())


def _check_inputs(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, groups: bool = False
) -> None:
    """Refuse what does not fit together. With ``groups``, k and v may have fewer heads than q."""
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
    lead: tuple[int, ...] = q.shape[:-2]
    if groups and 3 <= q.ndim == k.ndim and k.shape[-3] and q.shape[-3] % k.shape[-3] == 0:
        lead = *q.shape[:-3], k.shape[-3]
    if k.shape[:-2] != lead or k.shape[-1] != q.shape[-1]:
        raise ValueError(
            f"k must be [..., M, d] with q's leading dimensions and d, {list(q.shape)}, "
            f"got {list(k.shape)}"
        )
    if v.shape[:-1] != k.shape[:-1]:
        raise ValueError(
            f"v must be [..., M, d_v] with k's leading dimensions and M, {list(k.shape)}, "
            f"got {list(v.shape)}"
        )
