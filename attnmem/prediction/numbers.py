"""On a CPU, the numbers of ``tensor * number`` that autograd keeps for backward."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from attnmem.timeline import in_backward

aten = torch.ops.aten
KEEP = {aten.mul.Tensor, aten.div.Tensor, aten.mul_.Tensor, aten.div_.Tensor}


class Numbers:
    """Which of them are alive: the graph of autograd keeps them, and its node uses them again.

    A checkpoint without reentry that is computed again drops its graph when it has what it needs.
    """

    def __init__(self) -> None:
        self.waiting: list[Any] = []  # for backward
        self.recomputed: list[Any] = []  # inside a checkpoint that is computed again
        self.spent: list[Any] = []  # backward has used them

    def kept(self, op: Any, inputs: Sequence[torch.Tensor], block: Any) -> bool:
        """Whether autograd keeps the number of ``op``."""
        if not (op in KEEP and torch.is_grad_enabled() and inputs[0].requires_grad):
            return False
        again = in_backward() and torch._C._autograd._top_saved_tensors_default_hooks(True)
        (self.recomputed if again else self.waiting).append(block)
        return True

    def used(self, op: Any) -> bool:
        """Whether ``op`` is a node of autograd's, which uses one that was kept."""
        if not (self.waiting and op in KEEP and in_backward() and not torch.is_grad_enabled()):
            return False
        self.spent.append(self.waiting.pop())
        return True

    def over(self) -> Iterator[Any]:
        """Those that nothing keeps any more, before the next operation."""
        while self.spent:  # a node gives them up after its gradients
            yield self.spent.pop()
        if self.recomputed and not torch.is_grad_enabled():
            while self.recomputed:
                yield self.recomputed.pop()
