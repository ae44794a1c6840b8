"""Running a program on shapes alone, and what is written down."""

import bisect
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from attnmem.prediction.allocator import CachingAllocator, cublas_workspace
from attnmem.prediction.choice import release
from attnmem.prediction.dispatch import Dispatch
from attnmem.prediction.formula import Formula, Peak, of_peak
from attnmem.prediction.modules import as_moved
from attnmem.prediction.recorder import Recorder, without_data
from attnmem.prediction.refusal import CannotFollow, warn
from attnmem.programs import Program, run
from attnmem.timeline import Event, Step
from attnmem.workload import Workload


@dataclass(frozen=True)
class Trace:
    """What a run of a program allocates, frees, reads, writes and computes, in order.

    ``timeline``: every allocation and release. ``steps``: every operation that touches data.
    ``saved_bytes``: alive between forward and backward, beyond Q, K, V and O; of a call, alive
    where its last backward pass begins. Tensors that were there before, such as parameters of a
    module, are in ``parameter_bytes`` alone; where the run gives one up, less is live than before.
    ``workload`` is ``None`` for a call.
    """

    workload: Workload | None
    training: bool
    device: str
    timeline: tuple[Event, ...]
    steps: tuple[Step, ...]
    saved_bytes: int
    _existing: dict[int, int]  # what was there before and that the run used: block -> bytes
    _blocks: tuple[int, ...]  # for each event, which block it allocates or frees
    _modules: tuple[str, ...]  # for each event, which module made its block
    _again: "Callable[[Workload], Trace] | None" = field(default=None, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        recorder: Recorder,
        workload: Workload | None,
        training: bool,
        saved: int,
        again: "Callable[[Workload], Trace] | None" = None,
    ) -> "Trace":
        """What a recorder has written down. ``again`` traces the program at other sizes."""
        live = 0
        timeline = []
        numbers: dict[int, int] = {}
        for block, size in recorder.events:
            live += size
            timeline.append(Event(block.label, size, live))
            numbers.setdefault(id(block), len(numbers))
        if recorder.device == "cuda":
            _expect_kept_workspaces(recorder.steps)
        return cls(
            workload=workload,
            training=training,
            device=recorder.device,
            timeline=tuple(timeline),
            steps=tuple(recorder.steps),
            saved_bytes=saved,
            _existing={
                numbers.setdefault(id(block), len(numbers)): block.bytes
                for block in sorted(recorder.existing, key=recorder.place)
            },
            _blocks=tuple(numbers[id(block)] for block, _ in recorder.events),
            _modules=tuple(block.module for block, _ in recorder.events),
            _again=again,
        )

    @property
    def parameter_bytes(self) -> int:
        """The bytes of the tensors that were on the device before the run, and that it used."""
        return sum(self._existing.values())

    @cached_property
    def peak_bytes(self) -> int:
        """The largest sum of the sizes of the tensors alive at one moment, in bytes."""
        return max((event.live for event in self.timeline), default=0)

    @cached_property
    def _at_peak(self) -> list[int]:
        """The places in the timeline of the allocations that are alive at the peak."""
        alive: dict[int, int] = {}
        for place, (block, event) in enumerate(zip(self._blocks, self.timeline, strict=True)):
            if event.bytes > 0:
                alive[block] = place
            else:
                alive.pop(block, None)
            if event.live == self.peak_bytes:
                break
        return list(alive.values())

    @property
    def at_peak(self) -> dict[str, int]:
        """The tensors alive at the peak: label -> bytes. Equal labels are numbered."""
        named: dict[str, int] = {}
        for place in self._at_peak:
            event = self.timeline[place]
            label, count = event.label, 2
            while label in named:
                label, count = f"{event.label} {count}", count + 1
            named[label] = event.bytes
        return named

    @cached_property
    def formula(self) -> Formula:
        """The peak in closed form, such as 2S + 4X; it is found by tracing at other sizes.

        A few dozen traces. Without one it is false, and says why: ``formula.reason``. A call has
        none, since it has no sizes that could be others.

        >>> from attnmem import Workload, standard_attention, trace
        >>> w = Workload(batch=1, heads=12, seq_len=512, head_dim=64, dtype="float16")
        >>> t = trace(standard_attention, w, training=True)
        >>> t.formula, t.formula.at(w) == t.peak_bytes
        (4S + 6X, True)
        >>> t.formula.terms["4S"]
        ('P', 'dP', 'dS', 'temporary inside softmax backward')
        """
        again = self._again
        if self.workload is None or again is None:
            raise ValueError("formula must be asked of a program: a call has no sizes to change")
        return of_peak(lambda w: again(w)._peak, self.workload)

    @property
    def _peak(self) -> Peak:
        events = [self.timeline[place] for place in self._at_peak]
        sizes = tuple(event.bytes for event in events)
        return Peak(tuple(event.label for event in events), sizes, len(self.steps))

    @property
    def by_module(self) -> dict[str, int]:
        """The bytes alive at the peak by the innermost module that made them: name -> bytes.

        What backward makes belongs to the module whose forward pass it goes back through, what an
        optimizer makes to the name of its class, and the rest to ``"no module"``.
        """
        found: dict[str, int] = {}
        for place in self._at_peak:
            module = self._modules[place]
            found[module] = found.get(module, 0) + self.timeline[place].bytes
        return found

    @property
    def lifetimes(self) -> list[tuple[str, int, int, int]]:
        """Each tensor: (label, bytes, the event that allocates it, the event that frees it)."""
        found: dict[int, tuple[str, int, int, int]] = {}
        for place, (block, event) in enumerate(zip(self._blocks, self.timeline, strict=True)):
            if event.bytes > 0:
                found[block] = event.label, event.bytes, place, len(self.timeline)
            elif block not in self._existing:
                found[block] = *found[block][:3], place
        return list(found.values())

    def replay(
        self, segments: Sequence[int] = (), before: Sequence[Sequence[int]] = ()
    ) -> CachingAllocator:
        """PyTorch's CUDA allocator after this run.

        ``segments`` and ``before``, what was there, are explained at
        :class:`attnmem.prediction.allocator.CachingAllocator`; of a run that was traced, it is
        ``earlier.replay().left()``. Without ``before`` the cache is empty, and parameters are
        placed as :attr:`peak_allocated_bytes` says; with it, a tensor that the run gives up is one
        of the smallest blocks that can hold it.
        """
        allocator = CachingAllocator(segments, before)
        given_up = set(self._blocks) & set(self._existing)
        blocks = {}
        for block, size in self._existing.items():
            if not before:
                blocks[block] = allocator.allocate(size)
            elif block in given_up:
                large_enough = (held for held in allocator.held if held.size >= size)
                blocks[block] = min(large_enough, key=lambda held: held.size)
                allocator.held.remove(blocks[block])
        allocator.forget_peaks()
        for block, event in zip(self._blocks, self.timeline, strict=True):
            if event.bytes > 0:
                blocks[block] = allocator.allocate(event.bytes)
            else:
                allocator.free(blocks.pop(block))
        return allocator

    @cached_property
    def _replayed(self) -> CachingAllocator:
        return self.replay()

    @property
    def peak_allocated_bytes(self) -> int:
        """The peak in blocks of PyTorch's CUDA allocator, starting from an empty cache.

        What was there before leaves holes, which tensors fill; a block keeps up to 1 MiB that its
        tensor does not need. So with parameters this depends on what came before: they are placed
        as if ``module.to("cuda")`` had put them into an empty cache, other tensors after them in
        the order of their first use, and for each tensor of more than 1 MiB that is alive the truth
        may lie up to 1 MiB away. Trace what came before too, and :meth:`replay` knows the holes.
        """
        return self._replayed.peak_allocated if self.device == "cuda" else self.peak_bytes

    @property
    def peak_reserved_bytes(self) -> int:
        """The peak of what that allocator takes from the driver."""
        return self._replayed.peak_reserved if self.device == "cuda" else self.peak_bytes

    def workspace_bytes(self, capability: tuple[int, int] = (9, 0)) -> int:
        """What PyTorch keeps for cuBLAS from this run on, in bytes; in no other number here.

        One workspace for the thread that calls the program, and one for autograd's, if they
        multiply matrices with cuBLAS. ``capability`` is the compute capability of the GPU, (9, 0)
        for an H100 or H200; on the CPU the answer is 0. PyTorch 2.15 keeps them only where
        TORCH_CUBLAS_WORKSPACE_CACHE=1 is set.
        """
        threads = {step.stage for step in self.steps if step.name in CUBLAS}
        return len(threads) * cublas_workspace(capability) if self.device == "cuda" else 0


