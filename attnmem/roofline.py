"""The work of each step of standard attention, and what an accelerator allows."""

from dataclasses import dataclass

from attnmem.devices import Accelerator
from attnmem.workload import Workload

# Operations per element of softmax, by convention: compare for the maximum, subtract, exp, add
# to the sum, divide. Source: Yuan et al. 2024, arXiv 2402.16363, Table 1 (1.25 FLOP/B in 16 bit).
SOFTMAX_OPS = 5


@dataclass(frozen=True)
class Step:
    """One step of a program: its FLOPs, and the bytes that it reads and writes.

    Each operand is counted once, as if the step were one kernel that reads its inputs from the
    device's memory and writes its result there. ``matrix`` tells whether matrix units do the
    arithmetic.
    """

    name: str
    flops: int
    bytes_read: int
    bytes_written: int
    matrix: bool

    @property
    def bytes_moved(self) -> int:
        """Bytes read and written."""
        return self.bytes_read + self.bytes_written

    @property
    def intensity(self) -> float:
        """Arithmetic intensity, in FLOPs per byte moved."""
        return self.flops / self.bytes_moved


def standard_steps(w: Workload) -> tuple[Step, ...]:
    """The forward steps of ``standard_attention`` in order, one per kernel that it launches."""
    x, s, entries = w.head_bytes, w.score_bytes, w.score_elements
    matmul = 2 * entries * w.head_dim  # one multiplication and one addition per term
    return (
        Step("QKᵀ", matmul, bytes_read=2 * x, bytes_written=s, matrix=True),
        Step("scale", entries, bytes_read=s, bytes_written=s, matrix=False),
        Step("softmax", SOFTMAX_OPS * entries, bytes_read=s, bytes_written=s, matrix=False),
        Step("PV", matmul, bytes_read=s + x, bytes_written=x, matrix=True),
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
    step is long enough to hide the launch of its kernel.
    """
    return "memory" if step.intensity < balance(accelerator, matrix=step.matrix) else "compute"


def attainable_seconds(step: Step, accelerator: Accelerator) -> float:
    """The least time in seconds that ``accelerator`` allows ``step``, as :func:`bound` assumes."""
    return max(
        step.flops / accelerator.peak_flops(matrix=step.matrix),
        step.bytes_moved / accelerator.bandwidth,
    )
