"""What the operations on lists of tensors allocate, with which optimizers update a model."""

import re

import torch

from attnmem.prediction.kernels.rules import Kernel, rule
from attnmem.workload import ceil_div

CHUNK = 65536  # elements that a block of threads takes: kChunkSize, cuda/MultiTensorApply.cuh


def _overloads(pattern: str) -> list[str]:
    """The names of the operations of ATen that match, as rules know them."""
    names = [x.removeprefix("aten::") for x in torch._C._dispatch_get_all_op_names()]
    found = [name for name in names if re.fullmatch(pattern, name.partition(".")[0])]
    return [f"aten.{name}" if "." in name else f"aten.{name}.default" for name in found]


@rule("cuda", *_overloads("_foreach_.*|_fused_(sgd|adam|adamw|adagrad)_|_amp_.*"))
def on_lists(k: Kernel) -> None:
    """cuda/Foreach*.cu, Fused*Kernel.cu: addresses and sizes are handed over with the launch."""
    k.allocate_outputs()


@rule("cuda", torch.ops.aten._foreach_norm.Scalar)
def norms(k: Kernel) -> None:
    """foreach_tensor_norm_cuda, cuda/ForeachReduceOp.cu: a partial sum for each chunk, in 32 bit.

    Room for as many chunks of every tensor as the largest has.
    """
    chunks = max(ceil_div(x.numel(), CHUNK) for x in k.inputs)
    k.buffer("partial sums", 4 * len(k.inputs) * chunks)
    k.allocate_outputs()
