"""On a CPU, the numbers of ``tensor * number`` that autograd keeps for backward."""

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from attnmem.timeline import in_backward

aten = torch.ops.aten
KEEP = {aten.mul.Tensor, aten.div.Tensor, aten.mul_.Tensor, aten.div_.Tensor}
NODES = ("MulBackward0", "DivBackward0")


class _Life:
    """What lives as long as a node that it is given to."""


class Numbers:
    """Which of them are alive: a node of autograd keeps each, and uses it again in backward.

    A checkpoint without reentry that is computed again drops its graph when it has what it needs.
    """

    def __init__(self) -> None:
        self.waiting: dict[int, Any] = {}  # for backward, by the number of the node
        self.new: tuple[int, Any] | None = None  # the last node, and the tensor that will tell it
        self.recomputed: list[Any] = []  # inside a checkpoint that is computed again
        self.spent: list[Any] = []  # backward has used them, or their graph is gone

    def kept(
        self, op: Any, inputs: Sequence[torch.Tensor], output: torch.Tensor, block: Any
    ) -> bool:
        """Whether autograd keeps the number of ``op``. Hooks of saved tensors do not see it."""
        if not (op in KEEP and torch.is_grad_enabled() and inputs[0].requires_grad):
            return False
        if in_backward() and torch._C._autograd._top_saved_tensors_default_hooks(True):
            self.recomputed.append(block)
        else:
            number = torch._C._autograd._get_sequence_nr() - 1
            self.waiting[number] = block
            if not op._schema.is_mutable:  # else a view, which may end before its node
                self.new = number, weakref.ref(output)
        return True

    def _follow(self, number: int, output: torch.Tensor | None) -> None:
        """Learn of the end of a node, which is there when its operation is over."""
        node = None if output is None else output.grad_fn
        if output is None:
            self._gone(number)
        elif node is not None and node.name() in NODES:
            life = node.metadata["attnmem"] = _Life()  # type: ignore[index]
            weakref.finalize(life, self._gone, number).atexit = False

    def _gone(self, number: int) -> None:
        if number in self.waiting:
            self.spent.append(self.waiting.pop(number))

    def used(self) -> bool:
        """Whether it is a node that runs now, and it uses the number that it has kept."""
        if not in_backward() or torch.is_grad_enabled():  # else it is computed again
            return False
        node = torch._C._current_autograd_node()
        name, number = (node.name(), node._sequence_nr()) if node else ("", 0)
        if name.endswith("CopySlices"):  # it was in place in a view, and its node is the one before
            number = max((x for x in self.waiting if x < number), default=number)
        elif name not in NODES:
            return False
        self._gone(number)
        return True

    def over(self) -> Iterator[Any]:
        """Those that nothing keeps any more, before the next operation."""
        if self.new:
            number, output = self.new
            self.new = None
            self._follow(number, output())
        while self.spent:  # a node gives them up after its gradients
            yield self.spent.pop()
        if self.recomputed and not torch.is_grad_enabled():
            while self.recomputed:
                yield self.recomputed.pop()
