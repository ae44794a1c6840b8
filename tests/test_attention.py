import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from attnmem import standard_attention

LEADING = st.lists(st.integers(1, 3), max_size=3)
LENGTH = st.integers(1, 20)


@given(LEADING, LENGTH, LENGTH, LENGTH, LENGTH, st.booleans(), st.sampled_from([None, 0.3]))
def test_it_is_pytorch_s_attention(leading, n, m, d, d_v, causal, scale):
    torch.manual_seed(0)
    q, k, v = (
        torch.randn(*leading, n, d),
        torch.randn(*leading, m, d),
        torch.randn(*leading, m, d_v),
    )
    o, s, p = standard_attention(q, k, v, causal=causal, scale=scale)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
    torch.testing.assert_close(o, expected)
    assert s.shape == p.shape == (*leading, n, m)
    torch.testing.assert_close(p.sum(-1), torch.ones(*leading, n))


def test_the_default_scale_is_one_over_root_d():
    q = torch.randn(4, 9)
    _, s, _ = standard_attention(q, q, q)
    torch.testing.assert_close(s, q @ q.T / math.sqrt(9))


def test_a_causal_query_sees_no_later_key():
    q = torch.randn(2, 5, 8)
    _, _, p = standard_attention(q, q, q, causal=True)
    assert torch.equal(p, p.tril())


def test_large_scores_do_not_overflow():
    q = torch.full((1, 4, 64), 30.0, dtype=torch.float16)  # scores of 7200, whose exp is infinite
    o, _, p = standard_attention(q, q, q)
    assert torch.equal(p, torch.full_like(p, 0.25))
    assert o.isfinite().all()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lead", [(), (2,)])
def test_grouped_heads_are_heads_with_repeated_keys(lead, causal):
    q, k, v = (torch.randn(*lead, h, n, d) for h, n, d in ((6, 5, 8), (2, 9, 8), (2, 9, 4)))
    repeated = (x.repeat_interleave(3, -3) for x in (k, v))
    for own, wanted in zip(
        standard_attention(q, k, v, causal=causal),
        standard_attention(q, *repeated, causal=causal),
        strict=True,
    ):
        torch.testing.assert_close(own, wanted)


def test_gradients_reach_the_inputs():
    q, k, v = (torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    assert torch.autograd.gradcheck(lambda *x: standard_attention(*x)[0], (q, k, v))


@pytest.mark.parametrize(
    ("q", "k", "v", "message"),
    [
        (
            (2, 4, 8),
            (2, 4, 7),
            (2, 4, 8),
            r"k must be .* d, \[2, 4, 8\], got \[2, 4, 7\]",
        ),
        ((2, 4, 8), (3, 4, 8), (2, 4, 8), r"k must be .* leading"),
        (
            (2, 4, 8),
            (2, 5, 8),
            (2, 4, 8),
            r"v must be .* M, \[2, 5, 8\], got \[2, 4, 8\]",
        ),
        ((2, 4, 8), (2, 4, 8), (1, 4, 8), r"v must be .* leading"),
        ((8,), (8,), (8,), r"q must be \[\.\.\., seq_len, head_dim\], got \[8\]"),
        (
            (4, 0),
            (4, 0),
            (4, 0),
            r"q must be \[\.\.\., seq_len, head_dim\], got \[4, 0\]",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_named(q, k, v, message):
    with pytest.raises(ValueError, match=message):
        standard_attention(torch.randn(q), torch.randn(k), torch.randn(v))


def test_tensors_that_do_not_fit_are_named():
    x = torch.randn(4, 8)
    with pytest.raises(TypeError, match=r"k must be a floating-point tensor, got torch\.int64"):
        standard_attention(x, x.long(), x)
    with pytest.raises(TypeError, match="v must be a floating-point tensor, got list"):
        standard_attention(x, x, [[1.0]])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"v must have q's dtype .*float32.*, got torch\.float16"):
        standard_attention(x, x, x.half())
    with pytest.raises(ValueError, match=r"k must have q's dtype and device, .* got .* on meta"):
        standard_attention(x, x.to("meta"), x)
