"""What losses allocate on CUDA beside their outputs: a rule each.

Places in PyTorch are in aten/src/ATen/native/Loss.cpp. ``reduction`` is 0 for no sum, else the loss
of each element is made first.
"""

import torch

from attnmem.prediction.kernels.reductions import LOW, reduce
from attnmem.prediction.kernels.rules import Kernel, rule, size_of

aten = torch.ops.aten


def _each(kernel: Kernel) -> torch.Tensor:
    shape = torch.broadcast_shapes(*(x.shape for x in kernel.inputs[:2]))  # type: ignore[no-untyped-call]
    return torch.empty(shape, dtype=kernel.outputs[0].dtype, device="meta")


def _sum(kernel: Kernel, each: torch.Tensor) -> None:
    wide, vector = (4, 8) if each.dtype in LOW else (each.element_size(), 4)
    reduce(kernel, each, kernel.outputs[0], range(each.ndim), accumulator=wide, vector=vector)


def _reduction(kernel: Kernel, place: int) -> int:
    return kernel.args[place] if len(kernel.args) > place else 1


@rule("cuda", aten.mse_loss.default, aten.smooth_l1_loss.default)
def squares(kernel: Kernel) -> None:
    """TORCH_META_FUNC(mse_loss): one number, in the memory of the losses of all."""
    if not _reduction(kernel, 2):
        kernel.allocate(0)
        return
    each = _each(kernel)
    kernel.outputs[0].untyped_storage().resize_(size_of(each))
    kernel.allocate(0)
    kernel.buffer("loss of each", size_of(each))
    _sum(kernel, each)


@rule("cuda", aten.huber_loss.default)
def huber(kernel: Kernel) -> None:
    """huber_loss and apply_loss_reduction."""
    if not _reduction(kernel, 2):
        kernel.allocate(0)
        return
    each = _each(kernel)
    kernel.buffer("loss of each", size_of(each))
    kernel.allocate(0)
    _sum(kernel, each)


@rule("cuda", aten.binary_cross_entropy_with_logits.default)
def cross_entropy_of_two(kernel: Kernel) -> None:
    """binary_cross_entropy_with_logits."""
    each = _each(kernel)
    kernel.buffer("log-sigmoid", size_of(each))
    if len(kernel.args) > 3 and kernel.args[3] is not None:
        kernel.unknown("products with pos_weight")
    if _reduction(kernel, 4):
        kernel.buffer("loss of each", size_of(each))
    kernel.allocate(0)
    if _reduction(kernel, 4):
        _sum(kernel, each)
        kernel.free("log-sigmoid", "loss of each")
