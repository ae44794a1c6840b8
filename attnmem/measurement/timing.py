"""How long the steps of a run take on a real device, and how fast that device can be."""

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from attnmem.measurement.device import resolve_device
from attnmem.programs import Program, run
from attnmem.roofline import Ceilings
from attnmem.timeline import Stage, stage_after, step_name, touches_data
from attnmem.workload import Workload, dtype_name


@dataclass(frozen=True)
class Time:
    """How long something takes, in seconds.

    The median over 5 to 50 groups of repetitions, and the range in which 8 of 10 groups lie.
    """

    seconds: float
    low: float
    high: float


@dataclass(frozen=True)
class TimedStep:
    """One step of a program on a device: when, and what its memory saw.

    ``read`` and ``written``: bytes that the memory of the device delivered and took, by its
    hardware counters; ``received``: bytes that its multiprocessors got through the L2 cache, many
    times an operand where they take it again; ``None`` where these were not asked.
    ``kernels``: what ran then.
    """

    name: str
    stage: Stage
    time: Time
    read: int | None = None
    written: int | None = None
    received: int | None = None
    kernels: tuple[str, ...] = ()


def time_steps(
    program: Program,
    w: Workload,
    training: bool = False,
    device: str | torch.device | None = None,
) -> tuple[TimedStep, ...]:
    """Time every step of a run of ``program``, each repeated on its own, after a warm-up.

    The steps are those of a trace, in the same order: what creates the inputs, the program's
    operations, and autograd's. Repeated, a step finds in the caches what fits there. ``device`` is
    that of :func:`attnmem.measurement.memory.measure`. Raises ``ValueError`` for a device that is
    not there, what ``program`` raises, and ``torch.OutOfMemoryError``.

    >>> from attnmem.programs import one_liner
    >>> w = Workload(batch=1, heads=2, seq_len=16, head_dim=8, dtype="float32")
    >>> [step.name for step in time_steps(one_liner, w, device="cpu") if step.stage == "forward"]
    ['bmm', 'div', 'softmax', 'bmm']
    """
    device = resolve_device(device)
    found: list[TimedStep] = []
    ended = ""

    def timed(op: Any, call: Callable[[], Any]) -> Any:
        found.append(TimedStep(step_name(op), stage_after(ended), time_of(call, device)))
        return call()

    with Each(timed):
        for stage, _ in run(program, w, training=training, device=device):
            ended = stage
    return tuple(found)


