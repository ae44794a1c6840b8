"""How a rule says what a kernel allocates: in the order of the kernel's source, line by line."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

Tensors = Sequence[torch.Tensor]


class Kernel:
    """A call of one operation's kernel, and what it allocates and frees, in order.

    ``args`` and ``kwargs``: the operation's arguments. ``inputs`` and ``outputs``: the tensors that
    go in and come out, of any device. ``actions``: an output's index, where that is allocated; the
    label and the bytes of a buffer of the kernel's own; such a label alone, where that is freed.
    Buffers that are not freed end with the call. ``left_out``: what it allocates besides, and
    no rule tells how much.
    """

    def __init__(
        self,
        args: Sequence[Any],
        inputs: Tensors,
        outputs: Tensors,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.args = args
        self.kwargs = kwargs or {}
        self.inputs = inputs
        self.outputs = outputs
        self.actions: list[int | tuple[str, int] | str] = []
        self.left_out: str = ""

    def allocate(self, *outputs: int) -> None:
        """Outputs, by their indices."""
        self.actions += outputs

    def allocate_outputs(self) -> None:
        """All outputs in their order: what most kernels do."""
        self.actions += range(len(self.outputs))

    def buffer(self, label: str, size: int) -> None:
        """A buffer of ``size`` bytes."""
        self.actions.append((label, size))

    def free(self, *labels: str) -> None:
        """Buffers, by their labels."""
        self.actions += labels

    def unknown(self, what: str) -> None:
        """Buffers of a size that is not known here, in words."""
        self.left_out = what

    def contiguous(self, *tensors: torch.Tensor) -> None:
        """Copies of those ``tensors`` that are not contiguous."""
        for tensor in tensors:
            if not tensor.is_contiguous():
                self.buffer("contiguous copy", size_of(tensor))


Rule = Callable[[Kernel], None]
RULES: dict[str, dict[Any, Rule]] = {"cuda": {}, "cpu": {}}


def rule(device: str, *operations: Any) -> Callable[[Rule], Rule]:
    """Make a function the rule of ``operations``, overloads of PyTorch, on ``device``."""

    def register(function: Rule) -> Rule:
        RULES[device] |= dict.fromkeys(operations, function)
        return function

    return register


def size_of(tensor: torch.Tensor) -> int:
    """The bytes of the elements of a tensor."""
    return tensor.numel() * tensor.element_size()
