"""What holds a step up: the limits of an accelerator, its ridge point, measured ceilings."""

from dataclasses import dataclass, field

from attnmem.catalog.accelerators import Accelerator
from attnmem.timeline import Step
from attnmem.workload import dtype_name

#: From what share of a limit on we say that a step is limited by it, and not by its kernel: by
#: convention, since the shares of real steps lie everywhere between a quarter and one.
NEAR = 2 / 3

#: How much faster than the largest arrays those in a cache are, at least: more than one measurement
#: differs from the next.
CACHED = 1.1


@dataclass(frozen=True)
class Ceilings:
    """How fast a device was at what it should be fast at.

    ``bandwidth``: of arrays of so many bytes, read and written together, the bytes per second of
    the fastest of copy, triad, fill and sum. ``matmul``: dtype name -> FLOP/s of the fastest of
    some large matrix products of random numbers. ``launch``: seconds from one tiny matrix product
    to the next; other steps may start in less. ``largest``: the bytes per second of copy, triad,
    fill and sum, by name, on the largest arrays. ``clock``: dtype name -> cycles per second of a
    GPU's multiprocessors while that fastest product runs; empty on a CPU.

    >>> largest = {"copy": 3e12, "triad": 3e12, "fill": 3.3e12, "sum": 3.1e12}
    >>> found = Ceilings({2**25: 4e12, 2**32: 3.3e12}, largest, {"float16": 7.6e14}, launch=1e-5)
    >>> found.bandwidth_at(2**20), found.bandwidth_at(2**30)
    (4000000000000.0, 3300000000000.0)
    """

    bandwidth: dict[int, float]
    largest: dict[str, float]
    matmul: dict[str, float]
    launch: float
    clock: dict[str, float] = field(default_factory=dict)

    def bandwidth_at(self, size: int) -> float:
        """Bytes per second for ``size`` bytes, which caches may hold.

        The best of the next size up that was measured and of all larger ones.
        """
        fitting = [n for n in self.bandwidth if n >= size] or [max(self.bandwidth)]
        return max(self.bandwidth[n] for n in self.bandwidth if n >= min(fitting))


def ridge_point(accelerator: Accelerator, *, matrix: bool) -> float:
    """The ridge point in FLOPs per byte: peak arithmetic over memory bandwidth.

    With ``matrix`` the peak is that of the matrix units on 16-bit inputs, else that of the
    vector units in 32 bit. Raises ``ValueError`` where the data sheet has no such rate. Source:
    Williams, Waterman, Patterson 2009, doi 10.1145/1498765.1498785 (there: ridge point).

    >>> from attnmem.catalog import accelerator
    >>> round(ridge_point(accelerator("H100 SXM"), matrix=True))
    295
    >>> round(ridge_point(accelerator("A10"), matrix=False))
    52
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
    >>> from attnmem.catalog import accelerator
    >>> from attnmem.formulas import standard_steps
    >>> w = Workload(batch=1, heads=12, seq_len=8192, head_dim=128, dtype="float16")
    >>> [bound(step, accelerator("RTX 3090")) for step in standard_steps(w)]
    ['compute', 'memory', 'memory', 'compute']
    """
    found = limits(step, accelerator)
    return max(found, key=lambda part: found[part])


def attainable_seconds(step: Step, accelerator: Accelerator) -> float:
    """The least time in seconds that ``accelerator`` allows ``step``: the largest of its limits.

    Raises what :func:`limits` raises.

    >>> from attnmem import Workload
    >>> from attnmem.catalog import accelerator
    >>> from attnmem.formulas import standard_steps
    >>> w = Workload(batch=1, heads=12, seq_len=8192, head_dim=64, dtype="float16")
    >>> h100 = accelerator("H100 SXM")
    >>> [f"{1e3 * attainable_seconds(step, h100):.2f} ms" for step in standard_steps(w)]
    ['0.49 ms', '0.96 ms', '0.96 ms', '0.49 ms']
    """
    return max(limits(step, accelerator).values())


def measured_roof(step: Step, ceilings: Ceilings) -> tuple[str, float]:
    """Which measured ceiling holds ``step`` up most, and for how many seconds at least.

    ``"memory"``: to read its bytes as fast as a sum does, and write them as fast as a fill;
    ``"cache"`` where arrays of its size move faster than the largest do; or ``"compute"``. Other
    arithmetic than matrix products has no measured ceiling.

    Raises ``KeyError`` for a matrix product in a dtype whose rate ``ceilings`` does not have.
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
    """
    return measured_roof(step, ceilings)[1] / seconds


def limited_by(step: Step, seconds: float, ceilings: Ceilings) -> str:
    """What limits a step that takes ``seconds``: a roof, ``"launches"``, or its ``"kernel"``.

    The least time that its roof allows is the limit if it is at least :data:`NEAR` of the measured
    time; if not, a launch is, by the same rule; else the kernel is. The roof comes first because it
    is a bound for every step, and the launch that was measured is that of a matrix product.
    Raises what :func:`measured_roof` raises.
    """
    roof, least = measured_roof(step, ceilings)
    if least >= NEAR * seconds:
        return roof
    return "launches" if ceilings.launch >= NEAR * seconds else "kernel"
