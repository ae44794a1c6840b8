"""What kernels allocate and no dispatch mode sees: their own buffers, and the order of outputs.

A rule for each operation, with the place in PyTorch's source that it comes from. Checked on torch
2.11 with an H100 and an H200, whose generation sizes that depend on the GPU are of, and for the
CPU on torch 2.13. Operations without a rule that were seen to allocate their outputs alone stand in
``measured.txt`` and ``measured_on_cpu.txt``.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from attnmem.prediction.kernels import (
    arithmetic,
    foreach,
    fourier,
    fused,
    host,
    host_indexing,
    images,
    losses,
    norms,
    reductions,
    softmax,
    sorting,
)
from attnmem.prediction.kernels.arithmetic import NUMBER
from attnmem.prediction.kernels.rules import RULES, Kernel, Rule, Tensors
from attnmem.prediction.refusal import warn

__all__ = [
    "NUMBER",
    "arithmetic",
    "foreach",
    "fourier",
    "fused",
    "host",
    "host_indexing",
    "images",
    "kernel_of",
    "losses",
    "norms",
    "reductions",
    "softmax",
    "sorting",
    "unknown",
]

# native/TensorFactories.cpp: an empty tensor that is then filled.
FACTORIES = {
    getattr(torch.ops.aten, name)
    for name in ("rand", "randn", "randint", "rand_like", "randn_like", "randint_like")
}
MEASURED = {"cuda": "measured.txt", "cpu": "measured_on_cpu.txt"}
# They write into what they are given; NCCL's buffers are not PyTorch's. The forms with lists of
# tensors join these in a buffer, and are not among them. Source: ProcessGroupNCCL.cpp.
COLLECTIVES = {
    f"c10d.{name}.default"
    for name in (
        *("send", "recv_", "broadcast_", "allreduce_", "_allgather_base_"),
        *("_reduce_scatter_base_", "alltoall_base_"),
    )
}
LEFT_OUT = "the trace takes its outputs alone"


@cache
def measured(device: str = "cuda") -> dict[str, tuple[int, int]]:
    """Operation -> the most bytes beside its outputs that were recorded on a device.

    First where all that it is given is contiguous, then where not.
    """
    text = Path(__file__).with_name(MEASURED[device]).read_text(encoding="utf-8")
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return {name: (int(more[0]), int(more[-1])) if more else (0, 0) for name, *more in lines}


@cache
def unknown(op: Any, device: str = "cuda", contiguous: bool = False) -> str:
    """What ``op`` allocates on a device that no rule here tells, in words; "" for nothing.

    ``contiguous``: all that it is given is.
    """
    name = str(op)
    if op.is_view or op in RULES[device] or name in RULES[device]:
        return ""
    if device == "cpu" and torch.Tag.pointwise in op.tags:
        return ""  # a rule of its own: see _rule
    packet, _, overload = name.rpartition(".")
    for found in (name, f"{packet.removesuffix('_')}.{overload}"):
        if found in measured(device):
            most = measured(device)[found][not contiguous]
            return f"allocates up to {most:,} B beside its outputs in small samples" if most else ""
    if name.startswith(("prims.", "profiler.")) or torch.Tag.pointwise in op.tags:
        return ""  # TensorIterator allocates the output alone, the profiler's marks nothing
    if op.overloadpacket in FACTORIES or (device == "cuda" and name in COLLECTIVES):
        return ""
    return "was not looked at"


@cache
def _rule(op: Any, device: str) -> Rule:
    rules = RULES[device]
    if found := rules.get(op) or rules.get(str(op)):
        return found
    elementwise = device == "cpu" and torch.Tag.pointwise in op.tags
    return arithmetic.elementwise_on_cpu if elementwise else Kernel.allocate_outputs


def kernel_of(
    op: Any,
    args: Sequence[Any],
    inputs: Tensors,
    outputs: Tensors,
    device: str,
    kwargs: Mapping[str, Any] | None = None,
) -> Kernel:
    """The kernel that ``op`` is on ``device``, with what it allocates: see :class:`Kernel`.

    Without a rule it allocates its outputs, in order. Warns, with the name of ``op``, where it
    allocates what is not known here, and where that was not looked at.
    """
    kernel = Kernel(args, inputs, outputs, kwargs)
    _rule(op, device)(kernel)
    if kernel.left_out:
        warn(f"{op} allocates {kernel.left_out}; the trace leaves them out")
    elif unknown(op, device) and (
        why := unknown(op, device, all(x.is_contiguous() for x in inputs))
    ):
        warn(f"{op} {why}; {LEFT_OUT}")
    return kernel
