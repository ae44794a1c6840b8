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
    of_rows = {"Q": w.q_bytes, "K": w.k_bytes, "V": w.v_bytes, "O": w.o_bytes}
    return of_rows | dict.fromkeys("SP", w.score_bytes)


def alive_at_peak(w: Workload, *, training: bool = False, device: str = "cuda") -> dict[str, int]:
    """The tensors alive at the peak of a run of ``standard_attention``: label -> bytes.

    The run is that of :func:`attnmem.programs.run`: contiguous inputs, no causal mask. The peak is
    their sum: 2S + 4X in inference; when training 4S + 6X on CUDA, and 3S + 6X
    and one scalar on the CPU. S is one N×N tensor over batch and heads
    (``w.score_bytes``), X is one of Q, K, V, O (``w.head_bytes``). Where K, V and O have sizes of
    their own, 4X is Q + K + V + O, and 6X that with dO and dV.

    In inference the peak comes when O is allocated: S and P are still there. When training it
    comes inside the backward pass of softmax. PyTorch kept P, computed dP, and now writes dS;
    the CUDA kernel's wrapper allocates one more tensor for the product dP∘P
    (``softmax_backward_cuda_out`` in PyTorch's ``aten/src/ATen/native/cuda/SoftMax.cu``), which
    the CPU's kernel does not.

    Raises ``ValueError`` for ``training`` where S is smaller than one of Q, K, V, O (with equal
    sizes: N < d), and another moment of the backward pass may hold more; on the CPU for an O that
    is smaller than the scale as a tensor; and for a ``device`` other than ``"cuda"`` and ``"cpu"``.
    """
    if device not in ("cuda", "cpu"):
        raise ValueError(f"device must be 'cuda' or 'cpu', got {device!r}")
    alive = tensors(w)
    if device == "cpu" and w.o_bytes < SCALE_BYTES + w.element_bytes:
        raise ValueError(
            "O must be at least as large as the scale, which a CPU holds as a tensor of "
            f"{SCALE_BYTES} bytes and casts, got {w.o_bytes} bytes: {w}"
        )
    if training:
        if w.score_bytes < max(w.q_bytes, w.k_bytes, w.v_bytes, w.o_bytes):
            raise ValueError(
                "S must be at least as large as Q, K, V and O for the closed form of the training "
                f"peak (with equal sizes: seq_len at least head_dim={w.head_dim}), got {w}"
            )
        del alive["S"]
        alive |= {
            "dO": w.o_bytes,
            "dV": w.v_bytes,
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
    once; a head of K and V is read once for its group. Together they move 6S + 4X bytes, where 4X
    is Q + K + V + O.

    >>> from attnmem import Workload
    >>> w = Workload(batch=1, heads=12, seq_len=512, head_dim=64, dtype="float16")
    >>> [(step.name, step.intensity) for step in standard_steps(w)]
    [('QKᵀ', 51.2), ('scale', 0.25), ('softmax', 1.25), ('PV', 51.2)]
    """
    s, entries = w.score_bytes, w.score_elements
    # One multiplication and one addition per term.
    matmul, values = 2 * entries * w.head_dim, 2 * entries * w.output_shape[3]
    return tuple(
        Step(name, flops, read, written, matrix, w.dtype, special)
        for name, flops, read, written, matrix, special in (
            ("QKᵀ", matmul, w.q_bytes + w.k_bytes, s, True, 0),
            ("scale", entries, s, s, False, 0),
            ("softmax", SOFTMAX_OPS * entries, s, s, False, entries),
            ("PV", values, s + w.v_bytes, w.o_bytes, True, 0),
        )
    )
