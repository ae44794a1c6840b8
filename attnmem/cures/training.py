"""What training keeps for backward, and how to keep less: dtypes, checkpoints, offloading."""
# mypy: disable-error-code="no-any-return,no-untyped-call"

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from attnmem.cures.cure import Cure, workloads
from attnmem.cures.kernels import fused, unfused
from attnmem.workload import Workload

LAYERS = 4


def autocast_unfused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Under autocast softmax runs in 32 bit: P is kept in 32 bit and once more in 16."""
    with torch.autocast(q.device.type, dtype=torch.bfloat16):
        return unfused(q, k, v)


def autocast_fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Under autocast the fused call takes Q, K and V in 16 bit."""
    with torch.autocast(q.device.type, dtype=torch.bfloat16):
        return fused(q, k, v)


def softmax_in_32_bit(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax in 32 bit by hand: 6 bytes per score are kept."""
    s = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    return torch.softmax(s, dim=-1, dtype=torch.float32).to(q.dtype) @ v


def layers_unfused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Four layers: each keeps its P until backward comes to it."""
    for _ in range(LAYERS):
        q = unfused(q, k, v)
    return q


def layers_checkpointed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Each layer keeps its inputs, and is computed again in backward."""
    for _ in range(LAYERS):
        q = checkpoint(unfused, q, k, v, use_reentrant=False)
    return q


def layers_offloaded(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What is kept waits in the memory of the CPU."""
    with save_on_cpu(pin_memory=q.is_cuda):
        return layers_unfused(q, k, v)


def layers_fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Each layer keeps its O and a number per row."""
    for _ in range(LAYERS):
        q = fused(q, k, v)
    return q


def _split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """A transformer block as GPT-2 has it, with fused attention; its input is one of Q's size."""

    def __init__(self, w: Workload) -> None:
        super().__init__()
        width = w.heads * w.head_dim
        self.heads = w.heads
        self.norm_1 = nn.LayerNorm(width, dtype=w.dtype)
        self.norm_2 = nn.LayerNorm(width, dtype=w.dtype)
        self.qkv = nn.Linear(width, 3 * width, dtype=w.dtype)
        self.proj = nn.Linear(width, width, dtype=w.dtype)
        self.up = nn.Linear(width, 4 * width, dtype=w.dtype)
        self.down = nn.Linear(4 * width, width, dtype=w.dtype)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The attention in the middle of the block."""
        return fused(q, k, v)

    def forward(self, x: Tensor) -> Tensor:
        """Hidden states ``[B, N, H·d]`` to such."""
        q, k, v = (_split(y, self.heads) for y in self.qkv(self.norm_1(x)).chunk(3, dim=-1))
        x = x + self.proj(self.attend(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class UnfusedBlock(Block):
    """The same block with attention as the formula says it."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """S and P are made, and P is kept."""
        return unfused(q, k, v)


class CheckpointedAttention(UnfusedBlock):
    """Only the attention is computed again."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Q, K and V are kept."""
        return checkpoint(unfused, q, k, v, use_reentrant=False)


class Model(nn.Module):
    """Four blocks, one after the other. V and K are not used: Q's memory is the input."""

    block: type[Block] = Block

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(self.block(w) for _ in range(LAYERS))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Hidden states through all blocks."""
        b, h, n, d = q.shape
        return self.run(q.view(b, n, h * d))

    def run(self, x: Tensor) -> Tensor:
        """One block after the other."""
        for block in self.blocks:
            x = block(x)
        return x


class UnfusedModel(Model):
    """Every block keeps its P."""

    block = UnfusedBlock


class AttentionCheckpointed(Model):
    """Every block keeps all but P."""

    block = CheckpointedAttention


class BlocksCheckpointed(Model):
    """Every block keeps its input, and is computed again in backward."""

    block: type[Block] = UnfusedBlock

    def run(self, x: Tensor) -> Tensor:
        """Each in a checkpoint."""
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return x


def keep_products(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """The policy that keeps what is dear to compute: products with weights, and attention."""
    dear = op in (torch.ops.aten.addmm.default, torch.ops.aten.mm.default) or "attention" in str(op)
    return CheckpointPolicy.MUST_SAVE if dear else CheckpointPolicy.PREFER_RECOMPUTE


POLICY = functools.partial(create_selective_checkpoint_contexts, keep_products)


class SelectivelyCheckpointed(Model):
    """Every block keeps its products, and computes the rest again."""

    def run(self, x: Tensor) -> Tensor:
        """Each in a checkpoint with a policy."""
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False, context_fn=POLICY)
        return x


class FusedBlocksCheckpointed(BlocksCheckpointed):
    """Fused attention, and a checkpoint around every block."""

    block = Block


def _step(q: Tensor, k: Tensor, v: Tensor) -> None:
    """A loss and its backward pass, whose gradients are added to those that are there."""
    unfused(q, k, v).float().square().sum().backward()


def whole_batch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A step of training with the whole batch; it returns the gradient of Q."""
    with torch.enable_grad():
        q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
        _step(q, k, v)
    return q.grad  # type: ignore[return-value]


def accumulated(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same step, a sequence at a time: gradients add up, and S is that of one sequence."""
    with torch.enable_grad():
        q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
        for parts in zip(q.split(1), k.split(1), v.split(1), strict=True):
            _step(*parts)
    return q.grad  # type: ignore[return-value]


CURES = (
    Cure(
        name="autocast",
        symptom="Autocast to `bf16` saves nothing",
        cause="under autocast softmax runs in 32 bit: 6 bytes per score are kept",
        change="the fused call under autocast",
        before=autocast_unfused,
        after=(autocast_fused,),
        workloads=workloads(dtype="float32"),
        modes=(True,),
    ),
    Cure(
        name="softmax in 32 bit",
        symptom="Softmax in 32 bit: 6 bytes per score are kept",
        cause="softmax is asked for 32 bit, and its result is cast",
        change="softmax without `dtype=torch.float32`",
        before=softmax_in_32_bit,
        after=(unfused,),
        modes=(True,),
    ),
    Cure(
        name="checkpoint",
        symptom="Training grows by S with every layer",
        cause="each layer keeps its P for backward",
        change="`checkpoint` the attention; or keep P on the CPU; or the fused call",
        before=layers_unfused,
        after=(layers_checkpointed, layers_offloaded, layers_fused),
        modes=(True,),
    ),
    Cure(
        name="blocks",
        symptom="A model still grows by every layer",
        cause="a block keeps its hidden states, too",
        change="`checkpoint` the block, or keep its products alone",
        before=UnfusedModel,
        after=(
            AttentionCheckpointed,
            BlocksCheckpointed,
            Model,
            SelectivelyCheckpointed,
            FusedBlocksCheckpointed,
        ),
        modes=(True,),
    ),
    Cure(
        name="accumulation",
        symptom="The batch does not fit",
        cause="S has all its sequences",
        change="smaller micro-batches",
        before=whole_batch,
        after=(accumulated,),
        workloads=tuple(w for w in workloads() if w.batch > 1),
        modes=(False,),
    ),
)
