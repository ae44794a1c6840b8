"""The problem under study: the sizes of Q, K, V and of the scores between them."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The shapes of one attention call: Q, K and V are ``[batch, heads, seq_len, head_dim]``.

    ``dtype`` is a floating-point torch dtype, or its name (``"float16"``).

    Raises ``ValueError`` for a size that is not a positive integer, and for a ``dtype`` that
    is unknown or not floating-point.

    >>> w = Workload(batch=1, heads=12, seq_len=512, head_dim=64, dtype="float16")
    >>> w.head_elements, w.score_elements
    (393216, 3145728)
    >>> w.head_bytes, w.score_bytes
    (786432, 6291456)
    """

    batch: int
    heads: int
    seq_len: int
    head_dim: int
    dtype: torch.dtype

    def __post_init__(self) -> None:
        for name in ("batch", "heads", "seq_len", "head_dim"):
            size = getattr(self, name)
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {size!r}")
        object.__setattr__(self, "dtype", _floating_dtype(self.dtype))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of Q, K, V and O: ``(B, H, N, d)``."""
        return self.batch, self.heads, self.seq_len, self.head_dim

    @property
    def element_bytes(self) -> int:
        """e: the bytes that one element takes."""
        return self.dtype.itemsize

    @property
    def head_elements(self) -> int:
        """The number of elements in one of Q, K, V, O: B·H·N·d."""
        return self.batch * self.heads * self.seq_len * self.head_dim

    @property
    def score_elements(self) -> int:
        """The number of elements in one of S, P: B·H·N²."""
        return self.batch * self.heads * self.seq_len**2

    @property
    def head_bytes(self) -> int:
        """X: the bytes of one of Q, K, V, O: B·H·N·d·e."""
        return self.head_elements * self.element_bytes

    @property
    def score_bytes(self) -> int:
        """S: the bytes of one of S, P: B·H·N²·e."""
        return self.score_elements * self.element_bytes


def ceil_div(size: int, part: int) -> int:
    """How many parts cover ``size``: the quotient, rounded up."""
    return -(-size // part)


def round_up(size: int, multiple: int) -> int:
    """``size``, rounded up to a multiple."""
    return ceil_div(size, multiple) * multiple


def shape_text(tensor: torch.Tensor) -> str:
    """A tensor's dtype and shape in the book's notation.

    >>> shape_text(torch.empty(1, 12, 512, 64, dtype=torch.bfloat16))
    'bf16[1, 12, 512, 64]'
    """
    kind = dtype_name(tensor.dtype).replace("float", "f")
    return f"{kind}{list(tensor.shape)}"


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a dtype as :class:`Workload` takes it.

    >>> dtype_name(torch.bfloat16)
    'bfloat16'
    """
    return str(dtype).removeprefix("torch.")


def _floating_dtype(dtype: object) -> torch.dtype:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if isinstance(found, torch.dtype) and found.is_floating_point:
        return found
    raise ValueError(
        "dtype must be a floating-point torch dtype or its name, such as torch.float16 or "
        f"'float16', got {dtype!r}"
    )
