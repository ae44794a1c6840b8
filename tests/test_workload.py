import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnmem import Workload
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
