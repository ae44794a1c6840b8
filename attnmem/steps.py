"""The work of one operation: its FLOPs, and the bytes that it reads and writes.

Taught in :ref:`intensity-steps`.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten

#: Operations per element of softmax, by convention: compare for the maximum, subtract, exp, add
#: to the sum, divide. Source: Yuan et al. 2024, arXiv 2402.16363, Table 1 (1.25 FLOP/B in 16 bit).
SOFTMAX_OPS = 5

#: Of its backward, dS = P∘(dP − rowsum(dP∘P)): multiply, add to the sum, subtract, multiply.
SOFTMAX_BACKWARD_OPS = 4


@dataclass(frozen=True)
class Step:
    """One step of a program: its FLOPs, and the bytes that it reads and writes.

    Each operand is counted once and in its own dtype, as if the step were one kernel that reads
    its inputs from the device's memory and writes its result there. Softmax's backward on CUDA is
    two kernels, and counts what they pass on. ``matrix`` tells whether matrix products do the
    arithmetic, ``dtype`` what is written, ``special`` how many exponentials, sines and the like
    an unfused step has, ``backward`` whether autograd's backward pass takes the step.

    >>> import torch
    >>> scaling = Step("scale", 2**20, 2**21, 2**21, matrix=False, dtype=torch.float16)
    >>> scaling.bytes_moved, scaling.intensity
    (4194304, 0.25)

    Taught in :ref:`intensity-qk`.
    """

    name: str
    flops: int
    bytes_read: int
    bytes_written: int
    matrix: bool
    dtype: torch.dtype
    special: int = 0
    backward: bool = False

    @property
    def bytes_moved(self) -> int:
        """Bytes read and written."""
        return self.bytes_read + self.bytes_written

    @property
    def intensity(self) -> float:
        """Arithmetic intensity, in FLOPs per byte moved.

        Raises ``ZeroDivisionError`` for a step that moves nothing.
        """
        return self.flops / self.bytes_moved


def step(
    op: Any,
    args: Sequence[Any],
    inputs: Sequence[torch.Tensor],
    outputs: Sequence[torch.Tensor],
    *,
    device: str,
    backward: bool,
) -> Step:
    """The step that an operation of PyTorch is.

    ``op`` is an overload such as ``torch.ops.aten.bmm.default``, ``args`` its positional arguments,
    ``inputs`` and ``outputs`` the tensors that go in and come out, of any shape; they may be on the
    device ``meta``. ``device`` is the kind of device that the step is counted for, ``"cuda"`` or
    ``"cpu"``.

    FLOPs are those of ``torch.utils.flop_counter`` where that counts, else :data:`SOFTMAX_OPS` and
    :data:`SOFTMAX_BACKWARD_OPS` per element of a softmax, and one per element of a pointwise
    operation. Sums and other reductions count none.

    >>> q, k = torch.empty(12, 512, 64, device="meta"), torch.empty(12, 64, 512, device="meta")
    >>> product = torch.bmm(q, k)
    >>> bmm = torch.ops.aten.bmm.default
    >>> s = step(bmm, (q, k), [q, k], [product], device="cuda", backward=False)
    >>> s.flops == 2 * 12 * 512 * 512 * 64, s.bytes_read, s.bytes_written
    (True, 3145728, 12582912)

    Taught in :ref:`intensity-steps`.
    """
    counter = flop_registry.get(op.overloadpacket)
    out = outputs[0]
    if counter:
        flops = counter(*args, out_val=out)
    else:
        flops = PER_ELEMENT.get(op, torch.Tag.pointwise in op.tags) * out.numel()
    skipped = reads_from(op)
    read = 0 if skipped is None else _bytes(inputs[skipped:])
    written = _bytes(outputs)
    if op is aten._softmax_backward_data.default and device == "cuda":
        # A first kernel writes dP∘P, a second reads it, and P again: cuda/SoftMax.cu.
        product = _bytes(inputs[:1])
        read, written = read + product + _bytes(inputs[1:]), written + product
    return Step(
        name=step_name(op),
        flops=int(flops),
        bytes_read=read,
        bytes_written=written,
        matrix=bool(counter),
        dtype=out.dtype,
        special=out.numel() if op.overloadpacket in SPECIAL else 0,
        backward=backward,
    )


@functools.cache
def step_name(op: Any) -> str:
    """What PyTorch calls an operation, without the underscores around it.

    >>> step_name(torch.ops.aten._softmax.default)
    'softmax'

    Used in :ref:`intensity-steps`.
    """
    return str(op.overloadpacket.__name__).strip("_")


@functools.cache
def reads_from(op: Any) -> int | None:
    """From which of its tensors on an operation reads data; ``None``: from none.

    0, but for operations that overwrite their first tensor: 1.

    Used in :ref:`intensity-steps`.
    """
    name = step_name(op)
    if name.endswith("_like") or name.startswith("new_"):
        return None  # it only looks at the shape
    return 1 if op in OVERWRITES else 0


@functools.cache
def touches_data(op: Any) -> bool:
    """Whether an operation does more than to allocate, or to look at its input another way.

    >>> touches_data(torch.ops.aten.bmm.default), touches_data(torch.ops.aten.transpose.int)
    (True, False)

    Used in :ref:`intensity-steps`.
    """
    return not op.is_view and not step_name(op).startswith(("empty", "new_empty", "unsafe_view"))


def tensors_in(tree: Any) -> list[torch.Tensor]:
    """The tensors in nested tuples and lists, in order; other things are left out.

    Used in :ref:`intensity-steps`.
    """
    if isinstance(tree, torch.Tensor):
        return [tree]
    if isinstance(tree, (tuple, list)):
        return [tensor for branch in tree for tensor in tensors_in(branch)]
    return []


def _bytes(tensors: Sequence[torch.Tensor]) -> int:
    """The bytes that tensors have, one that is there twice or expanded only once."""
    different = {
        (x.untyped_storage()._cdata, x.storage_offset(), x.shape, x.stride()): x for x in tensors
    }
    return sum(
        min(x.numel() * x.element_size(), x.untyped_storage().nbytes()) for x in different.values()
    )


PER_ELEMENT = {
    aten._softmax.default: SOFTMAX_OPS,
    aten._safe_softmax.default: SOFTMAX_OPS,
    aten._softmax_backward_data.default: SOFTMAX_BACKWARD_OPS,
    aten.copy_.default: 0,
    aten.fill_.Scalar: 0,
}
OVERWRITES = {aten.copy_.default, aten.fill_.Scalar, aten.zero_.default, aten.normal_.default}
SPECIAL = {
    aten._softmax,
    aten._safe_softmax,
    *(aten.exp, aten.exp2, aten.log, aten.sin, aten.cos),
    *(aten.tanh, aten.sigmoid, aten.erf, aten.rsqrt, aten.sqrt),
}