CUBLAS = {"mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "dot"}


def _expect_kept_workspaces(steps: Iterable[Step]) -> None:
    """Warn where cuBLAS has a workspace for the time of each product: a peak may then have one.

    Source: isCUDABlasWorkspaceCachingEnabled in PyTorch's aten/src/ATen/cuda/CublasHandlePool.cpp
    (pull request 194311), and the documentation of 2.15.
    """
    if release() < (2, 15) or os.environ.get("TORCH_CUBLAS_WORKSPACE_CACHE") == "1":
        return
    if any(step.name in CUBLAS for step in steps):
        warn(
            "from 2.15 on PyTorch gives cuBLAS a workspace for the time of each product, which is "
            "in no number here: set TORCH_CUBLAS_WORKSPACE_CACHE=1, and it keeps them, as before"
        )


def trace(
    program: Program,
    w: Workload,
    training: bool = False,
    device: str = "cuda",
    *,
    capability: tuple[int, int] = (9, 0),
) -> Trace:
    """Predict a run of ``program`` on ``device`` without it: on tensors that have no data.

    ``device`` is ``"cuda"`` or ``"cpu"``: the kind whose kernels are predicted, ``capability`` the
    GPU's. Neither need be on this machine, and the cost grows with the number of operations, not
    with sizes. ``program`` is eager PyTorch: a function of Q, K and V, or a module, which is
    followed on a copy without data. It sees the device that it will run on; what it makes on the
    CPU is not the GPU's memory. What it keeps from run to run, such as a cache, is there before, as
    where it is measured: such a program runs twice.

    Known limits. Refused with :class:`attnmem.prediction.refusal.CannotFollow`, which names the
    line of the program, also where the program catches it: reading values, or addresses; compiled
    functions, flex_attention, TorchScript and Triton; what another thread does on the device;
    CUDA's streams and graphs, a second GPU, and what asks the GPU of itself; sparse and nested
    tensors; forward-mode derivatives; operators of others without ``register_fake``; parameters on
    the CPU of a module that the program only closes over; whether a mask of ``nn.Transformer`` is
    causal; two fast paths of ``eval()``. Warned of by name: operations that are not known, or are
    known to allocate what is not known; three tensors in ``einsum``; gradients of gradients; fused
    attention under ``torch.vmap``; ``empty_cache``; a tensor that is printed; whether a GradScaler
    steps; workspaces of cuBLAS that PyTorch does not keep, from 2.15 on. Not seen: what extensions
    allocate inside their operators, a pool of threads that is none of Python's
    ``concurrent.futures`` and was there before, on a CPU buffers of its kernels' threads, and code
    of PyTorch that another release writes in another way.

    Raises ``ValueError`` for another device, or a dtype that random numbers do not have, and
    whatever ``program`` raises.

    >>> from attnmem import Workload, standard_attention, trace
    >>> w = Workload(batch=1, heads=12, seq_len=512, head_dim=64, dtype="float16")
    >>> t = trace(standard_attention, w)
    >>> t.peak_bytes
    15728640
    >>> list(t.at_peak)
    ['Q', 'K', 'V', 'S', 'P', 'O']
    >>> [step.name for step in t.steps if step.stage == "forward"]
    ['bmm', 'mul', 'softmax', 'bmm']
    """
    if device not in ("cuda", "cpu"):
        raise ValueError(f"device must be 'cuda' or 'cpu', got {device!r}")
    if w.element_bytes == 1:
        raise ValueError(
            f"dtype must be one that torch.randn makes, got {w.dtype}: cast inside the program"
        )
    if isinstance(program, torch.jit.ScriptFunction | torch.jit.ScriptModule):
        raise CannotFollow("TorchScript can't be predicted: trace the function that was scripted")
    program = without_data(program)
    recorder, saved = _record(program, w, training, device, capability)
    if recorder.kept():  # as on a device: what is measured there is not the first run
        recorder, saved = _record(program, w, training, device, capability, recorder)
    again = partial(_quietly, program, training=training, device=device, capability=capability)
    return Trace.of(recorder, w, training, saved, again)


def _quietly(program: Program, w: Workload, **options: Any) -> Trace:
    """Trace once more, without the warnings of the first time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return trace(program, w, **options)


def _record(
    program: Program,
    w: Workload,
    training: bool,
    device: str,
    capability: tuple[int, int],
    before: Recorder | None = None,
) -> tuple[Recorder, int]:
    """A run, written down, and what it saves. ``before``: an earlier one, which has left things."""
    recorder = Recorder(device)
    if isinstance(program, torch.nn.Module):
        recorder.expect(x.untyped_storage() for x in as_moved([program]))
    if before and device == "cuda":  # on a CPU nothing tells of their end
        recorder.expect(before.kept())
    saved = 0
    stages = run(program, w, training=training, device=torch.device("meta"), name=recorder.name)
    with _disable_current_modes(), Dispatch(device, capability, recorder.has_values), recorder:
        for stage, own in stages:
            if stage == "forward":
                saved = recorder.live - own
                if saved < 0:
                    raise CannotFollow("O was not made where a trace can see it: in this thread")
            recorder.ended = stage
    return recorder, saved


def max_seq_len(
    program: Program,
    w: Workload,
    memory_bytes: int,
    training: bool = False,
    device: str = "cuda",
) -> int:
    """The longest sequence with which a run of ``program`` fits into ``memory_bytes``.

    Predicted, with the other sizes of ``w``: on CUDA by what PyTorch's allocator reserves, on the
    CPU by the peak. Found by bisection; what is reserved does not grow quite steadily with N, so a
    somewhat longer sequence may fit again. Raises ``ValueError`` if not even N = 1 fits, and for a
    ``w`` with a ``kv_len`` of its own: how many tokens a cache holds says
    :func:`attnmem.cache.max_cached_tokens`.

    >>> from attnmem import Workload, max_seq_len, standard_attention
    >>> w = Workload(batch=1, heads=12, seq_len=1, head_dim=64, dtype="float16")
    >>> max_seq_len(standard_attention, w, memory_bytes=80 * 2**30)
    42239
    """
    if w.kv_len is not None:
        raise ValueError(
            f"kv_len must be that of Q, since N grows, got {w.kv_len}; for the tokens of a cache "
            "take attnmem.max_cached_tokens"
        )

    def need(n: int) -> int:
        return trace(program, replace(w, seq_len=n), training, device).peak_reserved_bytes

    too_long = 1
    while need(too_long) <= memory_bytes:
        too_long *= 2
    if too_long == 1:
        raise ValueError(
            f"memory_bytes must hold a run with N = 1, {need(1)} B; got {memory_bytes}"
        )
    fits = range(too_long // 2, too_long)
    return fits[bisect.bisect_right(fits, memory_bytes, key=need) - 1]
