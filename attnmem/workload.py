"""The problem under study: the sizes of Q, K, V and of the scores between them."""

import math
from dataclasses import dataclass

import torch

#: The sizes that K and V may have of their own.
OF_KEYS = ("kv_len", "kv_heads", "value_dim")


@dataclass(frozen=True, kw_only=True, repr=False)
class Workload:
    """The shapes of one attention call: Q, K and V are ``[batch, heads, seq_len, head_dim]``.

    ``dtype`` is a floating-point torch dtype, or its name (``"float16"``). ``kv_len`` and
    ``kv_heads``: length and heads of K and V, ``value_dim``: the head dimension of V and O; where
    they are ``None``, those of Q. Each head of K and V serves ``heads / kv_heads`` heads of Q.

    Raises ``ValueError`` for a size that is not a positive integer, for ``kv_heads`` that do not
    divide ``heads``, and for a ``dtype`` that is unknown or not floating-point.

    >>> w = Workload(batch=1, heads=12, seq_len=512, head_dim=64, dtype="float16")
    >>> w.head_elements, w.score_elements
    (393216, 3145728)
    >>> w.head_bytes, w.score_bytes
    (786432, 6291456)
    >>> token = Workload(batch=1, heads=32, seq_len=1, head_dim=128, dtype="bfloat16",
    ...                  kv_len=8192, kv_heads=8)
    >>> token.k_bytes + token.v_bytes, token.score_bytes
    (33554432, 524288)
    """

    batch: int
    heads: int
    seq_len: int
    head_dim: int
    dtype: torch.dtype
    kv_len: int | None = None
    kv_heads: int | None = None
    value_dim: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "heads", "seq_len", "head_dim", *OF_KEYS):
            size = getattr(self, name)
            if size is None and name in OF_KEYS:
                continue
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {size!r}")
        if self.kv_heads and self.heads % self.kv_heads:
            raise ValueError(f"kv_heads must divide heads={self.heads}, got {self.kv_heads}")
        object.__setattr__(self, "dtype", _floating_dtype(self.dtype))

    def __repr__(self) -> str:
        values = vars(self).items()
        return f"Workload({', '.join(f'{k}={v!r}' for k, v in values if v is not None)})"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of Q: ``(B, H, N, d)``; of K, V and O too, where nothing else is said."""
        return self.batch, self.heads, self.seq_len, self.head_dim

    @property
    def key_shape(self) -> tuple[int, int, int, int]:
        """The shape of K: ``(B, kv_heads, M, d)``, M being ``kv_len``."""
        return self.batch, self.kv_heads or self.heads, self.kv_len or self.seq_len, self.head_dim

    @property
    def value_shape(self) -> tuple[int, int, int, int]:
        """The shape of V: that of K, with ``value_dim``."""
        return *self.key_shape[:3], self.value_dim or self.head_dim

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of Q, K and V."""
        return self.shape, self.key_shape, self.value_shape

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """The shape of O: that of Q, with ``value_dim``."""
        return *self.shape[:3], self.value_shape[3]

    @property
    def groups(self) -> int:
        """How many heads of Q share a head of K and V."""
        return self.heads // self.key_shape[1]

    @property
    def element_bytes(self) -> int:
        """e: the bytes that one element takes."""
        return self.dtype.itemsize

    @property
    def head_elements(self) -> int:
        """The number of elements in Q, or in any of Q, K, V, O of equal sizes: B·H·N·d."""
        return math.prod(self.shape)

    @property
    def score_elements(self) -> int:
        """The number of elements in one of S, P: B·H·N·M, where M is N if not said."""
        return self.batch * self.heads * self.seq_len * self.key_shape[2]

    @property
    def head_bytes(self) -> int:
        """X: the bytes of Q, or of any of Q, K, V, O of equal sizes: B·H·N·d·e."""
        return self.head_elements * self.element_bytes

    @property
    def q_bytes(self) -> int:
        """The bytes of Q."""
        return self.head_bytes

    @property
    def k_bytes(self) -> int:
        """The bytes of K."""
        return math.prod(self.key_shape) * self.element_bytes

    @property
    def v_bytes(self) -> int:
        """The bytes of V."""
        return math.prod(self.value_shape) * self.element_bytes

    @property
    def o_bytes(self) -> int:
        """The bytes of O."""
        return math.prod(self.output_shape) * self.element_bytes

    @property
    def score_bytes(self) -> int:
        """S: the bytes of one of S, P: B·H·N·M·e."""
        return self.score_elements * self.element_bytes


def equal_sizes(w: Workload, what: str) -> None:
    """Refuse a workload whose K, V or O have other sizes than Q, for ``what``: ``ValueError``."""
    if any(shape != w.shape for shape in (*w.shapes, w.output_shape)):
        other = {name: getattr(w, name) for name in OF_KEYS if getattr(w, name) is not None}
        raise ValueError(f"{', '.join(other)} must be those of Q for {what}, got {other} in {w}")


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
