"""The work of one operation: its FLOPs, and the bytes that it reads and writes."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

from attnmem.timeline import SOFTMAX_BACKWARD_OPS, SOFTMAX_OPS, Stage, Step, step_name

aten = torch.ops.aten


def step(
    op: Any,
    args: Sequence[Any],
    inputs: Sequence[torch.Tensor],
    outputs: Sequence[torch.Tensor],
    *,
    device: str,
    stage: Stage,
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
    >>> s = step(bmm, (q, k), [q, k], [product], device="cuda", stage="forward")
    >>> s.flops == 2 * 12 * 512 * 512 * 64, s.bytes_read, s.bytes_written
    (True, 3145728, 12582912)
    """
    counter = flop_registry.get(op.overloadpacket)
    out = outputs[0]
    if op in PRODUCTS:  # as flop_counter, which flattens trees first
        flops = 2 * out.numel() * args[0].shape[-1]
    elif counter:
        flops = counter(*_with_every_head(op, args), out_val=_result(op, args, outputs))
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
        stage=stage,
    )


def _result(op: Any, args: Sequence[Any], outputs: Sequence[torch.Tensor]) -> Any:
    """What ``op`` returns, of its tensors; a convolution's backward skips some."""
    if len(op._schema.returns) == 1 and len(outputs) == 1:
        return outputs[0]
    if op is aten.convolution_backward.default:
        left = iter(outputs)
        return tuple(next(left) if wanted else None for wanted in args[-1])
    return tuple(outputs)


def _with_every_head(op: Any, args: Sequence[Any]) -> list[Any]:
    """The arguments of fused attention, with as many heads of K and V as of Q."""
    if "scaled_dot_product" not in op.overloadpacket.__name__:
        return list(args)
    first = [name.name for name in op._schema.arguments].index("query")
    query, key, value = args[first : first + 3]
    every = (x[:, :1].expand(-1, query.shape[1], -1, -1) for x in (key, value))
    return [*args[: first + 1], *every, *args[first + 3 :]]


@functools.cache
def reads_from(op: Any) -> int | None:
    """From which of its tensors on an operation reads data; ``None``: from none.

    0, but for operations that overwrite their first tensor: 1.
    """
    name = step_name(op)
    if name.endswith("_like") or name.startswith("new_"):
        return None  # it only looks at the shape
    return 1 if op in OVERWRITES else 0


def _bytes(tensors: Sequence[torch.Tensor]) -> int:
    """The bytes that tensors have, one that is there twice or expanded only once."""
    if len(tensors) > 1:
        different = {
            (x.untyped_storage()._cdata, x.storage_offset(), x.shape, x.stride()): x
            for x in tensors
        }
        tensors = list(different.values())
    return sum(min(x.nbytes, x.untyped_storage().nbytes()) for x in tensors)


PRODUCTS = {aten.mm.default, aten.bmm.default}
PER_ELEMENT = {
    aten._softmax.default: SOFTMAX_OPS,
    aten._safe_softmax.default: SOFTMAX_OPS,
    aten._softmax_backward_data.default: SOFTMAX_BACKWARD_OPS,
    aten.copy_.default: 0,
    aten.fill_.Scalar: 0,
    aten.fill_.Tensor: 0,
}
OVERWRITES = {
    *(aten.copy_.default, aten.zero_.default, aten.normal_.default),
    *(aten.fill_.Scalar, aten.fill_.Tensor),
}
SPECIAL = {
    aten._softmax,
    aten._safe_softmax,
    *(aten.exp, aten.exp2, aten.log, aten.sin, aten.cos),
    *(aten.tanh, aten.sigmoid, aten.erf, aten.rsqrt, aten.sqrt),
}