class Each(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Hands every operation that touches data to a function."""

    def __init__(self, act: Callable[[Any, Callable[[], Any]], Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.act = act

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def call() -> Any:
            return op(*args, **(kwargs or {}))

        return self.act(op, call) if touches_data(op) else call()


def time_program(program: Program, w: Workload, device: str | torch.device | None = None) -> Time:
    """Time the forward pass of ``program`` as a whole, after a warm-up, without gradients.

    Q, K and V are random, of the shapes and dtype of ``w``, and made before. Raises as
    :func:`time_steps` does.
    """
    device = resolve_device(device)
    q, k, v = (torch.randn(shape, dtype=w.dtype, device=device) for shape in w.shapes)
    with torch.no_grad():
        return time_of(lambda: program(q, k, v), device)


def time_of(call: Callable[[], Any], device: torch.device, total: float = 0.1) -> Time:
    """Time a call: repetitions in 5 to 50 groups of half a millisecond or one call.

    As many groups as take ``total`` seconds, within these limits. A first call is not counted.

    On CUDA by device events around each group, so that nothing waits for the CPU but what is
    launched faster than it runs; elsewhere by the clock.

    >>> found = time_of(lambda: sum(range(1000)), torch.device("cpu"), total=0.001)
    >>> 0 < found.low <= found.seconds <= found.high
    True
    """
    clock = _on_cuda if device.type == "cuda" else _on_cpu
    call()
    once = max(next(clock(call, 1, 1)), 1e-7)
    group = max(1, math.ceil(5e-4 / once))
    groups = max(5, min(50, math.ceil(total / (once * group))))
    times = sorted(clock(call, group, groups))
    tenth = len(times) // 10
    return Time(statistics.median(times), times[tenth], times[-1 - tenth])


def _on_cuda(call: Callable[[], Any], group: int, groups: int) -> Iterator[float]:
    marks = [
        torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        for _ in range(groups + 1)
    ]
    torch.cuda.synchronize()
    marks[0].record()
    for mark in marks[1:]:
        for _ in range(group):
            call()
        mark.record()
    torch.cuda.synchronize()
    for begin, end in itertools.pairwise(marks):
        yield begin.elapsed_time(end) / 1e3 / group


def _on_cpu(call: Callable[[], Any], group: int, groups: int) -> Iterator[float]:
    for _ in range(groups):
        begin = time.perf_counter()
        for _ in range(group):
            call()
        yield (time.perf_counter() - begin) / group


# As large as a GPU needs to be fast: two are square, two have the shape of P·V.
PRODUCTS = ((1, *[4096] * 3), (1, *[8192] * 3), (12, 8192, 8192, 128), (12, 8192, 8192, 256))


def ceilings(
    device: str | torch.device | None = None,
    *,
    largest: int = 2**32,
    products: Sequence[Sequence[int]] = PRODUCTS,
    dtypes: Sequence[torch.dtype] = (torch.float16, torch.bfloat16, torch.float32),
) -> Ceilings:
    """Measure what ``device`` can do, with arrays of up to ``largest`` bytes.

    ``products`` are the sizes (b, m, k, n) of matrix products, b times [m, k] times [k, n]. Their
    numbers are random: of zeros they would be faster, because a GPU's clock falls with the power
    that it draws. For the same reason they are timed in short bursts. Source of copy and triad:
    McCalpin 1995, STREAM.

    Raises ``ValueError`` for a device that is not there.
    """
    device = resolve_device(device)
    bandwidth, rates = {}, {}
    for size in (2**power for power in range(20, int(math.log2(largest)) + 1)):
        whole = torch.rand(size // 4, device=device)
        (to, of), (a, b, c) = whole.chunk(2), whole[: size // 12 * 3].chunk(3)
        calls: dict[str, Callable[[], Any]] = {
            "copy": partial(to.copy_, of),
            "triad": partial(torch.add, b, c, alpha=3, out=a),
            "fill": partial(whole.fill_, 1),
            "sum": whole.sum,
        }
        rates = {name: size / time_of(call, device).seconds for name, call in calls.items()}
        bandwidth[size] = max(rates.values())
    matmul, clock = {}, {}
    for dtype in dtypes:
        name = dtype_name(dtype)
        matmul[name] = 0.0
        for batch, m, k, n in products:
            x, y = (torch.randn(batch, *s, dtype=dtype, device=device) for s in ((m, k), (k, n)))
            product = partial(torch.matmul, x, y)
            rate = 2 * batch * m * k * n / time_of(product, device, 0.01).seconds
            if rate > matmul[name]:
                matmul[name] = rate
                if device.type == "cuda":
                    clock[name] = _clock_after(product, device)
    tiny = torch.zeros(1, 16, 16, device=device)
    launch = time_of(partial(torch.bmm, tiny, tiny), device).seconds
    return Ceilings(bandwidth, rates, matmul, launch, clock)


CYCLES = 500_000  # a third of a millisecond: the clock follows the power more slowly


def _clock_after(call: Callable[[], Any], device: torch.device) -> float:
    """Cycles per second of the multiprocessors when ``call`` has run as long as it was timed."""

    def call_and_wait() -> float:
        once = max(next(_on_cuda(call, 1, 1)), 1e-7)
        for _ in range(math.ceil(0.01 / once)):
            call()
        # This waits for so many cycles: spin_kernel, aten/src/ATen/cuda/Sleep.cu.
        waits = partial(torch.cuda._sleep, CYCLES)
        return CYCLES / next(_on_cuda(waits, 1, 1))

    with torch.cuda.device(device):
        torch.cuda._sleep(CYCLES)  # type: ignore[no-untyped-call]
        return statistics.median(call_and_wait() for _ in range(5))
