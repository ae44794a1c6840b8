"""Running a program on shapes alone, and what is written down."""

import bisect
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from attnmem.prediction.allocator import CachingAllocator, cublas_workspace
from attnmem.prediction.autograd import ZEROS, in_place
from attnmem.prediction.dispatch import Routes
from attnmem.prediction.kernels import NUMBER, kernel_of
from attnmem.prediction.shapes import SHAPES
from attnmem.prediction.work import step
from attnmem.programs import Program, run
from attnmem.timeline import Event, Step, in_backward, stage_after, step_name, touches_data
from attnmem.workload import Workload

aten = torch.ops.aten


@dataclass(frozen=True)
class Trace:
    """What a run of a program allocates, frees, reads, writes and computes, in order.

    ``timeline``: every allocation and release. ``steps``: every operation that touches data.
    ``saved_bytes``: alive between forward and backward, beyond Q, K, V and O.
    """

    workload: Workload
    training: bool
    device: str
    timeline: tuple[Event, ...]
    steps: tuple[Step, ...]
    saved_bytes: int
    _blocks: tuple[int, ...]  # for each event, which block it allocates or frees

    @cached_property
    def peak_bytes(self) -> int:
        """The largest sum of the sizes of the tensors alive at one moment, in bytes."""
        return max(event.live for event in self.timeline)

    @cached_property
    def at_peak(self) -> dict[str, int]:
        """The tensors alive at the peak: label -> bytes. Equal labels are numbered."""
        alive: dict[int, Event] = {}
        for block, event in zip(self._blocks, self.timeline, strict=True):
            if event.bytes < 0:
                del alive[block]
            else:
                alive[block] = event
            if event.live == self.peak_bytes:
                break
        named: dict[str, int] = {}
        for event in alive.values():
            label, count = event.label, 2
            while label in named:
                label, count = f"{event.label} {count}", count + 1
            named[label] = event.bytes
        return named

    @property
    def lifetimes(self) -> list[tuple[str, int, int, int]]:
        """Each tensor: (label, bytes, the event that allocates it, the event that frees it)."""
        found: dict[int, tuple[str, int, int, int]] = {}
        for place, (block, event) in enumerate(zip(self._blocks, self.timeline, strict=True)):
            if event.bytes > 0:
                found[block] = event.label, event.bytes, place, len(self.timeline)
            else:
                found[block] = *found[block][:3], place
        return list(found.values())

    def replay(self, segments: Sequence[int] = ()) -> CachingAllocator:
        """PyTorch's CUDA allocator after this run, from an empty cache.

        ``segments`` is explained at :class:`attnmem.prediction.allocator.CachingAllocator`.
        """
        allocator = CachingAllocator(segments)
        blocks = {}
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
        """The peak in blocks of PyTorch's CUDA allocator, starting from an empty cache."""
        return self._replayed.peak_allocated if self.device == "cuda" else self.peak_bytes

    @property
    def peak_reserved_bytes(self) -> int:
        """The peak of what that allocator takes from the driver."""
        return self._replayed.peak_reserved if self.device == "cuda" else self.peak_bytes

    def workspace_bytes(self, capability: tuple[int, int] = (9, 0)) -> int:
        """What cuBLAS keeps for itself from this run on, in bytes; in no other number here.

        One workspace for the thread that calls the program, and one for autograd's, if they
        multiply matrices with cuBLAS. ``capability`` is the compute capability of the GPU, (9, 0)
        for an H100 or H200; on the CPU the answer is 0.
        """
        threads = {step.stage for step in self.steps if step.name in CUBLAS}
        return len(threads) * cublas_workspace(capability) if self.device == "cuda" else 0


