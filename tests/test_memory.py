from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnmem import Workload, measure, standard_attention
from attnmem.formulas import alive_at_peak, peak_bytes, tensors
from attnmem.measurement.records import load

WORKLOADS = st.builds(
    lambda batch, heads, head_dim, longer: Workload(
        batch=batch,
        heads=heads,
        seq_len=head_dim + longer,
        head_dim=head_dim,
        dtype=torch.float32,
    ),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(4, 40),  # below, X is smaller than the scalars (12 B) alive while S is scaled
    st.integers(0, 120),
)


@given(WORKLOADS)
def test_closed_forms(w):
    s, x = w.score_bytes, w.head_bytes
    assert tensors(w) == {"Q": x, "K": x, "V": x, "O": x, "S": s, "P": s}
    assert peak_bytes(w) == peak_bytes(w, device="cpu") == 2 * s + 4 * x
    assert peak_bytes(w, training=True) == 4 * s + 6 * x
    assert peak_bytes(w, training=True, device="cpu") == 3 * s + 6 * x + 8


@settings(max_examples=25)  # each of them runs the profiler, 0.1 s
@given(WORKLOADS, st.booleans())
def test_the_formula_is_what_this_machine_s_allocator_says(w, training):
    m = measure(standard_attention, w, training, device="cpu")
    assert m.peak_bytes == peak_bytes(w, training=training, device="cpu")
    assert m.input_bytes == 3 * w.head_bytes
    # P, and the scale; in inference nothing
    assert m.saved_bytes == (w.score_bytes + 8 if training else 0)


STANDARD_RUNS = [m for m in load().measurements if m.program == "standard_attention" and m.warm_up]


@pytest.mark.parametrize("m", STANDARD_RUNS, ids=lambda m: f"{m.workload.seq_len}-{m.training}")
def test_the_formula_is_what_a_gpu_s_allocator_said(m):
    predicted = peak_bytes(m.workload, training=m.training)
    if m.out_of_memory:
        assert predicted > m.provenance.memory_bytes
        assert m.peak_bytes < m.provenance.memory_bytes
    else:
        assert m.peak_bytes == predicted
        assert m.saved_bytes == m.training * m.workload.score_bytes


def test_the_training_formula_refuses_where_it_does_not_hold():
    w = Workload(batch=1, heads=1, seq_len=63, head_dim=64, dtype=torch.float16)
    with pytest.raises(ValueError, match=r"seq_len at least head_dim=64\), got .*seq_len=63"):
        alive_at_peak(w, training=True)
    assert alive_at_peak(replace(w, seq_len=64), training=True)


def test_an_unknown_device_is_named():
    w = Workload(batch=1, heads=1, seq_len=64, head_dim=64, dtype=torch.float16)
    with pytest.raises(ValueError, match="device must be 'cuda' or 'cpu', got 'tpu'"):
        peak_bytes(w, device="tpu")
