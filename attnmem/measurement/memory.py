"""What a run takes on a real device: its allocator, asked while a program runs there."""

import contextlib
import gc
import itertools
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from attnmem.measurement.device import Provenance, provenance, resolve_device
from attnmem.programs import Program, run
from attnmem.timeline import Event, before_backward, events
from attnmem.workload import Workload

if sys.platform == "linux":
    import resource


@dataclass(frozen=True, kw_only=True)
class MeasuredCall:
    """What the allocator of a device reported for one call.

    ``peak_bytes``: the largest sum of the sizes of the tensors alive at one moment, beyond what
    was there before. ``peak_allocated_bytes``: the same in the allocator's blocks, which may be
    larger. ``peak_reserved_bytes``: what the allocator took from the driver to make them. Both
    start from an empty cache. ``saved_bytes``: alive where the last backward pass begins.
    ``workspace_bytes``: what is kept for libraries, in no other number here.
    ``parameter_bytes``: the tensors on the device before, in no other number either; ``None`` on a
    CPU, whose memory is not asked, and in older records. ``timeline``: the allocator's own list
    of allocations and releases, in order; it knows no labels. ``segments``: the rank of the
    address of each segment that the allocator took from the driver, in order. With
    ``out_of_memory`` the call did not end, and all this is what came before.
    """

    peak_bytes: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    saved_bytes: int
    workspace_bytes: int
    parameter_bytes: int | None = None
    out_of_memory: bool
    timeline: tuple[Event, ...]
    segments: tuple[int, ...]
    provenance: Provenance


@dataclass(frozen=True, kw_only=True)
class Measurement(MeasuredCall):
    """What the allocator of a device reported for one run of a program.

    ``warm_up``: whether a first run went before it, uncounted; without one, workspaces are in the
    peaks. ``input_bytes``: Q, K and V; they are in the peaks. ``saved_bytes``: alive between
    forward and backward, beyond Q, K, V and O.
    """

    program: str
    workload: Workload
    training: bool
    warm_up: bool
    input_bytes: int


def measure(
    program: Program,
    w: Workload,
    training: bool = False,
    device: str | torch.device | None = None,
    *,
    warm_up: bool = True,
) -> Measurement:
    """Run ``program`` on ``device`` and report its memory. See :func:`attnmem.programs.run`.

    ``device`` is ``"cuda"``, ``"cuda:1"``, ``"cpu"`` …; ``None`` takes CUDA if there is one, else
    the CPU. A first run warms the libraries up and is not counted; without ``warm_up`` there is
    none, and the workspaces that libraries then allocate are in the peak. On CUDA the numbers come
    from the caching allocator's statistics and the timeline from its history; on the CPU all come
    from the memory events of ``torch.profiler``.

    Out of memory is a result, not an error, and leaves the device as it was. Raises
    ``ValueError`` for a device that is not there, or one whose memory is not given out by PyTorch's
    own allocator, and whatever else ``program`` raises.

    >>> from attnmem import Workload, measure, standard_attention
    >>> w = Workload(batch=1, heads=2, seq_len=64, head_dim=16, dtype="float32")
    >>> m = measure(standard_attention, w, device="cpu")
    >>> m.input_bytes == 3 * w.head_bytes, m.peak_bytes == 2 * w.score_bytes + 4 * w.head_bytes
    (True, True)
    """
    device = resolve_device(device)

    def act(at_stage: AtStage) -> None:
        for stage, own in run(program, w, training=training, device=device):
            at_stage(stage, own)

    call, live = _observe(act, device, training, act if warm_up else None)
    return Measurement(
        program=getattr(program, "__name__", repr(program)),
        workload=w,
        training=training,
        warm_up=warm_up,
        input_bytes=live["inputs"][0] if "inputs" in live else 0,
        **vars(call),
    )


