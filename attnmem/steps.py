"""The work of one operation: its FLOPs, and the bytes that it reads and writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten

# Operations per element of softmax, by convention: compare for the maximum, subtract, exp, add
# to the sum, divide. Source: Yuan et al. 2024, arXiv 2402.16363, Table 1 (1.25 FLOP/B in 16 bit).
SOFTMAX_OPS = 5


@dataclass(frozen=True)
class Step:
    """One step of a program: its FLOPs, and the bytes that it reads and writes.

    Each operand is counted once, as if the step were one kernel that reads its inputs from the
    device's memory and writes its result there. ``matrix`` tells whether matrix units do the
    arithmetic, ``dtype`` what its operands are, ``backward`` whether autograd's backward pass
    takes the step.
    """

    name: str
    flops: int
    bytes_read: int
    bytes_written: int
    matrix: bool
    dtype: torch.dtype
    backward: bool = False

    @property
    def bytes_moved(self) -> int:
        """Bytes read and written."""
        return self.bytes_read + self.bytes_written

    @property
    def intensity(self) -> float:
        """Arithmetic intensity, in FLOPs per byte moved."""
        return self.flops / self.bytes_moved


def step(
    op: Any,
    name: str,
    args: Sequence[Any],
    inputs: Sequence[torch.Tensor],
    outputs: Sequence[torch.Tensor],
    backward: bool,
) -> Step:
    """The step that an operation of PyTorch is, by its name in ``torch.ops.aten``.

    FLOPs are those of ``torch.utils.flop_counter`` where that counts, :data:`SOFTMAX_OPS` per
    element of a softmax, and one per element of other arithmetic.
    """
    counter = flop_registry.get(op.overloadpacket)
    if counter:
        flops = counter(*args, out_val=outputs[0])
    elif torch.Tag.pointwise in op.tags:
        flops = outputs[0].numel()
    elif op is aten._softmax.default:
        flops = SOFTMAX_OPS * outputs[0].numel()
    else:
        flops = 0
    return Step(
        name=name,
        flops=flops,
        bytes_read=_bytes(inputs),
        bytes_written=_bytes(outputs),
        matrix=bool(counter),
        dtype=outputs[0].dtype,
        backward=backward,
    )


def tensors_in(tree: Any) -> list[torch.Tensor]:
    """The tensors in nested tuples and lists."""
    if isinstance(tree, torch.Tensor):
        return [tree]
    if isinstance(tree, (tuple, list)):
        return [tensor for branch in tree for tensor in tensors_in(branch)]
    return []


def _bytes(tensors: Sequence[torch.Tensor]) -> int:
    """The bytes that tensors have, an expanded one only once."""
    return sum(min(x.numel() * x.element_size(), x.untyped_storage().nbytes()) for x in tensors)
