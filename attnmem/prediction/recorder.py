"""What a run on tensors without data does, written down operation by operation."""

import copy
import functools
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from attnmem.prediction.autograd import FIRST, in_place
from attnmem.prediction.kernels import NUMBER, kernel_of
from attnmem.prediction.modules import OUTSIDE, Modules
from attnmem.prediction.numbers import Numbers
from attnmem.prediction.refusal import CannotFollow, refuse, refuse_reading, suspect
from attnmem.prediction.shapes import SHAPES
from attnmem.prediction.work import step
from attnmem.timeline import Stage, Step, stage_after, step_name, touches_data

aten = torch.ops.aten
META = torch.device("meta")


@dataclass(eq=False)
class Block:
    """A piece of memory, with the name of what is in it, and the module that made it."""

    label: str
    bytes: int
    module: str = OUTSIDE


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down each operation, and each storage from its first sight to its end.

    ``existing``: what was there before the run, and that it used or gave up.
    """

    def __init__(self, device: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.live = 0
        self.ended = ""  # the stage of the run that has ended last
        self.events: list[tuple[Block, int]] = []
        self.steps: list[Step] = []
        self.modules = Modules(self.name)
        self.existing: list[Block] = []
        self.expected: dict[Block, int] = {}  # in order
        self.others: dict[int, Block | None] = {}  # not the run's; those that it has not used yet
        self.blocks: dict[int, Block] = {}
        self.watchers: dict[int, weakref.ref[Any]] = {}
        self.numbers = Numbers()
        self.made: tuple[Any, int] | None = None  # by which operation, just now: which storage
        self.unread: dict[int, weakref.ref[Any]] = {}  # on the CPU, copies of what has no data

    def name(self, label: str, tensor: torch.Tensor) -> None:
        """Give the tensor's storage a name that readers know."""
        block = self.blocks.get(id(tensor.untyped_storage()))
        if block:
            block.label = label

    def __enter__(self) -> Any:
        self.modules.__enter__()
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self.modules.__exit__(*error)

    @property
    def stage(self) -> Stage:
        """The stage of what happens now."""
        stage = stage_after(self.ended)
        return "update" if self.modules.updating and stage == "forward" else stage

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and keeping the compiler out costs each operation

    def __torch_dispatch__(
        self, op: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with torch._C.DisableTorchFunction():  # what runs inside is not the program's
            return self._record(op, args, kwargs or {})

    def _record(self, op: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        for number in self.numbers.over():
            self._end(number)
        if kwargs.get("pin_memory"):
            kwargs = kwargs | {"pin_memory": False}  # the CPU's memory: nothing to predict
        inputs = _tensors([*args, *kwargs.values()])
        if op is aten._local_scalar_dense.default and not self.has_values(args[0]):
            raise refuse_reading(step_name(op))
        is_view = op.is_view  # most operations are, and do nothing to memory
        beside = any(not x.is_meta for x in inputs) or (not is_view and op in COPIES)
        if beside and (made := self._on_the_host(op, args, kwargs, inputs)) is not None:
            return made
        for x in inputs:
            if (x.is_meta or self.device == "cpu") and (block := self._is_other(x)):
                self.existing.append(block)
        result = kept = in_place(op, args, self.made)
        if kept is None:
            valued = beside or not (inputs or kwargs.get("device") == META)  # may be read
            shape = op if valued or is_view else SHAPES.get(op, op)
            result = self._run(shape, args, kwargs, inputs)
        if is_view:
            self.made = None
            return result
        outputs = _tensors([result])
        if op._schema.is_mutable:
            self._check_sizes(inputs)
            if beside and self.device == "cpu" and not inputs[0].is_meta:
                self._check_gradients(inputs)
        if outputs and not outputs[0].is_meta and self.device == "cuda":
            return result  # made on the CPU: not the GPU's memory
        if op in FIRST:
            self.made = op, id(outputs[0].untyped_storage())
        elif kept is None or (self.made and self.made[0] is not aten.sigmoid.default):
            self.made = None
        fresh = self._allocate(op, args, kwargs, inputs, outputs)
        for x in outputs:
            self._is_other(x)  # such as a seed, which a kernel keeps on the CPU
        if outputs and (fresh or op._schema.is_mutable or kept is not None) and touches_data(op):
            self.steps.append(step(op, args, inputs, outputs, device=self.device, stage=self.stage))
        self._label_softmax(op, inputs, outputs)
        return result

    def _allocate(
        self,
        op: Any,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        inputs: list[torch.Tensor],
        outputs: list[torch.Tensor],
    ) -> bool:
        """Do what the kernel of ``op`` does to memory; whether it allocates an output."""
        name = step_name(op)
        own: dict[str, Block] = {}
        fresh = False
        for item in kernel_of(op, args, inputs, outputs, self.device, kwargs).actions:
            if isinstance(item, int):
                fresh |= self._watch(outputs[item], name)
            elif isinstance(item, str):
                self._end(own.pop(item))
            elif item[0] == NUMBER and self.numbers.used():
                pass  # the one that was kept
            else:
                label = item[0] if item[0] not in own else f"{item[0]} {len(own)}"
                own[label] = Block(*item, self.modules.here())
                self._add(own[label], own[label].bytes)
        for block in reversed(own.values()):  # as C++ ends its local variables
            if block.label != NUMBER or not self.numbers.kept(op, inputs, outputs[0], block):
                self._end(block)
        return fresh

    def _run(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        inputs: Sequence[torch.Tensor],
    ) -> Any:
        if len({x.is_meta for x in inputs}) == 2:
            return self._run_mixed(function, args, kwargs)
        try:
            return function(*args, **kwargs)
        except (NotImplementedError, torch._subclasses.fake_tensor.DynamicOutputShapeException):
            if isinstance(function, torch._ops.OpOverload) and not function._schema.returns:
                return None  # it writes into what it is given, such as a fused optimizer
            raise refuse_reading(f"{function} has no answer without data") from None
        except RuntimeError as error:
            if "fake impl" in str(error):
                raise refuse(f"{function} has no shapes to go by: give it register_fake") from None
            if "Meta kernel" in str(error) or "meta tensor" in str(error):
                raise refuse_reading(f"{function} has no answer without data") from None
            raise

    def _run_mixed(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
    ) -> Any:
        """Where tensors with data meet some without, stand-ins take the places of the first.

        What is returned of what was written in place is the tensor itself, without values now.
        """
        given: dict[int, torch.Tensor] = {}  # by the stand-in

        def stand_in(x: torch.Tensor) -> torch.Tensor:
            made = x if x.is_meta else torch.empty_like(x, device=META)
            given[id(made)] = x
            return made

        args, kwargs = tree_map_only(torch.Tensor, stand_in, (tuple(args), kwargs))
        result = self._run(function, args, kwargs, _tensors([*args, *kwargs.values()]))

        def given_again(x: torch.Tensor) -> torch.Tensor:
            found = given.get(id(x), x)
            return x if found.is_meta else self._without_values(found)

        return tree_map_only(torch.Tensor, given_again, result)

    def _check_sizes(self, tensors: Sequence[torch.Tensor]) -> None:
        for x in tensors:
            block = self.blocks.get(id(x.untyped_storage()))
            if block and block.bytes != x.untyped_storage().nbytes():
                raise refuse("a tensor's memory changes its size, which can't be followed")

    def _check_gradients(self, inputs: Sequence[torch.Tensor]) -> None:
        if torch.is_grad_enabled() and any(x.is_meta and x.requires_grad for x in inputs):
            suspect(
                "what was made here has values, and Q, K and V have none: their gradient does not "
                "come back through it. Make it with new_zeros of such a tensor"
            )

    def has_values(self, x: torch.Tensor) -> bool:
        """Whether the values of a tensor are there to be read."""
        return not x.is_meta and id(x.untyped_storage()) not in self.unread

    def _on_the_host(
        self, op: Any, args: Sequence[Any], kwargs: dict[str, Any], inputs: list[torch.Tensor]
    ) -> Any:
        """What ``op`` gives where the CPU does it beside a GPU; else ``None``."""
        if self.device == "cpu":
            return None
        if op is aten._to_copy.default:
            x, to = args[0], kwargs.get("device")
            if x.is_meta and to is not None and to.type == "cpu":
                return self._without_values(
                    torch.empty_like(x, device="cpu", dtype=kwargs.get("dtype"))
                )
            if x.is_meta or (to is not None and to.type == "meta"):
                return None
        if op is aten.copy_.default:
            to, of = args[:2]
            if not to.is_meta and of.is_meta:
                return self._without_values(to)
            return to if to.is_meta and not of.is_meta else (None if to.is_meta else op(*args))
        if any(x.is_meta for x in inputs):
            mixed = next((x for x in inputs if not x.is_meta and x.ndim), None)
            if mixed is not None and op not in INDEXED:
                raise refuse(
                    f"a tensor of {list(mixed.shape)} on the CPU meets one on the GPU. Make it "
                    "there, or a module with `with torch.device('meta'):`, before it is traced"
                )
            return None
        result = op(*args, **kwargs)
        if any(id(x.untyped_storage()) in self.unread for x in inputs):
            for x in _tensors([result]):
                self._without_values(x)
        return result

    def _without_values(self, x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        key = id(storage)
        self.unread[key] = weakref.ref(storage, lambda _: self.unread.pop(key, None))
        return x

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
        if key in self.blocks or key in self.others or storage.nbytes() == 0:
            return False
        block = self.blocks[key] = Block(label, storage.nbytes(), self.modules.here())
        self._add(block, block.bytes)

        def ended(_: Any) -> None:
            del self.blocks[key], self.watchers[key]
            self._end(block)

        self.watchers[key] = weakref.ref(storage, ended)
        return True

    def kept(self) -> list[torch.UntypedStorage]:
        """What the run has allocated, and something still holds."""
        found = [self.watchers[key]() for key in self.blocks]
        return [storage for storage in found if storage is not None]

    def expect(self, storages: Iterable[torch.UntypedStorage]) -> None:
        """Note what is there before the run, which may use it, or give it up."""
        for storage in storages:
            key, block = id(storage), Block("", storage.nbytes())
            if block.bytes and key not in self.others:
                self.others[key] = block
                self.expected[block] = len(self.expected)
                given_up = functools.partial(self._given_up, key, block)
                self.watchers[key] = weakref.ref(storage, given_up)

    def place(self, block: Block) -> int:
        """Where something that was there stands among all that was expected; else at the end."""
        return self.expected.get(block, len(self.expected))

    def _given_up(self, key: int, block: Block, _: Any) -> None:
        if self.others.get(key):
            self.existing.append(block)
        self._forget(key)
        self._end(block)

    def _is_other(self, x: torch.Tensor) -> Block | None:
        """At the first use of a storage that the run did not allocate, that."""
        storage = x.untyped_storage()
        key = id(storage)
        if key in self.blocks or storage.nbytes() == 0:
            return None
        if key not in self.others:
            self.others[key] = Block("", storage.nbytes())
            self.watchers[key] = weakref.ref(storage, lambda _: self._forget(key))
        block, self.others[key] = self.others[key], None
        return block

    def _forget(self, key: int) -> None:
        del self.others[key], self.watchers[key]

    def _end(self, block: Block) -> None:
        self._add(block, -block.bytes)

    def _add(self, block: Block, size: int) -> None:
        if size:  # the allocator has no block of nothing
            self.live += size
            self.events.append((block, size))


COPIES = {aten._to_copy.default, aten.copy_.default}
INDEXED = {
    getattr(getattr(aten, name), overload)
    for name in ("index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_")
    for overload in getattr(aten, name).overloads()
}


def without_data(program: Any) -> Any:
    """A module whose parameters are on the CPU, on a copy of it without data; else ``program``."""
    if not isinstance(program, torch.nn.Module):
        return program
    held = [*program.parameters(), *program.buffers()]
    if all(x.is_meta for x in held):
        return program
    memo = {
        id(x): torch.nn.Parameter(x.detach().to(META), x.requires_grad)
        if isinstance(x, torch.nn.Parameter)
        else x.to(META)
        for x in held
    }
    try:
        return copy.deepcopy(program, memo)
    except RuntimeError as error:  # it keeps what it has computed of its parameters
        raise CannotFollow(
            f"a copy of the module without data could not be made: {error}. Make it with "
            "`with torch.device('meta'):`, before it is traced"
        ) from None


def _tensors(trees: Iterable[Any]) -> list[torch.Tensor]:
    """The tensors in nested tuples and lists, in order. PyTorch's pytree is slow."""
    found = []
    for tree in trees:
        if isinstance(tree, torch.Tensor):
            found.append(tree)
        elif isinstance(tree, tuple | list):
            found += _tensors(tree)
    return found
