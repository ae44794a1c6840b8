from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from attnmem import Workload, max_seq_len, standard_attention, trace, which_kernel
from attnmem.formulas import alive_at_peak, peak_bytes, standard_steps
from attnmem.tiles import costs
from attnmem.workload import shape_text

SIZES = st.integers(1, 10**4)
DTYPES = st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16])


@given(SIZES, SIZES, SIZES, SIZES, DTYPES)
def test_sizes_are_those_of_the_tensors(batch, heads, seq_len, head_dim, dtype):
    w = Workload(batch=batch, heads=heads, seq_len=seq_len, head_dim=head_dim, dtype=dtype)
    q = torch.empty(w.shape, dtype=dtype, device="meta")
    assert w.head_bytes == q.untyped_storage().nbytes()
    s = torch.empty(batch, heads, seq_len, seq_len, dtype=dtype, device="meta")
    assert (w.score_elements, w.score_bytes) == (
        s.numel(),
        s.untyped_storage().nbytes(),
    )


def test_a_dtype_may_be_given_by_name():
    sizes = {"batch": 1, "heads": 2, "seq_len": 3, "head_dim": 4}
    assert Workload(**sizes, dtype="bfloat16") == Workload(**sizes, dtype=torch.bfloat16)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["batch", "heads", "seq_len", "head_dim"])
@pytest.mark.parametrize("size", [0, -1, 1.5, "8", True, None])
def test_a_wrong_size_is_named(name, size):
    sizes = {"batch": 1, "heads": 1, "seq_len": 1, "head_dim": 1, name: size}
    with pytest.raises(ValueError, match=rf"{name} must be an integer of at least 1, got {size!r}"):
        Workload(**sizes, dtype=torch.float32)


@pytest.mark.parametrize("dtype", ["float17", "fp16", "Tensor", torch.int8, torch.bool, 16, None])
def test_a_wrong_dtype_is_named(dtype):
    with pytest.raises(ValueError, match=r"dtype must be a floating-point .*'float16', got "):
        Workload(batch=1, heads=1, seq_len=1, head_dim=1, dtype=dtype)


def test_shapes_are_written_as_in_the_book():
    assert shape_text(torch.empty(1, 12, 512, 64, dtype=torch.float16)) == "f16[1, 12, 512, 64]"
    assert shape_text(torch.empty(3, dtype=torch.bfloat16)) == "bf16[3]"


@st.composite
def workloads(draw):
    """Workloads with sizes of K and V of their own, or without."""
    small = st.integers(1, 40)
    kv_heads = draw(st.integers(1, 3))
    own = {"kv_heads": kv_heads, "kv_len": draw(small), "value_dim": draw(small)}
    return Workload(
        batch=draw(st.integers(1, 3)),
        heads=kv_heads * draw(st.integers(1, 4)),
        seq_len=draw(small),
        head_dim=draw(small),
        dtype=draw(st.sampled_from([torch.float32, torch.float16])),
        **{name: size for name, size in own.items() if draw(st.booleans()) or name == "kv_heads"},
    )


@given(workloads())
def test_bytes_are_those_of_tensors_with_sizes_of_their_own(w):
    tensors = [torch.empty(s, dtype=w.dtype, device="meta") for s in (*w.shapes, w.output_shape)]
    assert [x.nbytes for x in tensors] == [w.q_bytes, w.k_bytes, w.v_bytes, w.o_bytes]
    o, s, p = standard_attention(*tensors[:3])
    assert (o.shape, s.numel(), p.nbytes) == (w.output_shape, w.score_elements, w.score_bytes)


@given(workloads(), st.booleans(), st.sampled_from(["cuda", "cpu"]))
def test_the_formula_is_the_trace(w, training, device):
    try:
        expected = peak_bytes(w, training=training, device=device)
    except ValueError:  # it says where it does not hold
        assume(False)
    assert trace(standard_attention, w, training, device).peak_bytes == expected


@given(workloads())
def test_the_steps_are_those_of_the_trace(w):
    steps = [s for s in trace(standard_attention, w).steps if s.stage == "forward"]
    assert [(s.flops, s.bytes_read, s.bytes_written) for s in steps] == [
        (s.flops, s.bytes_read, s.bytes_written) for s in standard_steps(w)
    ]


TOKEN = Workload(
    batch=1, heads=8, seq_len=1, head_dim=64, dtype=torch.float16, kv_len=4096, kv_heads=2
)


def test_old_workloads_mean_what_they_meant():
    old = Workload(batch=1, heads=8, seq_len=16, head_dim=64, dtype=torch.float16)
    assert old.shapes == (old.shape,) * 3
    assert replace(old, seq_len=32).key_shape == (1, 8, 32, 64)
    assert "kv" not in str(old)
    assert "kv_len=4096, kv_heads=2" in str(TOKEN)


def test_the_choice_of_a_kernel_follows_the_workload():
    assert str(which_kernel(TOKEN)) == str(
        which_kernel(replace(TOKEN, kv_len=None, kv_heads=None), kv_len=4096, kv_heads=2)
    )


@pytest.mark.parametrize("name", ["kv_len", "kv_heads", "value_dim"])
def test_what_assumes_equal_sizes_refuses_others(name):
    own: dict[str, Any] = {"kv_len": None, "kv_heads": None, name: 4}
    w = replace(TOKEN, **own)
    for act in (
        lambda: costs.peak_bytes(w, (128, 128)),
        lambda: costs.fast_bytes(w, (128, 128)),
        lambda: costs.traffic(w, 128),
        lambda: costs.keys_first_traffic(w, 128),
        lambda: costs.backward_received(w, (128, 128), (128, 128)),
        lambda: costs.bound(w, 2**17),
    ):
        with pytest.raises(ValueError, match=rf"{name} must be those of Q for the costs of tiles"):
            act()


def test_sizes_of_keys_that_can_not_be_are_named():
    with pytest.raises(ValueError, match="kv_heads must divide heads=8, got 3"):
        replace(TOKEN, kv_heads=3)
    with pytest.raises(ValueError, match="kv_len must be an integer of at least 1, got 0"):
        replace(TOKEN, kv_len=0)
    with pytest.raises(ValueError, match=r"S must be at least as large as Q, K, V and O"):
        alive_at_peak(TOKEN, training=True)
    with pytest.raises(ValueError, match=r"kv_len must be that of Q.*max_cached_tokens"):
        max_seq_len(standard_attention, TOKEN, 2**30)
