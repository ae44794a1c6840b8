"""Which kernel scaled_dot_product_attention takes, and why not each other one."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

import torch

from attnmem.prediction.obstacles import (
    CUDNN,
    FIRST_FLASH,
    KERNELS,
    NEWEST,
    OFF,
    RULES,
    Call,
    Operand,
)
from attnmem.prediction.refusal import warn
from attnmem.workload import Workload

BACKENDS = {0: "math", 1: "flash", 2: "efficient", 3: "cudnn"}  # SDPBackend
ASSUMED: ContextVar[dict[str, Any]] = ContextVar("assumed", default={})  # noqa: B039


@dataclass(frozen=True)
class Choice:
    """The kernel that PyTorch takes; ``None``: it has none, and raises ``RuntimeError``.

    ``reasons``: each kernel, and why it is not taken; nothing for the one that is. ``possible``:
    the kernels that can be taken, in PyTorch's order: the first is.
    """

    kernel: str | None
    reasons: dict[str, tuple[str, ...]]
    possible: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.kernel} is taken" if self.kernel else "no kernel can be taken"]
        for name, reasons in self.reasons.items():
            if reasons:
                lines.append(f"{name} is not taken: {'; '.join(reasons)}")
        if self.kernel in (None, "math"):
            lines.append(self._advice())
        return "\n".join(lines)

    def _advice(self) -> str:
        for name in self.possible:
            if name != "math":
                return f"for a fused kernel, choose {name} with torch.nn.attention.sdpa_kernel"
        fused = [name for name in KERNELS[:3] if OFF not in self.reasons[name]] or KERNELS[:3]
        fewest = min(len(self.reasons[name]) for name in fused)
        nearest = [name for name in fused if len(self.reasons[name]) == fewest]
        what = "that reason" if fewest == 1 else f"those {fewest} reasons"
        of = nearest[0] if len(nearest) == 1 else f"one of them: {', '.join(nearest)}"
        return f"for a fused kernel, remove {what} of {of}"


def which_kernel(
    w: Workload,
    *,
    kv_heads: int | None = None,
    kv_len: int | None = None,
    value_dim: int | None = None,
    mask: Literal["bool", "float"] | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    enable_gqa: bool = True,
    training: bool = False,
    device: Literal["cuda", "cpu"] = "cuda",
    capability: tuple[int, int] = (9, 0),
) -> Choice:
    """The kernel that ``F.scaled_dot_product_attention`` takes, and why not the others.

    ``kv_heads``, ``kv_len`` and ``value_dim``: heads and length of K and V, and the head dimension
    of V, where they are not those of ``w``. A mask is ``[N, M]``. Around it ``sdpa_kernel`` has its
    say. Of a PyTorch newer than the rules it warns. :func:`kernel_for` answers for tensors.

    >>> w = Workload(batch=2, heads=8, seq_len=512, head_dim=64, dtype="float32")
    >>> print(which_kernel(w, kv_heads=2))
    math is taken
    cudnn is not taken: float32: it takes float16 and bfloat16
    flash is not taken: float32: it takes float16 and bfloat16
    efficient is not taken: K has 2 heads for 8 of Q: repeat K and V
    for a fused kernel, remove that reason of one of them: cudnn, flash, efficient
    """
    of_w = w.value_shape
    keys = w.batch, of_w[1] if kv_heads is None else kv_heads, kv_len or of_w[2]
    kinds = {"bool": torch.bool, "float": w.dtype}
    call = Call(
        q=Operand.new(w.shape, w.dtype, training),
        k=Operand.new((*keys, w.head_dim), w.dtype, training),
        v=Operand.new((*keys, value_dim or of_w[3]), w.dtype, training),
        mask=Operand.new((w.seq_len, keys[2]), kinds[mask]) if mask else None,
        dropout=dropout,
        causal=causal,
        enable_gqa=enable_gqa,
        training=training,
        device=device,
        capability=capability,
        **_settings(),
    )
    return choose(call)


def kernel_for(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    device: Literal["cuda", "cpu"] = "cuda",
    **circumstances: Any,
) -> Choice:
    """As :func:`which_kernel`, for the arguments of ``F.scaled_dot_product_attention``.

    The tensors may be on any device, ``meta`` too. ``circumstances``: other fields of
    :class:`attnmem.prediction.obstacles.Call`, such as ``capability=(8, 0)`` or ``training=False``;
    by default autograd records as it does now. ``scale`` has no say.
    """
    call = Call(
        q=Operand.of(query),
        k=Operand.of(key),
        v=Operand.of(value),
        mask=None if attn_mask is None else Operand.of(attn_mask),
        dropout=dropout_p,
        causal=is_causal,
        enable_gqa=enable_gqa,
        device=device,
        **{"training": torch.is_grad_enabled()} | _settings() | circumstances,
    )
    return choose(call)


def choose(call: Call) -> Choice:
    """select_sdp_backend, cuda/sdp_utils.cpp, and select_sdp_backend_cpp, sdp_utils_cpp.cpp.

    Warns of a release newer than :data:`attnmem.prediction.obstacles.NEWEST`.
    """
    if call.release > NEWEST:
        newest, release = (".".join(map(str, version)) for version in (NEWEST, call.release))
        warn(
            f"PyTorch {release} may choose otherwise: attnmem knows the rules of "
            f"scaled_dot_product_attention up to PyTorch {newest}. To choose the kernel yourself, "
            "use torch.nn.attention.sdpa_kernel"
        )
    obstacles = {name: tuple(RULES[call.device][name](call)) for name in KERNELS}
    order = priority(call)
    possible = tuple(name for name in order if not obstacles[name])
    kernel = possible[0] if possible else None
    later = (f"{kernel} comes before it: the order is {', '.join(order)}",)
    reasons = {
        name: found or (() if name == kernel else later) for name, found in obstacles.items()
    }
    return Choice(kernel, reasons, possible)


def priority(call: Call) -> tuple[str, ...]:
    """The order in which kernels are tried: priority_order, cuda/sdp_utils.cpp.

    check_prefer_cudnn_attention there sets cuDNN first, unless ``sdpa_kernel(…,
    set_priority=True)`` has set an order.
    """
    if call.device == "cpu":
        return "flash", "math"
    if call.priority:
        return call.priority
    major, minor = call.capability
    preferred = major in (9, 10) and (minor in (0, 3) or call.release >= (2, 13))
    return KERNELS if preferred and call.cudnn > 91500 else FIRST_FLASH


def _settings() -> dict[str, Any]:
    """The circumstances that PyTorch's own state tells."""
    cuda: Any = torch.backends.cuda
    switches = {
        "cudnn": cuda.cudnn_sdp_enabled(),
        "flash": cuda.flash_sdp_enabled(),
        "efficient": cuda.mem_efficient_sdp_enabled(),
        "math": cuda.math_sdp_enabled(),
    }
    numbers = torch._C._get_sdp_priority_order()
    order = tuple(BACKENDS[number] for number in numbers if number in BACKENDS)
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    return {
        "enabled": tuple(name for name, on in switches.items() if on),
        # One of the two orders that PyTorch itself sets does not tell who has set it.
        "priority": None if order in (KERNELS, FIRST_FLASH) else order,
        "deterministic": torch.are_deterministic_algorithms_enabled() and not warn_only,
        "release": release(),
        "cudnn": known_cudnn() or CUDNN,
    } | ASSUMED.get()


def release() -> tuple[int, int]:
    """PyTorch's, such as ``(2, 13)``, or the one that :func:`assuming` says."""
    major, minor = torch.__version__.split(".")[:2]
    found: tuple[int, int] = ASSUMED.get().get("release", (int(major), int(minor)))
    return found


@contextlib.contextmanager
def assuming(**circumstances: Any) -> Iterator[None]:
    """Choose inside as in other ``circumstances``, fields of :class:`Call`, also in a trace.

    >>> w = Workload(batch=2, heads=8, seq_len=512, head_dim=64, dtype="float16")
    >>> with assuming(release=(2, 11), cudnn=91300):
    ...     which_kernel(w).kernel
    'flash'
    """
    token = ASSUMED.set(ASSUMED.get() | circumstances)
    try:
        yield
    finally:
        ASSUMED.reset(token)


def known_cudnn() -> int | None:
    """The version of cuDNN assumed, or in this PyTorch; ``None`` in a build for CPUs."""
    assumed: int | None = ASSUMED.get().get("cudnn")
    return assumed or torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