def measure_call(
    step: Callable[[], object], device: str | torch.device | None = None
) -> MeasuredCall:
    """Call ``step()`` once and report what it does to the memory of ``device``.

    What :func:`attnmem.prediction.call.trace_call` predicts: a training step, say, whose model is
    baseline where it was there before. ``device`` is that of :func:`measure`. ``step`` does not
    warm up, because it may change what its next call does; but the workspaces of cuBLAS are there
    before it.

    Out of memory is a result. Raises ``ValueError`` as :func:`measure` does, and whatever else
    ``step`` raises.

    >>> x = torch.ones(256, 256)
    >>> measure_call(lambda: x + x, "cpu").peak_bytes == 4 * 256 * 256
    True
    """

    def act(at_stage: AtStage) -> None:
        with before_backward(lambda: at_stage("forward", 0)):
            step()

    device = resolve_device(device)
    return _observe(act, device, training=True, before=lambda _: _use_linear(device))[0]


AtStage = Callable[[str, int], None]  # told a stage that ends, and the bytes of the run's tensors
Act = Callable[[AtStage], None]


Live = dict[str, tuple[int, int]]  # stage -> (bytes alive at its end, of these Q, K, V and O)


def _observe(
    act: Act, device: torch.device, training: bool, before: Act | None
) -> tuple[MeasuredCall, Live]:
    """What ``act`` does, after workspaces are there and ``before`` has run; or after nothing."""
    observe = _observe_cuda if device.type == "cuda" else _observe_cpu
    observed = observe(act, device, training, before)
    live = observed.live
    call = MeasuredCall(
        peak_bytes=observed.peak,
        peak_allocated_bytes=observed.peak_allocated,
        peak_reserved_bytes=observed.peak_reserved,
        saved_bytes=live["forward"][0] - live["forward"][1] if "forward" in live else 0,
        workspace_bytes=observed.workspace,
        parameter_bytes=observed.parameters,
        out_of_memory=observed.out_of_memory,
        timeline=events(observed.sizes),
        segments=tuple(sorted(observed.segments).index(address) for address in observed.segments),
        provenance=provenance(device),
    )
    return call, live


@dataclass
class _Observed:
    live: Live
    peak: int
    peak_allocated: int
    peak_reserved: int
    workspace: int
    parameters: int | None
    out_of_memory: bool
    sizes: list[int]  # of every allocation (> 0) and release (< 0), in order
    segments: list[int]  # the address of every segment, in order


