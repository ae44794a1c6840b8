"""Standard attention in closed form: its tensors, the peak of a run, the work of its steps."""

from attnmem.timeline import SOFTMAX_OPS, Step
from attnmem.workload import Workload

# PyTorch wraps the Python float in `q @ kᵀ * scale` in a CPU tensor of one float64, and keeps
# it for backward. It lives in CPU memory, so only a run on the CPU counts it.
SCALE_BYTES = 8


def tensors(w: Workload) -> dict[str, int]:
    """The bytes of each tensor that O = softmax(QKᵀ/√d)·V names: label -> bytes.

    >>> from attnmem import Workload
    >>> w = Workload(batch=1, heads=12, seq_len=512, head_dim=64, dtype="float16")
    >>> tensors(w)["Q"], tensors(w)["S"]
    (786432, 6291456)
    """
    return dict.fromkeys("QKVO", w.head_bytes) | dict.fromkeys("SP", w.score_bytes)


def alive_at_peak(w: Workload, *, training: bool = False, device: str = "cuda") -> dict[str, int]:
    """The tensors alive at the peak of a run of ``standard_attention``: label -> bytes.

    The run is that of :func:`attnmem.programs.run`: contiguous inputs, no causal mask. The peak is
    their sum: 2S + 4X in inference; when training 4S + 6X on CUDA, and 3S + 6X
    and one scalar on the CPU. S is one N×N tensor over batch and heads
    (``w.score_bytes``), X is one of Q, K, V, O (``w.head_bytes``).

    In inference the peak comes when O is allocated: S and P are still there. When training it
    comes inside the backward pass of softmax. PyTorch kept P, computed dP, and now writes dS;
    the CUDA kernel's wrapper allocates one more tensor for the product dP∘P
    (``softmax_backward_cuda_out`` in PyTorch's ``aten/src/ATen/native/cuda/SoftMax.cu``), which
    the CPU's kernel does not.

    Raises ``ValueError`` for ``training`` with N < d, where another moment of the backward pass
    holds more, and for a ``device`` other than ``"cuda"`` and ``"cpu"``.
    """
    if device not in ("cuda", "cpu"):
        raise ValueError(f"device must be 'cuda' or 'cpu', got {device!r}")
    alive = tensors(w)
    if training:
        if w.seq_len < w.head_dim:
            raise ValueError(
                f"seq_len must be at least head_dim={w.head_dim} for the closed form of the "
                f"training peak, got {w.seq_len}"
            )
        del alive["S"]
        alive |= {
            "dO": w.head_bytes,
            "dV": w.head_bytes,
            "dP": w.score_bytes,
            "dS": w.score_bytes,
        }
        alive |= {"dP∘P": w.score_bytes} if device == "cuda" else {"1/√d": SCALE_BYTES}
    return alive


def peak_bytes(w: Workload, *, training: bool = False, device: str = "cuda") -> int:
    """The peak of a run of ``standard_attention``, in bytes, inputs included.

    The sum of :func:`alive_at_peak`, with the same conditions.

    >>> from attnmem import Workload
    >>> w = Workload(batch=1, heads=12, seq_len=512, head_dim=64, dtype="float16")
    >>> peak_bytes(w) == 2 * w.score_bytes + 4 * w.head_bytes
    True
    """
    return sum(alive_at_peak(w, training=training, device=device).values())


def standard_steps(w: Workload) -> tuple[Step, ...]:
    """The forward steps of ``standard_attention`` in order, one per operation of PyTorch.

    They are QKᵀ, scale, softmax and PV, without a mask. Each reads its inputs and writes its output
    once; K and V have as many heads as Q. Together they move 6S + 4X bytes.

    >>> from attnmem import Workload
    >>> w = Workload(batch=1, heads=12, seq_len=512, head_dim=64, dtype="float16")
    >>> [(step.name, step.intensity) for step in standard_steps(w)]
    [('QKᵀ', 51.2), ('scale', 0.25), ('softmax', 1.25), ('PV', 51.2)]
    """
    x, s, entries = w.head_bytes, w.score_bytes, w.score_elements
    matmul = 2 * entries * w.head_dim  # one multiplication and one addition per term
    return tuple(
        Step(name, flops, read, written, matrix, w.dtype, special)
        for name, flops, read, written, matrix, special in (
            ("QKᵀ", matmul, 2 * x, s, True, 0),
            ("scale", entries, s, s, False, 0),
            ("softmax", SOFTMAX_OPS * entries, s, s, False, entries),
            ("PV", matmul, s + x, x, True, 0),
        )
    )
