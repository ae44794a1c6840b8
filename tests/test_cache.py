"""Keys and values that are kept: their bytes are those of tensors, and what fits is the most."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnmem.cache import max_cached_tokens, token_bytes, weight_bytes
from attnmem.catalog import MODELS, model
from attnmem.lessons.what_to_do import ledger
from attnmem.workload import round_up

LLAMA = model("Llama 3.1 8B")
FP8 = torch.float8_e4m3fn


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_token_takes_what_its_tensors_take(model):
    shapes: list[tuple[int, ...]] = [(model.kv_heads, model.head_dim)] * 2
    if model.latent_dim:
        shapes = [(model.latent_dim,), (model.rope_dim,)]
    kept = [torch.empty(model.layers, *shape, dtype=torch.bfloat16) for shape in shapes]
    assert token_bytes(model) == sum(x.nbytes for x in kept)


def test_parameters_are_counted_from_sizes_that_the_catalog_has():
    assert LLAMA.parameters == model("Llama 3 8B").parameters == ledger.parameters()
    large = model("Llama 3.1 405B")
    width, kv = large.heads * large.head_dim, large.kv_heads * large.head_dim
    block = 2 * width * (width + kv) + 3 * width * large.mlp_width + 2 * width
    assert large.parameters == large.layers * block + 2 * large.vocabulary * width + width
    small = model("GPT-2 medium")
    width = small.heads * small.head_dim
    block = 12 * width**2 + 13 * width  # with biases, and two norms of two vectors
    words = 50257 + small.context
    assert small.parameters == small.layers * block + words * width + 2 * width


@given(
    st.sampled_from(MODELS),
    st.integers(0, 10**12),
    st.integers(1, 100),
    st.sampled_from([1, 16, 256]),
    st.sampled_from([torch.bfloat16, FP8]),
)
def test_what_fits_is_the_most_that_fits(model, free, users, page, dtype):
    memory = weight_bytes(model) + free
    tokens = max_cached_tokens(model, memory, users=users, page=page, dtype=dtype)
    assert tokens % page == 0
    each = users * token_bytes(model, dtype)
    assert each * round_up(tokens, page) <= free
    assert each * round_up(tokens + 1, page) > free


def test_bytes_may_be_written_as_80e9():
    tokens = max_cached_tokens(LLAMA, 80e9)  # type: ignore[arg-type]
    assert isinstance(tokens, int)
    assert tokens == max_cached_tokens(LLAMA, 80 * 10**9)


def test_eight_bits_hold_twice_the_tokens():
    memory = weight_bytes(LLAMA) + 10**9
    assert max_cached_tokens(LLAMA, memory, dtype=FP8) // 2 == max_cached_tokens(LLAMA, memory)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_bytes": 10**9}, r"memory_bytes must hold the weights of Llama 3\.1 8B, 16,060"),
        ({"users": 0}, "users must be an integer of at least 1, got 0"),
        ({"users": True}, "users must be an integer of at least 1, got True"),
        ({"page": 1.5}, r"page must be an integer of at least 1, got 1\.5"),
    ],
)
def test_what_can_not_be_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        max_cached_tokens(LLAMA, **{"memory_bytes": 80 * 2**30} | options)
