"""The work of each step of standard attention, and what an accelerator allows."""

from attnmem.devices import Accelerator
from attnmem.steps import SOFTMAX_OPS, Step
from attnmem.workload import Workload


def standard_steps(w: Workload) -> tuple[Step, ...]:
    """The forward steps of ``standard_attention`` in order, one per operation of PyTorch."""
    x, s, entries = w.head_bytes, w.score_bytes, w.score_elements
    matmul = 2 * entries * w.head_dim  # one multiplication and one addition per term
    return tuple(
        Step(name, flops, read, written, matrix, w.dtype)
        for name, flops, read, written, matrix in (
            ("QKᵀ", matmul, 2 * x, s, True),
            ("scale", entries, s, s, False),
            ("softmax", SOFTMAX_OPS * entries, s, s, False),
            ("PV", matmul, s + x, x, True),
        )
    )


def balance(accelerator: Accelerator, *, matrix: bool) -> float:
    """The balance point in FLOPs per byte: peak arithmetic over memory bandwidth.

    With ``matrix`` the peak is that of the matrix units on 16-bit inputs, else that of the
    vector units in 32 bit. Source: Williams, Waterman, Patterson 2009,
    doi 10.1145/1498765.1498785 (there: ridge point).
    """
    return accelerator.peak_flops(matrix=matrix) / accelerator.bandwidth


def bound(step: Step, accelerator: Accelerator) -> str:
    """``"memory"`` or ``"compute"``: which of the two takes longer on ``accelerator``.

    It assumes that every byte comes from the device's memory and not from a cache, and that the
    step is long enough to hide the launch of its kernel. Raises ``ValueError`` for a matrix step
    that is not in 16 bit: ``accelerator`` has no rate for it.
    """
    computing, moving = _seconds(step, accelerator)
    return "compute" if computing >= moving else "memory"


def attainable_seconds(step: Step, accelerator: Accelerator) -> float:
    """The least time in seconds that ``accelerator`` allows ``step``, as :func:`bound` assumes."""
    return max(_seconds(step, accelerator))


def _seconds(step: Step, accelerator: Accelerator) -> tuple[float, float]:
    if step.matrix and step.dtype.itemsize != 2:
        raise ValueError(
            f"step {step.name!r} must be in 16 bit: matrix rates of accelerators are; "
            f"got {step.dtype}"
        )
    computing = step.flops / accelerator.peak_flops(matrix=step.matrix)
    return computing, step.bytes_moved / accelerator.bandwidth