CUBLAS = {"mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "dot"}


def trace(program: Program, w: Workload, training: bool = False, device: str = "cuda") -> Trace:
    """Predict a run of ``program`` on ``device`` without it: on tensors that have no data.

    ``device`` is ``"cuda"`` or ``"cpu"``: the kind whose kernels are predicted. It need not be on
    this machine, and the cost grows with the number of operations, not with sizes. ``program`` must
    make its tensors on the device of Q, and must not read values: there are none. Warns where an
    operation is known to allocate what is not known here. Raises
    ``ValueError`` for another device, and whatever ``program`` raises.

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
    recorder = _Recorder(device)
    saved = 0
    stages = run(program, w, training=training, device=torch.device("meta"), name=recorder.name)
    with _disable_current_modes(), Routes(device), recorder:
        for stage, own in stages:
            if stage == "forward":
                saved = recorder.live - own
            recorder.ended = stage
    return recorder.result(w, training, saved)


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
    somewhat longer sequence may fit again. Raises ``ValueError`` if not even N = 1 fits.

    >>> from attnmem import Workload, max_seq_len, standard_attention
    >>> w = Workload(batch=1, heads=12, seq_len=1, head_dim=64, dtype="float16")
    >>> max_seq_len(standard_attention, w, memory_bytes=80 * 2**30)
    42239
    """

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


@dataclass(eq=False)
class _Block:
    label: str
    bytes: int


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down each operation, and each storage from its first sight to its end."""

    def __init__(self, device: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.live = 0
        self.events: list[tuple[_Block, int]] = []
        self.steps: list[Step] = []
        self.blocks: dict[int, _Block] = {}
        self.watchers: dict[int, weakref.ref[Any]] = {}
        self.numbers: list[_Block] = []  # kept for backward
        self.spent: list[_Block] = []  # of these, those that backward has used
        self.zeros: int | None = None  # the storage that was just filled with zeros
        self.ended = ""  # the stage of the run that has ended last

    def name(self, label: str, tensor: torch.Tensor) -> None:
        """Give the tensor's storage a name that readers know."""
        block = self.blocks.get(id(tensor.untyped_storage()))
        if block:
            block.label = label

    def __torch_dispatch__(
        self, op: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        while self.spent:  # autograd's node gives them up after its gradients
            self._end(self.spent.pop())
        result = kept = in_place(op, args, self.zeros)
        if kept is None:
            shape = SHAPES.get(op, op)
            result = shape(*args, **(kwargs or {}))
        inputs = _tensors((args, kwargs))
        outputs = _tensors(result)
        self.zeros = id(outputs[0].untyped_storage()) if op in ZEROS else None
        name = step_name(op)
        own: dict[str, _Block] = {}
        fresh = False
        for item in kernel_of(op, args, inputs, outputs, self.device).actions:
            if isinstance(item, int):
                fresh |= self._watch(outputs[item], name)
            elif isinstance(item, str):
                self._end(own.pop(item))
            elif item[0] == NUMBER and self.numbers and in_backward():
                self.spent.append(self.numbers.pop())  # backward uses the one that was kept
            else:
                label = item[0] if item[0] not in own else f"{item[0]} {len(own)}"
                own[label] = _Block(*item)
                self._add(own[label], own[label].bytes)
        for block in reversed(own.values()):  # as C++ ends its local variables
            if block.label == NUMBER and self._saves_number(op, inputs):
                self.numbers.append(block)
            else:
                self._end(block)
        if touches_data(op) and (fresh or op._schema.is_mutable or kept is not None):
            self.steps.append(
                step(op, args, inputs, outputs, device=self.device, stage=stage_after(self.ended))
            )
        self._label_softmax(op, inputs, outputs)
        return result

    def _saves_number(self, op: Any, inputs: list[torch.Tensor]) -> bool:
        """Whether autograd keeps the number of `tensor * number` for backward."""
        if op not in (aten.mul.Tensor, aten.div.Tensor, aten.mul_.Tensor, aten.div_.Tensor):
            return False
        return torch.is_grad_enabled() and inputs[0].requires_grad and not in_backward()

    def _label_softmax(
        self, op: Any, inputs: list[torch.Tensor], outputs: list[torch.Tensor]
    ) -> None:
        """The names that readers know: softmax takes S and gives P, backward takes dP, gives dS."""
        if op is aten._softmax.default:
            self.name("S", inputs[0])
            self.name("P", outputs[0])
        elif op is aten._softmax_backward_data.default:
            self.name("dP", inputs[0])
            self.name("dS", outputs[0])

    def _watch(self, tensor: torch.Tensor, label: str) -> bool:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self.blocks or storage.nbytes() == 0:
            return False
        block = self.blocks[key] = _Block(label, storage.nbytes())
        self._add(block, block.bytes)

        def ended(_: Any) -> None:
            del self.blocks[key], self.watchers[key]
            self._end(block)

        self.watchers[key] = weakref.ref(storage, ended)
        return True

    def _end(self, block: _Block) -> None:
        self._add(block, -block.bytes)

    def _add(self, block: _Block, size: int) -> None:
        self.live += size
        self.events.append((block, size))

    def result(self, w: Workload, training: bool, saved: int) -> Trace:
        live = 0
        timeline = []
        numbers: dict[_Block, int] = {}
        for block, size in self.events:
            live += size
            timeline.append(Event(block.label, size, live))
            numbers.setdefault(block, len(numbers))
        return Trace(
            workload=w,
            training=training,
            device=self.device,
            timeline=tuple(timeline),
            steps=tuple(self.steps),
            saved_bytes=saved,
            _blocks=tuple(numbers[block] for block, _ in self.events),
        )


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
