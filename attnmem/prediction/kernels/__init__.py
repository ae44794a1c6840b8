"""What kernels allocate and no dispatch mode sees: their own buffers, and the order of outputs.

A rule for each operation, with the place in PyTorch's source that it comes from. Checked on torch
2.11 with an H100 and an H200, whose generation sizes that depend on the GPU are of, and for the
CPU on torch 2.13. Operations without a rule that were seen to allocate their outputs alone stand in
``measured.txt``.
"""

from collections.abc import Sequence
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
OURS = ("aten", "prims", "profiler", "attnmem")  # a CPU's kernels of others' are not known
LEFT_OUT = "the trace takes its outputs alone"


@cache
def measured() -> dict[str, int]:
    """Operation -> the most bytes beside its outputs that were recorded on a GPU."""
    text = Path(__file__).with_name("measured.txt").read_text(encoding="utf-8")
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return {name: int(more[0]) if more else 0 for name, *more in lines}


@cache
def unknown(op: Any) -> str:
    """What ``op`` allocates on CUDA that no rule here tells, in words; "" for nothing."""
    name = str(op)
    if op.is_view or op in RULES["cuda"] or name in RULES["cuda"]:
        return ""
    packet, _, overload = name.rpartition(".")
    for found in (name, f"{packet.removesuffix('_')}.{overload}"):
        if found in measured():
            most = measured()[found]
            return f"allocates up to {most:,} B beside its outputs in small samples" if most else ""
    if name.startswith(("prims.", "profiler.")) or torch.Tag.pointwise in op.tags:
        return ""  # TensorIterator allocates the output alone, the profiler's marks nothing
    if op.overloadpacket in FACTORIES:
        return ""
    return "was not looked at"


@cache
def _rule(op: Any, device: str) -> Rule:
    rules = RULES[device]
    return rules.get(op) or rules.get(str(op)) or Kernel.allocate_outputs


def kernel_of(
    op: Any, args: Sequence[Any], inputs: Tensors, outputs: Tensors, device: str
) -> Kernel:
    """The kernel that ``op`` is on ``device``, with what it allocates: see :class:`Kernel`.

    Without a rule it allocates its outputs, in order. Warns, with the name of ``op``, where it
    allocates what is not known here, and where that was not looked at.
    """
    kernel = Kernel(args, inputs, outputs)
    _rule(op, device)(kernel)
    if kernel.left_out:
        warn(f"{op} allocates {kernel.left_out}; the trace leaves them out")
    elif (device == "cuda" or op.namespace not in OURS) and (why := unknown(op)):
        warn(f"{op} {why}; {LEFT_OUT}")
    return kernel
