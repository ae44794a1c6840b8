"""Where a run dies: the allocator on a card that is too small."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnmem import Workload, standard_attention, trace, trace_call
from attnmem.prediction.allocator import CachingAllocator
from attnmem.prediction.fitting import _Card, first_that_does_not_fit

MIB, GIB = 2**20, 2**30
W = Workload(batch=1, heads=12, seq_len=2048, head_dim=64, dtype=torch.float16)


@given(st.integers(64, 1024), st.booleans())
def test_a_run_fits_where_its_reserved_bytes_do_and_not_below_its_allocated(n, training):
    t = trace(standard_attention, replace(W, seq_len=n), training)
    assert first_that_does_not_fit(t, t.peak_reserved_bytes) is None
    found = first_that_does_not_fit(t, t.peak_allocated_bytes - 1)
    assert found.event == t.timeline[found.place]
    assert found.reserved + found.tried > t.peak_allocated_bytes - 1
    assert first_that_does_not_fit(t, 0).place == 0


def test_before_it_fails_it_gives_back_what_is_wholly_free():
    card, plain = _Card(160 * MIB), CachingAllocator()
    for allocator in (card, plain):
        allocator.free(allocator.allocate(100 * MIB))
        allocator.allocate(150 * MIB)
    assert (card.reserved, plain.reserved) == (150 * MIB, 250 * MIB)


def test_what_was_there_before_is_placed_first():
    with torch.device("meta"):
        model, x = torch.nn.Linear(4096, 4096), torch.randn(64, 4096)
    t = trace_call(lambda: model(x))
    found = first_that_does_not_fit(t, 10 * MIB)
    assert found.place is None
    assert "before the run" in str(found)
    assert first_that_does_not_fit(t, GIB) is None


def test_where_a_cpu_run_dies_is_not_told():
    t = trace(standard_attention, W, device="cpu")
    with pytest.raises(ValueError, match="on cuda, got one on cpu"):
        first_that_does_not_fit(t, GIB)
    with pytest.raises(ValueError, match="memory_bytes must be at least 0, got -1"):
        first_that_does_not_fit(trace(standard_attention, W), -1)
