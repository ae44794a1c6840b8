from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from attnmem import Workload, standard_attention
from attnmem.devices import ACCELERATORS, find
from attnmem.roofline import attainable_seconds, balance, bound, standard_steps

SIZES = st.integers(1, 4096)
W = Workload(batch=1, heads=12, seq_len=8192, head_dim=64, dtype=torch.float16)


@given(SIZES, SIZES, SIZES, SIZES, st.sampled_from(["float16", "float32"]))
def test_intensity_is_the_chapter_s_formula(batch, heads, n, d, dtype):
    w = Workload(batch=batch, heads=heads, seq_len=n, head_dim=d, dtype=dtype)
    qk, scale, softmax, pv = standard_steps(w)
    expected = 2 / w.element_bytes * d / (1 + 2 * d / n)
    # one rounding in a division of exact integers against four in the formula: a few 2⁻⁵³
    assert qk.intensity == pytest.approx(expected, rel=1e-15)
    assert pv.intensity == qk.intensity
    assert scale.intensity == 1 / (2 * w.element_bytes)
    assert softmax.intensity == 5 / (2 * w.element_bytes)


def test_products_have_the_flops_that_pytorch_counts():
    q = torch.empty(W.shape, dtype=W.dtype, device="meta")
    with FlopCounterMode(display=False) as counter:
        standard_attention(q, q, q)
    assert counter.get_total_flops() == sum(s.flops for s in standard_steps(W) if s.matrix)


def test_steps_move_what_they_read_and_write():
    x, s = W.head_bytes, W.score_bytes
    traffic = [(step.bytes_read, step.bytes_written) for step in standard_steps(W)]
    assert traffic == [(2 * x, s), (s, s), (s, s), (s + x, x)]


@pytest.mark.parametrize(
    ("name", "point"),
    [
        ("A100 80 GB SXM4", 153),
        ("H100 SXM", 295),
        ("H200 SXM", 206),
        ("RTX 3090", 76),
        ("L40S", 419),
    ],
)
def test_balance_points(name, point):
    assert round(balance(find(name), matrix=True)) == point


def test_a_step_on_either_side_of_the_balance_point():
    small, large = (standard_steps(replace(W, head_dim=d))[0] for d in (64, 256))
    a100 = find("A100 80 GB SXM4")
    assert (bound(small, a100), bound(large, a100)) == ("memory", "compute")
    assert attainable_seconds(small, a100) == small.bytes_moved / 2039e9
    assert attainable_seconds(large, a100) == large.flops / 312e12


@given(SIZES, SIZES, st.sampled_from(ACCELERATORS))
def test_the_bound_is_the_longer_of_the_two_times(n, d, card):
    for step in standard_steps(replace(W, seq_len=n, head_dim=d)):
        moving = step.bytes_moved / card.bandwidth
        computing = step.flops / card.peak_flops(matrix=step.matrix)
        assert attainable_seconds(step, card) == max(moving, computing)
        if moving != pytest.approx(computing, rel=1e-12):  # else rounding decides
            assert bound(step, card) == ("memory" if moving > computing else "compute")


def test_there_is_no_verdict_on_products_in_32_bit():
    products = standard_steps(replace(W, dtype=torch.float32))[0]
    with pytest.raises(ValueError, match=r"'QKᵀ' must be in 16 bit.* got torch\.float32"):
        bound(products, find("H100 SXM"))


def test_every_data_sheet_has_a_source():
    assert len({card.name for card in ACCELERATORS}) == len(ACCELERATORS) >= 15
    assert all(card.source and card.read in ("vendor", "quoted") for card in ACCELERATORS)


def test_an_unknown_accelerator_is_answered_with_near_ones():
    with pytest.raises(LookupError, match=r"no accelerator 'H100'.*H100 SXM"):
        find("H100")
    with pytest.raises(LookupError, match="V100 SXM2 32 GB or T4 or A100"):
        find("?")
