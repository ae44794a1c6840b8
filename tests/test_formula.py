"""The peak in closed form, and a program's allocations at any sizes: both against the trace."""

import functools
import json
import random
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from attnmem import Workload, formulas, standard_attention, trace, trace_call
from attnmem.__main__ import app
from attnmem.corpus import CORPUS
from attnmem.lessons.memory import FORMULAS
from attnmem.prediction import listing as listings
from attnmem.prediction.allocator import CachingAllocator
from attnmem.prediction.conditions import CONDITIONS, holds
from attnmem.prediction.listing import as_json, draw, draw_groups, listing
from attnmem.prediction.symbolic import Sizes
from attnmem.programs import (
    PROGRAMS,
    causal_attention,
    cudnn_sdpa,
    efficient_sdpa,
    flash_sdpa,
    math_sdpa,
    one_liner,
    scaled_queries,
)

W = Workload(batch=2, heads=12, seq_len=512, head_dim=64, dtype=torch.float16)
DTYPES = torch.float16, torch.bfloat16, torch.float32
OTHERS = {
    (math_sdpa, False): "4.5S + 11X + 0.25L + 4",
    (math_sdpa, True): "8S + 11X",
    (flash_sdpa, False): "4X + L + 24",
    (flash_sdpa, True): "12X + 2L + 24",
    (efficient_sdpa, False): "4X",
    (efficient_sdpa, True): "9X + 2L + 256.25·B·H·N",
    (cudnn_sdpa, False): "4X + 272",
    (cudnn_sdpa, True): "10X + 2L + 272",
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_the_formula_of_each_program_is_the_book_s(program, training):
    t = trace(program, W, training)
    f = t.formula
    assert f.proven >= 6
    assert f.at(W) == t.peak_bytes
    if program in FORMULAS:
        s, x, mask = FORMULAS[program][training]
        assert str(f) == f"{s}S + {x}X" + " + N²" * mask
    else:
        assert str(f) == OTHERS[program, training]
    assert [x for labels in f.terms.values() for x in labels if x in "QKVO"] == [*"QKVO"][
        : 3 + ("O" in t.at_peak)
    ]


@functools.cache
def standard_formula(dtype, training):
    return trace(standard_attention, replace(W, dtype=dtype), training).formula


@settings(max_examples=40)
@given(
    st.integers(0, 10**6),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
    st.booleans(),
)
def test_the_closed_form_of_the_chapter_is_the_formula(seed, dtype, training):
    chance = random.Random(seed)
    d = chance.randint(2, 80)
    w = Workload(
        batch=chance.randint(1, 4),
        heads=chance.randint(1, 9),
        seq_len=chance.randint(d, 2000),
        head_dim=d,
        dtype=dtype,
    )
    f = standard_formula(w.dtype, training)
    assert (
        f.at(w)
        == formulas.peak_bytes(w, training=training)
        == trace(standard_attention, w, training).peak_bytes
    )


def test_where_k_and_v_have_sizes_of_their_own():
    w = Workload(
        batch=2, heads=8, seq_len=300, head_dim=64, dtype=torch.float16, kv_len=700, kv_heads=2
    )
    assert str(trace(standard_attention, w).formula) == "2S + 2Q + 2K"
    assert str(trace(causal_attention, w).formula) == "2S + 2Q + 2K + NM"


def test_pieces_meet_along_n():
    pieces = trace(standard_attention, W, training=True).formula.along_n
    assert [(first, last, str(f)) for first, last, f in pieces] == [
        (1, 1, "S + 8X"),
        (2, 47, "9X"),
        (48, 2**17, "4S + 6X"),
    ]
    for first, last, f in pieces:
        for n in (first, last):
            w = replace(W, seq_len=n)
            assert f.at(w) == trace(standard_attention, w, training=True).peak_bytes


def kept_product(q, k, v):
    s = q @ k.mT
    return (s / 8).softmax(-1) @ v, s


def two_masks(q, k, v):
    n = q.shape[-2]
    near = torch.ones(n, n, dtype=torch.bool, device=q.device).tril().triu(-64)
    return (q @ k.mT).masked_fill(~near, -1e4).softmax(-1) @ v


def relative_positions(q, k, v):
    n, d = q.shape[-2:]
    table = torch.zeros(2 * n - 1, d, dtype=q.dtype, device=q.device)
    return (q @ k.mT).softmax(-1) @ v + 0 * table.sum()


def sigmoid(q, k, v):
    return torch.sigmoid(q @ k.mT / 8) @ v


def linear(q, k, v):
    return F.elu(q) @ (F.elu(k).mT @ v)


def by_batch(q, k, v):
    return torch.stack([one_liner(*x) for x in zip(q, k, v, strict=True)])


def odd_sizes(q, k, v):
    """What is kept grows with the number of digits of N: no sum of products has that."""
    more = torch.empty(len(bin(q.shape[-2])) ** 3 * 1000, device=q.device)
    return scaled_queries(q, k, v), more


FOREIGN = {
    kept_product: "3S + 3X",
    two_masks: "2S + 3X + 2N²",
    sigmoid: "2S + 3X",
}


@pytest.mark.parametrize("program", FOREIGN, ids=lambda program: program.__name__)
def test_programs_that_are_not_in_the_package_have_a_formula(program):
    assert str(trace(program, W).formula) == FOREIGN[program]


@pytest.mark.parametrize("program", [relative_positions, linear, by_batch])
def test_others_are_equal_to_the_trace_at_other_sizes_or_say_no(program):
    f = trace(program, W).formula
    w = replace(W, seq_len=640, head_dim=72)
    assert not f or f.at(w) == trace(program, w).peak_bytes


def test_no_closed_form_is_an_answer():
    f = trace(odd_sizes, W).formula
    assert not f
    assert "empty" in f.reason
    assert str(f).startswith("no closed form: ")
    with pytest.raises(ValueError, match="a call has no sizes"):
        _ = trace_call(lambda: torch.ones(3, device="meta")).formula


def test_a_module_has_one():
    found = trace(CORPUS["NanoGPT"].make(W), W).formula
    assert not found or found.at(W) == trace(CORPUS["NanoGPT"].make(W), W).peak_bytes


def test_the_shell_prints_it():
    done = CliRunner().invoke(
        app, ["peak", "--seq-len", "512", "--program", "causal_attention", "--formula"]
    )
    assert "2S + 4X + N²" in done.output
    assert "N from 1 to 131,072" in done.output


def from_json(data, w):
    """The peaks as a page in JavaScript has them: nothing but what JSON holds."""
    sizes = Sizes(w)
    piece = next(p for p in data["pieces"] if all(holds(c, sizes) for c in p["conditions"]))
    if "refused" in piece:
        return None
    value = []
    for terms in data["sizes"]:
        total = 0
        for number, *factors in terms:
            for factor in factors:
                number *= sizes[factor]
            total += number
        value.append(total)
    allocator, live, most = CachingAllocator(), 0, 0
    blocks: list[Any] = []
    for event in piece["events"]:
        if isinstance(event, int):
            block, size = blocks[event]
            allocator.free(block)
            live -= size
        else:
            size = value[event[1]]
            blocks.append((allocator.allocate(size), size))
            live += size
        most = max(most, live)
    steps = [(data["labels"][s[0]], *(value[x] for x in s[3:])) for s in piece["steps"]]
    return most, allocator.peak_allocated, allocator.peak_reserved, value[piece["saved"]], steps


@pytest.mark.parametrize(
    ("program", "training"),
    [(standard_attention, False), (causal_attention, True), (cudnn_sdpa, True)],
)
def test_a_listing_replayed_is_the_trace_at_any_sizes(program, training):
    groups = program in (standard_attention, causal_attention)
    made = listing(program, training, draw=draw_groups if groups else draw)
    data = json.loads(json.dumps(as_json(made)))
    chance = random.Random(1)
    refused = 0
    for _ in range(40):
        w = (draw_groups if groups else draw)(chance)
        found = from_json(data, w)
        if found is None:
            refused += 1
            with pytest.raises(RuntimeError):
                trace(program, w, training)
            continue
        t = trace(program, w, training)
        steps = [(s.name, s.flops, s.bytes_read, s.bytes_written, s.special) for s in t.steps]
        peaks = t.peak_bytes, t.peak_allocated_bytes, t.peak_reserved_bytes, t.saved_bytes
        assert found == (*peaks, steps), w
    assert (refused > 0) == (program is cudnn_sdpa)


def test_a_program_that_no_condition_explains_has_no_listing(monkeypatch):
    monkeypatch.setattr(listings, "CONDITIONS", CONDITIONS[:2])
    with pytest.raises(ValueError, match="no condition tells apart"):
        listing(odd_sizes, samples=12)
