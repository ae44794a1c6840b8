"""What keeps a kernel of scaled_dot_product_attention from being taken: PyTorch's own rules.

Read in transformers/cuda/sdp_utils.cpp, sdp_utils_cpp.h and sdp_utils_cpp.cpp, whose functions are
named below, and checked in the shipped libraries of PyTorch 2.11, 2.12 and 2.13. Later sources
have other rules: there the efficient kernel takes grouped heads (pull request 191085).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch

from attnmem.workload import dtype_name

KERNELS = ("cudnn", "flash", "efficient", "math")
FIRST_FLASH = ("flash", "efficient", "math", "cudnn")  # as PyTorch starts: ATen/Context.h
CUDNN = 91900  # 9.19.0, in the wheels of torch 2.11 for CUDA 13
#: The newest release of PyTorch that these rules are of.
NEWEST = (2, 13)
OFF = "it is switched off, by torch.nn.attention.sdpa_kernel or torch.backends.cuda"
SIXTEEN_BIT = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Operand:
    """What the choice looks at of Q, K, V or a mask."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    needs_grad: bool = False
    offset: int = 0  # of the first element in its memory, in elements

    @classmethod
    def of(cls, x: torch.Tensor) -> "Operand":
        """That of a tensor on any device, ``meta`` too."""
        return cls(tuple(x.shape), x.stride(), x.dtype, x.requires_grad, int(x.storage_offset()))

    @classmethod
    def new(cls, shape: Iterable[int], dtype: torch.dtype, needs_grad: bool = False) -> "Operand":
        """That of a contiguous tensor."""
        x = torch.empty(tuple(shape), dtype=dtype, device="meta")
        return cls.of(x.requires_grad_(needs_grad))


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of scaled_dot_product_attention, and what else the choice depends on.

    ``training``: whether autograd records. ``enabled`` and ``priority``: what ``sdpa_kernel`` sets,
    ``None`` for PyTorch's own order. ``cudnn``: its version, 91900 for 9.19.0. ``release``:
    PyTorch's, such as ``(2, 11)``. The scale has no say.
    """

    q: Operand
    k: Operand
    v: Operand
    mask: Operand | None = None
    dropout: float = 0.0
    causal: bool = False
    enable_gqa: bool = False
    training: bool = False
    enabled: tuple[str, ...] = KERNELS
    priority: tuple[str, ...] | None = None
    deterministic: bool = False
    device: str = "cuda"
    capability: tuple[int, int] = (9, 0)
    cudnn: int = CUDNN
    release: tuple[int, int] = NEWEST

    @property
    def operands(self) -> tuple[Operand, Operand, Operand]:
        """Q, K and V."""
        return self.q, self.k, self.v

    @property
    def needs_grad(self) -> bool:
        """input_requires_grad: of Q, K or V; a mask does not count."""
        return self.training and any(x.needs_grad for x in self.operands)

    @property
    def four(self) -> bool:
        """check_tensor_shapes: whether Q, K and V have four dimensions each."""
        return all(len(x.shape) == 4 for x in self.operands)


Reasons = Iterator[str]


def cudnn(c: Call) -> Reasons:
    """can_use_cudnn_attention."""
    yield from _general(c, "cudnn", (8, 0))
    yield from _dtype(c, SIXTEEN_BIT if c.capability >= (8, 0) else SIXTEEN_BIT[:1])
    if c.deterministic:
        yield "deterministic algorithms are asked for: it has none"
    if c.dropout > 0 and 91100 < c.cudnn < 91400:
        yield f"dropout: cuDNN takes none in version {c.cudnn}, but from 91400 on"
    if c.release >= (2, 12) and (c.dropout * 16) % 1:
        yield f"dropout {c.dropout:g} is no multiple of 1/16"
    if c.four:
        yield from _mask_shape(c)
        yield from _dense(c, groups=True, alike=False, narrow=True)
        yield from _cudnn_shapes(c)


def _cudnn_shapes(c: Call) -> Reasons:
    """check_cudnn_tensor_shapes."""
    (batch, heads, n, d), m, d_v = c.q.shape, c.k.shape[2], c.v.shape[3]
    if c.release >= (2, 13) and max(batch, heads) > 65535:
        yield f"{batch:,} sequences and {heads:,} heads: it takes 65,535 of either"
    limit = 256 if c.capability == (9, 0) and c.cudnn >= 91000 else 128
    if c.capability[0] == 10 and c.cudnn >= 91100 and (d, d_v) == (192, 128):
        limit = 192
    if max(d, d_v) > limit:
        yield f"head_dim {max(d, d_v)} is over {limit}"
    if d % 8 or d_v % 8:
        yield f"head_dim {d if d % 8 else d_v} is no multiple of 8"
    if m == 1:
        yield "1 key: it takes 2 or more"
    if n == 1 and c.dropout:
        yield "1 query with dropout: it takes 2 or more"


def flash(c: Call) -> Reasons:
    """can_use_flash_attention."""
    d, (major, minor) = c.q.shape[-1], c.capability
    yield from _general(c, "flash", (8, 0))
    yield from _dtype(c, SIXTEEN_BIT if major >= 8 else SIXTEEN_BIT[:1])
    yield from _head_dims(c)
    if d > 256:
        yield f"head_dim {d} is over 256"
    if c.mask:
        yield "it takes no mask but is_causal=True"
    small = (8, 6) <= c.capability <= (8, 9) or (12, 0) <= c.capability <= (12, 1)
    if small and c.needs_grad and (192 < d <= 224 or (d > 224 and c.dropout > 0)):
        yield f"a gradient with head_dim {d} on compute capability {major}.{minor}: at most 192"
    if c.causal and c.q.shape[-2] != c.k.shape[-2]:
        yield f"is_causal with {c.q.shape[-2]} queries and {c.k.shape[-2]} keys: it takes as many"
    if c.four:
        yield from _dense(c, groups=True, narrow=True)


def efficient(c: Call) -> Reasons:
    """can_use_mem_efficient_attention and its minimum_gemm_alignment."""
    (major, _), d, d_v = c.capability, c.q.shape[-1], c.v.shape[-1]
    yield from _general(c, "efficient", (5, 0))
    yield from _dtype(c, (torch.float16, torch.float32, torch.bfloat16)[: 3 if major >= 8 else 2])
    if d != c.k.shape[-1]:
        yield f"head_dim {d} of Q and {c.k.shape[-1]} of K are not the same"
    half = c.q.dtype in SIXTEEN_BIT
    multiple = (8 if half else 4) if major >= 8 else 8 if major == 7 and half else 1
    if not d or not d_v or d % multiple or d_v % multiple:
        wrong = d if not d or d % multiple else d_v
        why = f"no multiple of {multiple} (in {dtype_name(c.q.dtype)})" if wrong else "not above 0"
        yield f"head_dim {wrong} is {why}"
    if c.release >= (2, 13) and major >= 8 and not all(_aligned(x, multiple) for x in c.operands):
        yield f"Q, K or V begins in its memory at no multiple of {multiple} elements: clone() does"
    if c.four:
        yield from _dense(c, groups=False, narrow=False)


def _aligned(x: Operand, multiple: int) -> bool:
    """check_data_ptr_alignment_mem_efficient."""
    return 0 in x.shape or x.offset % multiple == 0


def math(c: Call) -> Reasons:
    """It takes everything."""
    yield from _switch(c, "math")


def flash_on_cpu(c: Call) -> Reasons:
    """use_flash_attention_cpp."""
    yield from _switch(c, "flash")
    yield from _rank(c)
    yield from _dtype(c, (torch.float32, torch.float64, *SIXTEEN_BIT))
    yield from _head_dims(c)
    if c.dropout > 0:
        yield f"dropout {c.dropout:g}: it takes none"
    if c.four:
        yield from _mask_shape(c)
        yield from _dense(c, groups=True, narrow=False)


def _not_on_cpu(_: Call) -> Reasons:
    yield "it is for GPUs"


def _general(c: Call, name: str, oldest: tuple[int, int]) -> Reasons:
    """check_runtime_disabled_…, check_tensor_shapes and check_…_hardware_support."""
    yield from _switch(c, name)
    yield from _rank(c)
    if not oldest <= c.capability <= (12, 1):
        major, minor = c.capability
        yield f"compute capability {major}.{minor}: it takes {oldest[0]}.{oldest[1]} to 12.1"


def _switch(c: Call, name: str) -> Reasons:
    if name not in c.enabled:
        yield OFF


def _rank(c: Call) -> Reasons:
    if not c.four:
        ranks = sorted({len(x.shape) for x in c.operands})
        yield f"{' and '.join(map(str, ranks))} dimensions: it takes 4, [B, H, N, d]"


def _dtype(c: Call, taken: tuple[torch.dtype, ...]) -> Reasons:
    """check_tensor_dtype."""
    found = list(dict.fromkeys(dtype_name(x.dtype) for x in c.operands))
    names = [dtype_name(dtype) for dtype in taken]
    if len(found) > 1 or found[0] not in names:
        yield f"{' and '.join(found)}: it takes {' and '.join(names)}"


def _head_dims(c: Call) -> Reasons:
    """check_head_dim_size_flash and check_head_dim_size_cpp."""
    dims = [x.shape[-1] for x in c.operands]
    if len(set(dims)) > 1:
        yield "head_dim {} of Q, {} of K and {} of V are not the same".format(*dims)


def _mask_shape(c: Call) -> Reasons:
    """check_attn_mask_shape."""
    if not c.mask:
        return
    if c.mask.needs_grad:
        yield "the mask needs a gradient: it computes none"
    batch, heads, n, m = *c.q.shape[:3], c.k.shape[2]
    full = (batch, heads, n, m)[-len(c.mask.shape) :]
    fits = all(size in (1, whole) for size, whole in zip(c.mask.shape, full, strict=False))
    if len(c.mask.shape) not in (2, 4) or not fits:
        shapes = f"[{n}, {m}] and [{batch}, {heads}, {n}, {m}], or 1 for any of these"
        yield f"a mask {list(c.mask.shape)}: it takes {shapes}"


def _dense(c: Call, *, groups: bool, narrow: bool, alike: bool = True) -> Reasons:
    """check_nonzero_sequence_lengths_dense and the two checks that the functions below are."""
    if 0 in (c.q.shape[-2], c.k.shape[-2]):
        yield f"{c.q.shape[-2]} queries and {c.k.shape[-2]} keys: it takes 1 or more of each"
    yield from _heads(c, groups, alike)
    yield from _strides(c, narrow)


def _heads(c: Call, groups: bool, alike: bool) -> Reasons:
    """check_batch_size_and_num_heads_dense and check_grouped_query_attention."""
    batches = [x.shape[0] for x in c.operands]
    if len(set(batches)) > 1:
        yield "{} sequences of Q, {} of K and {} of V are not as many".format(*batches)
    h, h_k, h_v = (x.shape[1] for x in c.operands)
    heads = f"{h_k} head{'s' * (h_k != 1)}"
    found = f"K has {heads}{f', V {h_v},' * (h_k != h_v)} for {h} of Q"
    if not (groups and c.enable_gqa):
        if not h == h_k == h_v:
            yield found + (" without enable_gqa=True" if groups else ": repeat K and V")
    elif alike and h_k != h_v:
        yield f"{found}: it takes as many of both"
    elif any(not part or h % part for part in (h_k, h_v)):
        yield f"{found}: it takes a number that divides it"


def _strides(c: Call, narrow: bool) -> Reasons:
    """check_last_dim_stride_equals_1_dense; ``narrow``: any stride if head_dim is 1."""
    if any(x.stride[-1] != 1 for x in c.operands) and not (narrow and c.q.shape[-1] == 1):
        yield "the last dimension of Q, K or V has another stride than 1: contiguous() makes it 1"
    if c.device == "cuda" and c.mask and c.mask.stride[-1:] != (1,):
        yield "the last dimension of the mask has another stride than 1: contiguous() makes it 1"


RULES: dict[str, dict[str, Callable[[Call], Reasons]]] = {
    "cuda": {"cudnn": cudnn, "flash": flash, "efficient": efficient, "math": math},
    "cpu": {"cudnn": _not_on_cpu, "flash": flash_on_cpu, "efficient": _not_on_cpu, "math": math},
}
