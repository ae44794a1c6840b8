"""Attention in tiles: PyTorch's numbers, rows that merge in any order, the formula's peak."""

import functools
import importlib.util
import os
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from attnmem import Workload, measure, trace
from attnmem.tiles import attend, costs, finish, merge, tiled_attention
from attnmem.tiles.kernel import triton_attention

SHAPES = [(37, 37, 8, 5), (16, 16, 4, 4), (20, 33, 8, 12), (33, 20, 6, 6), (1, 1, 1, 1)]
BLOCKS = [(8, 5), (7, None), (None, 7), (None, None), (64, 64), (1, 1)]


def inputs(n, m, d, d_v, *lead, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = ((*lead, n, d), (*lead, m, d), (*lead, m, d_v))
    return [torch.randn(s, dtype=dtype, generator=generator, requires_grad=True) for s in shapes]


def with_gradients(function, inputs):
    o = function(*inputs)
    do = torch.linspace(-1, 1, o.numel(), dtype=o.dtype).reshape(o.shape)
    return o, *torch.autograd.grad(o, inputs, do)


@given(
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    spread=st.floats(0, 200),
    hidden=st.booleans(),
    order=st.randoms(use_true_random=False),
)
def test_blocks_of_a_row_merge_in_any_order_to_its_softmax(seed, cuts, spread, hidden, order):
    generator = torch.Generator().manual_seed(seed)
    s = spread * torch.randn(3, sum(cuts), dtype=torch.float64, generator=generator)
    v = torch.randn(sum(cuts), 4, dtype=torch.float64, generator=generator)
    if hidden:  # some blocks have no key for some rows
        s[1, cuts[0] :] = s[2, : sum(cuts) - cuts[-1]] = -torch.inf
    parts = [attend(a.clone(), b) for a, b in zip(s.split(cuts, 1), v.split(cuts), strict=True)]
    while len(parts) > 1:  # any two
        order.shuffle(parts)
        parts.append(merge(parts.pop(), parts.pop()))
    o, lse = finish(parts[0])
    torch.testing.assert_close(o, s.softmax(-1) @ v)
    torch.testing.assert_close(lse, s.logsumexp(-1, keepdim=True))


def test_a_row_without_keys_changes_nothing():
    s, v = torch.randn(3, 5), torch.randn(5, 4)
    rows = attend(s.clone(), v)
    none = attend(torch.full((3, 2), -torch.inf), torch.randn(2, 4))
    for merged in (merge(rows, none), merge(none, rows), merge(rows, merge(none, none))):
        assert all(torch.equal(a, b) for a, b in zip(merged, rows, strict=True))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_tiles_are_pytorch_s_attention_with_its_gradients(shape, block, causal):
    tensors = inputs(*shape, 2, 3)
    tiled = functools.partial(tiled_attention, block=block, causal=causal)
    fused = functools.partial(F.scaled_dot_product_attention, is_causal=causal)
    for ours, theirs in zip(
        with_gradients(tiled, tensors), with_gradients(fused, tensors), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("lead", [(), (2,), (2, 1, 3), (0,)])
def test_leading_dimensions_are_free(lead):
    tensors = inputs(5, 6, 4, 3, *lead)
    o, *_ = with_gradients(functools.partial(tiled_attention, block=(2, 4), scale=0.3), tensors)
    q, k, v = tensors
    torch.testing.assert_close(o, (q @ k.mT * 0.3).softmax(-1) @ v)


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_are_those_of_finite_differences(causal):
    tiled = functools.partial(tiled_attention, block=(4, 3), causal=causal)
    assert torch.autograd.gradcheck(tiled, inputs(9, 7, 4, 3, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_are_rounded_at_the_end_only(dtype):
    tensors = inputs(60, 60, 16, 16, 2, dtype=dtype)
    exact = [x.detach().double().requires_grad_() for x in tensors]
    tiled = functools.partial(tiled_attention, block=(16, 16))
    for ours, right in zip(
        with_gradients(tiled, tensors), with_gradients(tiled, exact), strict=True
    ):
        # dO is rounded before, O inside: two roundings of numbers of at most their largest.
        most = right.abs().max().item() * 2 * torch.finfo(dtype).eps
        torch.testing.assert_close(ours.double(), right, rtol=0, atol=most)


def test_wrong_arguments_are_named():
    q = torch.ones(2, 3, 4)
    wrong: tuple[Any, ...] = ((0, 1), (1,), (1, -1))
    for block in wrong:
        with pytest.raises(ValueError, match="block must be"):
            tiled_attention(q, q, q, block=block)
    with pytest.raises(ValueError, match="at least one key"):
        tiled_attention(q, q[:, :0], q[:, :0])
    with pytest.raises(ValueError, match="k must be"):
        tiled_attention(q, q[..., :2], q)


sizes = st.integers(1, 90)
blocks = st.integers(15, 90)  # at most 6 × 6 tiles: each takes milliseconds


@settings(max_examples=60)
@given(
    b=st.integers(1, 2),
    h=st.integers(1, 3),
    n=sizes,
    d=st.integers(1, 40),
    block=st.tuples(st.none() | blocks, st.none() | blocks),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    training=st.booleans(),
)
def test_the_formula_is_the_trace_s_peak(b, h, n, d, block, dtype, training):
    w = Workload(batch=b, heads=h, seq_len=n, head_dim=d, dtype=dtype)
    t = trace(functools.partial(tiled_attention, block=block), w, training)
    assert costs.peak_bytes(w, block, training=training) == t.peak_bytes


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("block", [(64, 64), (64, None), (None, 64), (48, 100)])
def test_the_trace_is_the_allocator_s_peak(block, training):
    w = Workload(batch=2, heads=3, seq_len=333, head_dim=32, dtype=torch.float32)
    for causal in (False, True):
        program = functools.partial(tiled_attention, block=block, causal=causal)
        found = measure(program, w, training, "cpu")
        assert trace(program, w, training, "cpu").peak_bytes == found.peak_bytes


def test_traffic_with_a_mask_is_what_the_loop_reads():
    w = Workload(batch=1, heads=2, seq_len=100, head_dim=8, dtype=torch.float16)
    loads = sum(min(16 * -(-min(i + 32, 100) // 16), 100) for i in range(0, 100, 32))
    expected = 2 * w.head_bytes + 2 * 2 * loads * 8 * 2 + 4 * 2 * 100
    assert costs.traffic(w, 32, causal=True, keys=16) == expected
    assert costs.traffic(w, 100) == costs.traffic(w, 100, causal=True, keys=100)


interpreted = pytest.mark.skipif(
    not importlib.util.find_spec("triton") or os.environ.get("TRITON_INTERPRET") != "1",
    reason="needs Triton, and TRITON_INTERPRET=1",
)


@interpreted
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("n", "m", "d"), [(128, 128, 64), (70, 70, 24), (50, 100, 64)])
def test_the_kernel_is_pytorch_s_attention_with_its_gradients(n, m, d, causal):
    tensors = inputs(n, m, d, d, 1, 2, dtype=torch.float32)
    kernel = functools.partial(triton_attention, causal=causal, block=(32, 16, 4, 2))
    fused = functools.partial(F.scaled_dot_product_attention, is_causal=causal)
    for ours, theirs in zip(
        with_gradients(kernel, tensors), with_gradients(fused, tensors), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(bool(importlib.util.find_spec("triton")), reason="Triton is here")
def test_without_triton_the_kernel_says_what_is_missing():
    q = torch.ones(1, 1, 4, 4)
    with pytest.raises(ImportError, match="triton must be installed"):
        triton_attention(q, q, q)
