"""Calls of attention in which each rule of each kernel decides."""

import contextlib
import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnmem.prediction.choice import BACKENDS, Choice, kernel_for
from attnmem.prediction.obstacles import FIRST_FLASH, KERNELS

Shape = tuple[int, ...]
Tensor = torch.Tensor
Layout = Literal["contiguous", "model", "columns", "shifted", "expanded"]
ENUM = {name: SDPBackend(number) for number, name in BACKENDS.items()}


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A call of ``F.scaled_dot_product_attention`` and PyTorch's state around it.

    ``layout``: ``"model"`` is ``[B, N, H, d]`` transposed, in ``"columns"`` the last dimension has
    another stride than 1, ``"shifted"`` begins one element into its memory, ``"expanded"`` repeats
    one number. ``grads``: letters of q, k, v and m, the mask. With ``ordered`` the ``backends`` are
    in order of priority.
    """

    q: Shape = (2, 8, 128, 64)
    k: Shape | None = None  # None: as Q
    v: Shape | None = None  # None: as K
    dtype: str = "float16"
    layout: Layout = "contiguous"
    mask: Shape | None = None
    mask_dtype: str = "bool"
    mask_layout: Layout = "contiguous"
    grads: str = ""
    dropout: float = 0.0
    causal: bool = False
    enable_gqa: bool = False
    backends: tuple[str, ...] = KERNELS
    ordered: bool = False
    deterministic: bool = False

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Configuration":
        """That of a recorded row."""
        own: Any = {k: tuple(x) if isinstance(x, list) else x for k, x in fields.items()}
        return cls(**own)

    def tensors(self, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Q, K, V and the mask, without particular numbers."""
        k = self.k or self.q
        q, k_, v = (
            _tensor(shape, self.dtype, self.layout, device, letter in self.grads)
            for letter, shape in (("q", self.q), ("k", k), ("v", self.v or k))
        )
        if self.mask is None:
            return q, k_, v, None
        needs_grad = "m" in self.grads
        return q, k_, v, _tensor(self.mask, self.mask_dtype, self.mask_layout, device, needs_grad)

    @contextlib.contextmanager
    def state(self) -> Iterator[None]:
        """PyTorch's state as the configuration wants it."""
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(self.deterministic)
        try:
            with sdpa_kernel([ENUM[name] for name in self.backends], set_priority=self.ordered):
                yield
        finally:
            torch.use_deterministic_algorithms(before)

    def predicted(self, device: Literal["cuda", "cpu"] = "cuda", **circumstances: Any) -> Choice:
        """The choice by :func:`attnmem.prediction.choice.kernel_for`, whose arguments these are."""
        later = tuple(name for name in FIRST_FLASH if name not in self.backends)
        order = {"priority": self.backends + later} if self.ordered else {}
        with self.state():
            return kernel_for(
                *self.tensors("meta"),
                self.dropout,
                self.causal,
                enable_gqa=self.enable_gqa,
                device=device,
                **order | circumstances,
            )

    def chosen(self, device: str) -> str | None:
        """The choice of PyTorch itself on a real device; ``None``: it finds no kernel."""
        q, k, v, mask = self.tensors(device)
        with self.state(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of each reason where it finds none
            try:
                number = torch._fused_sdp_choice(
                    q, k, v, mask, self.dropout, self.causal, enable_gqa=self.enable_gqa
                )
            except RuntimeError as error:
                if "No available kernel" in str(error) or "No viable backend" in str(error):
                    return None
                raise
        return BACKENDS[number]


def _tensor(
    shape: Shape, dtype: str, layout: Layout, device: str, needs_grad: bool
) -> torch.Tensor:
    options: dict[str, Any] = {"dtype": getattr(torch, dtype), "device": device}
    if layout == "expanded":
        x = torch.empty((1,) * len(shape), **options).expand(shape)
    elif layout == "shifted":
        x = torch.empty(torch.Size(shape).numel() + 1, **options)[1:].view(shape)
    else:
        swapped = {"contiguous": (-1, -1), "columns": (-1, -2), "model": (-2, -3)}[layout]
        x = torch.empty(shape, **options).transpose(*swapped).contiguous().transpose(*swapped)
    return x.requires_grad_(needs_grad)


def _shape(heads: int = 8, n: int = 128, d: int = 64, batch: int = 2) -> Shape:
    return batch, heads, n, d


DTYPES = ("float16", "bfloat16", "float32", "float64")
HEAD_DIMS = (1, 4, 20, 33, 64, 96, 128, 136, 192, 200, 256, 264, 320)
VALUE_DIMS = ((64, 32), (64, 128), (64, 36), (60, 64), (192, 128), (128, 256), (64, 320))
GROUPS = (
    *itertools.product(((8, 8), (1, 1)), (False, True)),
    *itertools.product(((2, 2), (3, 3), (4, 2), (2, 8), (8, 2), (16, 16)), (True,)),
)
MASKS: tuple[Shape, ...] = (
    *((128, 128), (1, 128), (128, 1), (8, 128, 128), (1, 1, 1, 1)),
    *((2, 1, 128, 128), (1, 8, 1, 128), (2, 8, 128, 128)),
)
LAYOUTS: tuple[Layout, ...] = ("model", "columns", "shifted", "expanded")
LENGTHS = ((1, 128), (128, 1), (1, 1), (64, 128), (128, 64), (0, 128), (128, 0))
BACKEND_LISTS: tuple[tuple[str, ...], ...] = tuple(
    chosen for n in (1, 2, 3) for chosen in itertools.combinations(KERNELS, n)
)


def configurations() -> list[Configuration]:
    """Calls in which every rule of every kernel decides, and those beside it do not.

    >>> len(configurations()) >= 240
    True
    """
    return list(dict.fromkeys(itertools.chain(_dims(), _heads(), _masks(), _lengths(), _state())))


def _dims() -> Iterator[Configuration]:
    for dtype, d in itertools.product(DTYPES, HEAD_DIMS):
        yield Configuration(q=_shape(d=d), dtype=dtype)
    for dtype, (d, d_v) in itertools.product(DTYPES[::2], VALUE_DIMS):
        yield Configuration(q=_shape(d=d), v=_shape(d=d_v), dtype=dtype)
    yield Configuration(k=_shape(d=32), v=_shape(d=64))
    for d, dropout in itertools.product((192, 200, 224, 256), (0.0, 0.25)):
        yield Configuration(q=_shape(d=d), dropout=dropout, grads="qkv")
    for layout, d in itertools.product(LAYOUTS, (1, 64)):
        for dtype in DTYPES[::2]:
            yield Configuration(q=_shape(d=d), layout=layout, dtype=dtype)


def _heads() -> Iterator[Configuration]:
    for dtype, d in (("float16", 64), ("float32", 64), ("float16", 320), ("float16", 33)):
        for (k, v), on in GROUPS:
            of_k, of_v = _shape(k, d=d), _shape(v, d=d)
            yield Configuration(q=_shape(d=d), k=of_k, v=of_v, dtype=dtype, enable_gqa=on)
    grouped = Configuration(k=_shape(2), enable_gqa=True)
    yield replace(grouped, grads="qkv")
    yield replace(grouped, mask=(128, 128))
    yield replace(grouped, causal=True)
    yield Configuration(k=_shape(batch=1))
    yield Configuration(q=_shape(batch=0))
    for batch, heads in ((65535, 1), (65536, 1), (1, 65536)):
        yield Configuration(q=(batch, heads, 2, 8))
    for shape in ((128, 64), (8, 128, 64), (2, 2, 8, 128, 64)):
        yield Configuration(q=shape)


def _masks() -> Iterator[Configuration]:
    for shape, dtype in itertools.product(MASKS, ("bool", "float16")):
        yield Configuration(mask=shape, mask_dtype=dtype)
        yield Configuration(mask=shape, mask_dtype=dtype, grads="qkv")
    for dtype in ("float16", "float32"):
        for grads in ("m", "qkvm"):
            yield Configuration(mask=(128, 128), dtype=dtype, mask_dtype=dtype, grads=grads)
    for layout in LAYOUTS[1:]:
        yield Configuration(mask=(128, 128), mask_layout=layout)
    for shape in ((128, 64), (3, 1, 128, 128), (2, 3, 128, 128)):
        yield Configuration(mask=shape)
    yield Configuration(mask=(128, 128), causal=True)


def _lengths() -> Iterator[Configuration]:
    for (n, m), causal in itertools.product(LENGTHS, (False, True)):
        yield Configuration(q=_shape(n=n), k=_shape(n=m), causal=causal)
    for n, m, dropout in itertools.product((1, 128), (2, 128), (0.1, 0.25, 0.0625)):
        yield Configuration(q=_shape(n=n), k=_shape(n=m), dropout=dropout)
    for dtype in DTYPES[2:]:
        yield Configuration(dtype=dtype, dropout=0.1, causal=True)


def _state() -> Iterator[Configuration]:
    calls = (
        Configuration(),
        Configuration(dtype="float32"),
        Configuration(mask=(128, 128)),
        Configuration(k=_shape(2), enable_gqa=True),
    )
    for call, backends in itertools.product(calls, BACKEND_LISTS):
        yield replace(call, backends=backends)
    for call, backends in itertools.product(calls, itertools.permutations(KERNELS)):
        if backends.index("math") > 1:
            yield replace(call, backends=backends, ordered=True)
    yield Configuration(deterministic=True)
    yield Configuration(mask=(128, 128), deterministic=True)