def _finish(act: Act, at_stage: AtStage) -> bool:
    """Drive a run to its end; False when the device ran out of memory on the way."""
    try:
        act(at_stage)
    except (torch.OutOfMemoryError, MemoryError):
        return False
    except RuntimeError as error:  # these two have no exception of their own
        if not any(name in str(error) for name in ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC")):
            raise
        return False
    return True


def _observe_cuda(act: Act, device: torch.device, training: bool, before: Act | None) -> _Observed:
    if torch.cuda.get_allocator_backend() != "native":
        raise ValueError(
            "device memory must come from PyTorch's own allocator, whose statistics are read; got "
            f"{torch.cuda.get_allocator_backend()!r} (unset PYTORCH_ALLOC_CONF)"
        )
    with torch.cuda.device(device):
        torch.cuda.synchronize()
        # From an empty cache: blocks left over from earlier work would be reused, and what is
        # *allocated* would depend on them. Without cuBLAS's workspaces, which the first matrix
        # product allocates and keeps, so that the warm-up shows their size.
        torch._C._cuda_clearCublasWorkspaces()
        _release()
        already = torch.cuda.memory_stats()
        with warnings.catch_warnings():
            # Autograd's thread has no CUDA context yet at its first matrix product, and gets one.
            warnings.filterwarnings("ignore", "Attempting to run cuBLAS")
            if before:
                _allocate_workspaces(device, training)
                _finish(before, lambda stage, own: None)
        _release()
        base = torch.cuda.memory_stats()
        torch.cuda.reset_peak_memory_stats()
        live = {}

        def at_stage(stage: str, own: int) -> None:
            now = torch.cuda.memory_stats()["requested_bytes.all.current"]
            live[stage] = now - base["requested_bytes.all.current"], own

        with _history() as (sizes, segments):
            finished = _finish(act, at_stage)
        stats = torch.cuda.memory_stats()
        _release()
    return _Observed(
        live=live,
        peak=stats["requested_bytes.all.peak"] - base["requested_bytes.all.current"],
        peak_allocated=stats["allocated_bytes.all.peak"] - base["allocated_bytes.all.current"],
        peak_reserved=stats["reserved_bytes.all.peak"] - base["reserved_bytes.all.current"],
        workspace=base["allocated_bytes.all.current"] - already["allocated_bytes.all.current"],
        parameters=already["requested_bytes.all.current"],
        out_of_memory=not finished,
        sizes=sizes,
        segments=segments,
    )


def _allocate_workspaces(device: torch.device, training: bool) -> None:
    """Have cuBLAS's workspaces allocated: this thread's, and that of autograd's when training.

    Each gets a segment of its own. Inside a segment of the program it would keep all of that from
    being given back.
    """
    x = torch.ones(16, 16, device=device, requires_grad=training)
    product = x @ x
    if training:
        product.sum().backward()  # type: ignore[no-untyped-call]
    del x, product
    _release()


def _use_linear(device: torch.device) -> None:
    """Have cuBLASLt's workspaces allocated, for products with a bias: one for each thread."""
    layer = torch.nn.Linear(16, 16, device=device)
    product = layer(torch.ones(16, 16, device=device))
    product.register_hook(layer.forward)
    product.sum().backward()


@contextlib.contextmanager
def _history() -> Iterator[tuple[list[int], list[int]]]:
    """What happens inside, filled in at the end.

    The sizes of what is allocated (> 0) and released (< 0), and the addresses of new segments.
    """
    sizes: list[int] = []
    segments: list[int] = []
    sign = {"alloc": 1, "free_requested": -1}
    record = torch.cuda.memory._record_memory_history
    record(context=None, clear_history=True)
    try:
        yield sizes, segments
        events = torch.cuda.memory._snapshot()["device_traces"][torch.cuda.current_device()]
        sizes += [sign[e["action"]] * e["size"] for e in events if e["action"] in sign]
        segments += [e["addr"] for e in events if e["action"] == "segment_alloc"]
    finally:
        record(enabled=None)


def _release() -> None:
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()


def _observe_cpu(act: Act, device: torch.device, training: bool, before: Act | None) -> _Observed:
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler greets on stderr
    owned = {}

    def at_stage(stage: str, own: int) -> None:
        owned[stage] = own
        with record_function(f"attnmem {stage}"):  # marks the end of the stage among the events
            pass

    with _bounded_by_free_memory():
        if before:
            _finish(before, at_stage)
        gc.collect()  # what is freed inside the profile must have been allocated there
        with profile(
            activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True
        ) as profiler:
            finished = _finish(act, at_stage)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(path))
        events = sorted(json.loads(path.read_text())["traceEvents"], key=lambda e: e.get("ts", 0))
    sizes: list[int] = []
    live = {}
    for event in events:
        if event["name"] == "[memory]" and event["args"]["Device Type"] == 0:  # CPU
            sizes.append(event["args"]["Bytes"])
        elif event["name"].startswith("attnmem "):
            stage = event["name"].removeprefix("attnmem ")
            live[stage] = sum(sizes), owned[stage]
    peak = max(itertools.accumulate(sizes), default=0)
    return _Observed(live, peak, peak, peak, 0, None, not finished, sizes, segments=[])


@contextlib.contextmanager
def _bounded_by_free_memory() -> Iterator[None]:
    """Make an allocation beyond the free memory fail. Linux would grant it, and kill us later."""
    if sys.platform != "linux":
        yield
        return
    limits = resource.getrlimit(resource.RLIMIT_AS)
    room = psutil.Process().memory_info().vms + psutil.virtual_memory().available
    soft = room if limits[0] == resource.RLIM_INFINITY else min(room, limits[0])
    resource.setrlimit(resource.RLIMIT_AS, (soft, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
