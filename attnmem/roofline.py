"""The work of each step of standard attention, and what an accelerator allows.

Taught in :doc:`/intensity`, and against measured ceilings in :doc:`/roofline`.
"""

from attnmem.devices import Accelerator
from attnmem.speed import Ceilings
from attnmem.steps import SOFTMAX_OPS, Step
from attnmem.workload import Workload, dtype_name

#: From what share of a limit on we say that a step is limited by it, and not by its kernel: by
#: convention, since the shares of real steps lie everywhere between a quarter and one.
NEAR = 2 / 3

#: How much faster than the largest arrays those in a cache are, at least: more than one measurement
#: differs from the next.
CACHED = 1.1


def standard_steps(w: Workload) -> tuple[Step, ...]:
    """The forward steps of ``standard_attention`` in order, one per operation of PyTorch.

    They are QKᵀ, scale, softmax and PV, without a mask. Each reads its inputs and writes its output
    once; K and V have as many heads as Q. Together they move 6S + 4X bytes.

    >>> from attnmem import Workload
    >>> w = Workload(batch=1, heads=12, seq_len=512, head_dim=64, dtype="float16")
    >>> [(step.name, step.intensity) for step in standard_steps(w)]
    [('QKᵀ', 51.2), ('scale', 0.25), ('softmax', 1.25), ('PV', 51.2)]

    Taught in :ref:`intensity-qk` and :ref:`intensity-steps`.
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


def balance(accelerator: Accelerator, *, matrix: bool) -> float:
    """The balance point in FLOPs per byte: peak arithmetic over memory bandwidth.

    With ``matrix`` the peak is that of the matrix units on 16-bit inputs, else that of the
    vector units in 32 bit. Raises ``ValueError`` where the data sheet has no such rate. Source:
    Williams, Waterman, Patterson 2009, doi 10.1145/1498765.1498785 (there: ridge point).

    >>> from attnmem.devices import find
    >>> round(balance(find("H100 SXM"), matrix=True)), round(balance(find("A10"), matrix=False))
    (295, 52)

    Taught in :ref:`intensity-balance`.
    """
    peak = accelerator.peak_flops(matrix=matrix)
    if peak is None:
        raise ValueError(f"accelerator must have a vector rate, {accelerator.name!r} has none")
    return peak / accelerator.bandwidth


def limits(step: Step, accelerator: Accelerator) -> dict[str, float]:
    """The seconds that each part of ``accelerator`` needs at least for ``step``.

    ``"memory"`` for its bytes, ``"compute"`` for its FLOPs, ``"special functions"`` for its
    exponentials and the like; a part whose rate the data sheet does not have is left out. Every
    byte is taken to come from the device's memory, and the step to be long enough to hide the
    launch of its kernel.

    Raises ``ValueError`` for a matrix product that writes a dtype of 8 or 64 bits, whose rate is
    not listed.

    Taught in :ref:`intensity-roofline` and :ref:`intensity-traffic`.
    """
    bits = 8 * step.dtype.itemsize
    parts = {
        "memory": (step.bytes_moved, accelerator.bandwidth),
        "compute": (step.flops, accelerator.peak_flops(matrix=step.matrix, bits=bits)),
        "special functions": (step.special, accelerator.special_rate),
    }
    return {part: work / rate for part, (work, rate) in parts.items() if rate}


def bound(step: Step, accelerator: Accelerator) -> str:
    """Which part takes longest: a key of :func:`limits`, which raises what this raises.

    >>> from attnmem import Workload
    >>> from attnmem.devices import find
    >>> w = Workload(batch=1, heads=12, seq_len=8192, head_dim=128, dtype="float16")
    >>> [bound(step, find("RTX 3090")) for step in standard_steps(w)]
    ['compute', 'memory', 'memory', 'compute']

    Taught in :ref:`intensity-bound`.
    """
    found = limits(step, accelerator)
    return max(found, key=lambda part: found[part])


def attainable_seconds(step: Step, accelerator: Accelerator) -> float:
    """The least time in seconds that ``accelerator`` allows ``step``: the largest of its limits.

    Raises what :func:`limits` raises.

    >>> from attnmem import Workload
    >>> from attnmem.devices import find
    >>> w = Workload(batch=1, heads=12, seq_len=8192, head_dim=64, dtype="float16")
    >>> [f"{1e3 * attainable_seconds(step, find('H100 SXM')):.2f} ms" for step in standard_steps(w)]
    ['0.49 ms', '0.96 ms', '0.96 ms', '0.49 ms']

    Taught in :ref:`intensity-traffic`.
    """
    return max(limits(step, accelerator).values())


def measured_roof(step: Step, ceilings: Ceilings) -> tuple[str, float]:
    """Which measured ceiling holds ``step`` up most, and for how many seconds at least.

    ``"memory"``: to read its bytes as fast as a sum does, and write them as fast as a fill;
    ``"cache"`` where arrays of its size move faster than the largest do; or ``"compute"``. Other
    arithmetic than matrix products has no measured ceiling.

    Raises ``KeyError`` for a matrix product in a dtype whose rate ``ceilings`` does not have.

    Taught in :doc:`/roofline`.
    """
    bandwidth = ceilings.bandwidth_at(step.bytes_moved)
    if bandwidth > CACHED * max(ceilings.largest.values()):
        roofs = {"cache": step.bytes_moved / bandwidth}
    else:
        reading, writing = ceilings.largest["sum"], ceilings.largest["fill"]
        roofs = {"memory": step.bytes_read / reading + step.bytes_written / writing}
    if step.matrix:
        roofs["compute"] = step.flops / ceilings.matmul[dtype_name(step.dtype)]
    return max(roofs.items(), key=lambda item: item[1])


def share_of_roof(step: Step, seconds: float, ceilings: Ceilings) -> float:
    """What share of its :func:`measured_roof` a step reaches that takes ``seconds``.

    1 is the roof itself. Raises what :func:`measured_roof` raises.

    Taught in :doc:`/roofline`.
    """
    return measured_roof(step, ceilings)[1] / seconds


def verdict(step: Step, seconds: float, ceilings: Ceilings) -> str:
    """What limits a step that takes ``seconds``: a roof, ``"launches"``, or its ``"kernel"``.

    Two times are compared: the least time that its roof allows, and that of a launch. If the longer
    of them is at least :data:`NEAR` of the measured time, it is the limit; else the kernel is.
    Raises what :func:`measured_roof` raises.

    Taught in :doc:`/roofline`.
    """
    roof, least = measured_roof(step, ceilings)
    if max(least, ceilings.launch) < NEAR * seconds:
        return "kernel"
    return roof if least > ceilings.launch else "launches"
