"""On a CPU, the numbers of ``tensor * number`` that autograd keeps for backward."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from attnmem.timeline import in_backward

aten = torch.ops.aten
KEEP = {aten.mul.Tensor, aten.div.Tensor, aten.mul_.Tensor, aten.div_.Tensor}
NODES = ("MulBackward0", "DivBackward0")


class Numbers:
    """Which of them are alive: a node of autograd keeps each, and uses it again in backward.

    A checkpoint without reentry that is computed again drops its graph when it has what it needs.
    """

    def __init__(self) -> None:
        self.waiting: dict[int, Any] = {}  # for backward, by the number of the node
        self.recomputed: list[Any] = []  # inside a checkpoint that is computed again
        self.spent: list[Any] = []  # backward has used them

    def kept(self, op: Any, inputs: Sequence[torch.Tensor], block: Any) -> bool:
        """Whether autograd keeps the number of ``op``. Hooks of saved tensors do not see it."""
        if not (op in KEEP and torch.is_grad_enabled() and inputs[0].requires_grad):
            return False
        if in_backward() and torch._C._autograd._top_saved_tensors_default_hooks(True):
            self.recomputed.append(block)
        else:
            self.waiting[torch._C._autograd._get_sequence_nr() - 1] = block
        return True

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
        if number in self.waiting:
            self.spent.append(self.waiting.pop(number))
        return True

    def over(self) -> Iterator[Any]:
        """Those that nothing keeps any more, before the next operation."""
        while self.spent:  # a node gives them up after its gradients
            yield self.spent.pop()
        if self.recomputed and not torch.is_grad_enabled():
            while self.recomputed:
                yield self.recomputed.pop()
