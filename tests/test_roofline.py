from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from attnmem import Workload, standard_attention
from attnmem.catalog import ACCELERATORS, accelerator, recognise
from attnmem.formulas import standard_steps
from attnmem.measurement.records import RECORDS, load
from attnmem.roofline import (
    Ceilings,
    attainable_seconds,
    bound,
    limited_by,
    limits,
    measured_roof,
    ridge_point,
)

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
def test_ridge_points(name, point):
    assert round(ridge_point(accelerator(name), matrix=True)) == point


def test_a_step_on_either_side_of_the_ridge_point():
    small, large = (standard_steps(replace(W, head_dim=d))[0] for d in (64, 256))
    a100 = accelerator("A100 80 GB SXM4")
    assert (bound(small, a100), bound(large, a100)) == ("memory", "compute")
    assert attainable_seconds(small, a100) == small.bytes_moved / 2039e9
    assert attainable_seconds(large, a100) == large.flops / 312e12


@given(SIZES, SIZES, st.sampled_from(ACCELERATORS), st.sampled_from(["float16", "float32"]))
def test_the_bound_is_the_longest_of_the_limits(n, d, card, dtype):
    for step in standard_steps(replace(W, seq_len=n, head_dim=d, dtype=dtype)):
        found = limits(step, card)
        assert found["memory"] == step.bytes_moved / card.bandwidth
        assert attainable_seconds(step, card) == max(found.values())
        assert found[bound(step, card)] == max(found.values())
        if step.matrix:
            rate = card.matrix_tflops if dtype == "float16" else card.vector_tflops
            assert ("compute" in found) == (rate is not None)
            assert rate is None or found["compute"] == step.flops / (rate * 10**12)


def test_exponentials_have_a_roof_of_their_own():
    # FlashAttention-3 (arXiv 2407.08608), section 3.1: 3.9 TFLOP/s of special functions on an H100
    # SXM, and exponentials take about half the time of the matrix products at d = 128.
    h100 = accelerator("H100 SXM")
    assert round(h100.special_rate / 1e12, 1) == 3.9
    qk, _, softmax, pv = standard_steps(replace(W, head_dim=128))
    products = sum(limits(step, h100)["compute"] for step in (qk, pv))
    assert limits(softmax, h100)["special functions"] / products == pytest.approx(0.5, abs=0.01)


def test_verdicts_on_measured_steps():
    step = standard_steps(W)[1]  # scaling: as many bytes read as written
    largest = {"copy": 3e12, "triad": 3e12, "fill": 4e12, "sum": 4e12}
    ceilings = Ceilings({2**25: 8e12, 2**32: 4e12}, largest, matmul={}, launch=1e-5)
    least = step.bytes_moved / 4e12
    assert measured_roof(step, ceilings) == ("memory", least)
    assert limited_by(step, least * 1.2, ceilings) == "memory"
    assert limited_by(step, least * 2, ceilings) == "kernel"
    writes_slowly = replace(ceilings, largest=largest | {"fill": 2e12})
    assert measured_roof(step, writes_slowly) == ("memory", 1.5 * least)
    tiny = standard_steps(replace(W, seq_len=64))[1]
    assert limited_by(tiny, 1e-5, ceilings) == "launches"
    slow_launch = replace(ceilings, launch=2 * least)  # a product's: this step started in less
    assert limited_by(step, least * 1.2, slow_launch) == "memory"
    quick = replace(ceilings, launch=0)
    assert measured_roof(tiny, quick) == ("cache", tiny.bytes_moved / 8e12)
    product = standard_steps(replace(W, head_dim=256))[0]
    slow = replace(quick, matmul={"float16": 1e14})
    assert measured_roof(product, slow) == ("compute", product.flops / 1e14)


def test_every_data_sheet_has_a_source():
    assert len({card.name for card in ACCELERATORS}) == len(ACCELERATORS) >= 15
    assert all(card.source and card.read in ("vendor", "quoted") for card in ACCELERATORS)


def test_an_unknown_accelerator_is_answered_with_near_ones():
    with pytest.raises(LookupError, match=r"no accelerator 'H100'.*H100 SXM"):
        accelerator("H100")
    with pytest.raises(LookupError, match="V100 SXM2 16 GB or V100 SXM2 32 GB or T4"):
        accelerator("?")


def test_a_device_is_recognised_by_the_name_that_pytorch_gives_it():
    for path in RECORDS:
        device = load(path).provenance
        card = recognise(device.device)
        assert card.memory_bytes == pytest.approx(device.memory_bytes, rel=0.02)  # GB are GiB
    assert recognise("NVIDIA GeForce GT 710") is None


@pytest.mark.parametrize(("dtype", "bits"), [("float8_e4m3fn", 8), ("float64", 64)])
def test_there_is_no_verdict_on_products_whose_rate_is_not_listed(dtype, bits):
    products = standard_steps(replace(W, dtype=dtype))[0]
    with pytest.raises(ValueError, match=f"bits must be 16 or 32 for matrix products, got {bits}"):
        bound(products, accelerator("H100 SXM"))


def test_a_rate_that_no_data_sheet_prints_is_not_guessed():
    tpu = accelerator("TPU v5e")
    assert round(ridge_point(tpu, matrix=True)) == 241
    with pytest.raises(ValueError, match="must have a vector rate, 'TPU v5e' has none"):
        ridge_point(tpu, matrix=False)
    assert set(limits(standard_steps(W)[2], tpu)) == {"memory"}
