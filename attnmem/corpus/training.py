"""How projects save memory in training: checkpoints, offloading, autocast, own backwards."""
# ruff: noqa: D102
# mypy: disable-error-code="no-any-return,no-untyped-call"

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from attnmem.corpus.entry import heads, hidden, module, program, width
from attnmem.workload import Workload


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1) @ v


@program
def memory_efficient(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Chunks of keys, each checkpointed, joined by their maxima:
    AminRezaei0x443/memory-efficient-attention, memory_efficient_attention/attention_torch.py.
    """

    def summarize(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weights = torch.einsum("...qhd,...khd->...qhk", q, k)
        highest, _ = torch.max(weights, -1, keepdim=True)
        highest = highest.detach()
        exp_weights = torch.exp(weights - highest)
        values = torch.einsum("...vhf,...qhv->...qhf", v, exp_weights)
        return values, exp_weights.sum(dim=-1), highest.squeeze(-1)

    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    q = q / math.sqrt(q.shape[-1])
    outs = []
    for q_chunk in q.split(128, dim=1):
        chunks = [
            checkpoint(summarize, q_chunk, k_chunk, v_chunk, use_reentrant=False)
            for k_chunk, v_chunk in zip(k.split(128, dim=1), v.split(128, dim=1), strict=True)
        ]
        values, weights, highest = (torch.stack(x) for x in zip(*chunks, strict=True))
        global_max, _ = torch.max(highest, 0, keepdim=True)
        max_diffs = torch.exp(highest - global_max)
        values = values * torch.unsqueeze(max_diffs, -1)
        weights = weights * max_diffs
        outs.append(values.sum(dim=0) / torch.unsqueeze(weights, -1).sum(dim=0))
    return torch.cat(outs, dim=-3)


class _Flash(Function):
    @staticmethod
    @torch.no_grad()
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, size: int) -> Tensor:
        o, scale = torch.zeros_like(q), q.shape[-1] ** -0.5
        sums = torch.zeros((*q.shape[:-1], 1), device=q.device)
        maxes = torch.full((*q.shape[:-1], 1), -torch.finfo(q.dtype).max, device=q.device)
        rows = zip(*(x.split(size, dim=-2) for x in (q, o, sums, maxes)), strict=True)
        for i, (qc, oc, row_sums, row_maxes) in enumerate(rows):
            columns = zip(k.split(size, dim=-2), v.split(size, dim=-2), strict=True)
            for j, (kc, vc) in enumerate(columns):
                weights = torch.einsum("... i d, ... j d -> ... i j", qc, kc) * scale
                if i < j + 1:
                    shape = (qc.shape[-2], kc.shape[-2])
                    future = torch.ones(shape, dtype=torch.bool, device=q.device)
                    future = future.triu((i - j) * size + 1)
                    weights.masked_fill_(future, -torch.finfo(q.dtype).max)
                block_maxes = weights.amax(dim=-1, keepdims=True)
                new_maxes = torch.maximum(block_maxes, row_maxes)
                weights = torch.exp(weights - new_maxes)
                block_sums = weights.sum(dim=-1, keepdim=True).clamp(min=1e-10)
                values = torch.einsum("... i j, ... j d -> ... i d", weights, vc.to(weights.dtype))
                kept = torch.exp(row_maxes - new_maxes)
                new_sums = kept * row_sums + block_sums
                oc.mul_((row_sums / new_sums) * kept).add_(values / new_sums)
                row_maxes.copy_(new_maxes)
                row_sums.copy_(new_sums)
        ctx.size = size
        ctx.save_for_backward(q, k, v, o, sums.log() + maxes)
        return o

    @staticmethod
    @torch.no_grad()
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, o, lse = ctx.saved_tensors
        size, scale = ctx.size, q.shape[-1] ** -0.5
        dq, dk, dv = (torch.zeros_like(x) for x in (q, k, v))
        rows = zip(*(x.split(size, dim=-2) for x in (q, o, do, lse, dq)), strict=True)
        for i, (qc, oc, doc, lsec, dqc) in enumerate(rows):
            columns = zip(*(x.split(size, dim=-2) for x in (k, v, dk, dv)), strict=True)
            for j, (kc, vc, dkc, dvc) in enumerate(columns):
                weights = torch.einsum("... i d, ... j d -> ... i j", qc, kc) * scale
                if i < j + 1:
                    shape = (qc.shape[-2], kc.shape[-2])
                    future = torch.ones(shape, dtype=torch.bool, device=q.device)
                    future = future.triu((i - j) * size + 1)
                    weights.masked_fill_(future, -torch.finfo(q.dtype).max)
                p = torch.exp(weights - lsec).to(q.dtype)
                dvc.add_(torch.einsum("... i j, ... i d -> ... j d", p, doc))
                dp = torch.einsum("... i d, ... j d -> ... i j", doc, vc)
                ds = p * scale * (dp - (doc * oc).sum(dim=-1, keepdims=True))
                dqc.add_(torch.einsum("... i j, ... j d -> ... i d", ds, kc))
                dkc.add_(torch.einsum("... i j, ... i d -> ... j d", ds, qc))
        return dq, dk, dv, None


@program
def flash_in_python(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """FlashAttention as an autograd Function, forward and backward by blocks:
    lucidrains/memory-efficient-attention-pytorch,
    memory_efficient_attention_pytorch/flash_attention.py.
    """
    return _Flash.apply(q, k, v, 128)


class _Checkpoint(Function):
    @staticmethod
    def forward(ctx: Any, run: Callable[..., Tensor], *args: Tensor) -> Tensor:
        ctx.run, ctx.inputs = run, args
        with torch.no_grad():
            return run(*args)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inputs = [x.detach().requires_grad_(True) for x in ctx.inputs]
        with torch.enable_grad():
            copies = [x.view_as(x) for x in inputs]
            output = ctx.run(*copies)
        found = torch.autograd.grad(output, inputs, grads, allow_unused=True)
        del ctx.inputs, output
        return None, *found


@program
def guided_checkpoint(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A checkpoint written as an autograd Function: openai/guided-diffusion,
    guided_diffusion/nn.py.
    """
    return _Checkpoint.apply(_attend, q, k, v)


@module
class SwinCheckpoint(nn.Module):
    """Blocks checkpointed the reentrant way: microsoft/Swin-Transformer,
    models/swin_transformer.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.num_heads = w.heads
        self.norms = nn.ModuleList(nn.LayerNorm(width(w), dtype=w.dtype) for _ in range(2))
        self.qkvs = nn.ModuleList(nn.Linear(width(w), 3 * width(w), dtype=w.dtype) for _ in "ab")

    def block(self, x: Tensor, i: int) -> Tensor:
        parts = self.qkvs[i](self.norms[i](x)).chunk(3, dim=-1)
        return x + hidden(_attend(*(heads(part, self.num_heads) for part in parts)))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = hidden(q)
        for i in range(2):
            if torch.is_grad_enabled():
                x = checkpoint(self.block, x, i, use_reentrant=True)
            else:
                x = self.block(x, i)
        return x


def _policy(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    products = {torch.ops.aten.mm.default, torch.ops.aten.bmm.default}
    if op in products and not ctx.is_recompute:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


@program
def selective_checkpoint(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Products are kept, the rest is computed again: pytorch/torchtitan,
    torchtitan/distributed/activation_checkpoint.py.
    """
    contexts = functools.partial(create_selective_checkpoint_contexts, _policy)
    return checkpoint(_attend, q, k, v, use_reentrant=False, context_fn=contexts)


@program
def offloaded(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What backward needs waits on the CPU, in pinned memory where there is a GPU:
    pytorch/tutorials, intermediate_source/autograd_saved_tensors_hooks_tutorial.py.
    """
    with save_on_cpu(pin_memory=q.is_cuda):
        return _attend(q, k, v)


@program
def packed_by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Hooks that move what is large, and keep the rest: pytorch/tutorials,
    intermediate_source/autograd_saved_tensors_hooks_tutorial.py.
    """

    def pack(x: Tensor) -> Any:
        return x if x.numel() < 100_000 else (x.device, x.cpu())

    def unpack(packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        device, tensor = packed
        return tensor.to(device)

    with saved_tensors_hooks(pack, unpack):
        return _attend(q, k, v)


@program
def autocast(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A forward pass under autocast: pytorch/tutorials, recipes_source/recipes/amp_recipe.py."""
    with torch.autocast(device_type=q.device.type, dtype=torch.bfloat16):
        weights = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1)
        return weights @ v


@module
class StableDiffusion(nn.Module):
    """An island of float32 within autocast: Stability-AI/stablediffusion,
    ldm/modules/attention.py.
    """

    def __init__(self, w: Workload) -> None:
        super().__init__()
        self.heads, self.scale = w.heads, w.head_dim**-0.5
        self.to_q = nn.Linear(width(w), width(w), bias=False)
        self.to_k = nn.Linear(width(w), width(w), bias=False)
        self.to_v = nn.Linear(width(w), width(w), bias=False)

    def forward(self, x: Tensor, context: Tensor, v: Tensor) -> Tensor:
        kind = x.device.type
        with torch.autocast(kind, dtype=torch.bfloat16):
            context = hidden(context)
            projected = (self.to_q(hidden(x)), self.to_k(context), self.to_v(context))
            q, k, v = (heads(y, self.heads).flatten(0, 1) for y in projected)
            with torch.autocast(enabled=False, device_type=kind):
                q, k = q.float(), k.float()
                sim = torch.einsum("b i d, b j d -> b i j", q, k) * self.scale
            del q, k
            sim = sim.softmax(dim=-1)
            out = torch.einsum("b i j, b j d -> b i d", sim, v)
        return hidden(out.view(-1, self.heads, *out.shape[1:]))
