"""One token at a time: the record is of this code, memory is as predicted, the kernel is right."""

import functools
import importlib.util
import os
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from attnmem import trace, trace_call
from attnmem.formulas import peak_bytes
from attnmem.lessons.one_token.times import kernel_bytes, traced
from attnmem.measurement import decode
from attnmem.measurement.decode_record import load
from attnmem.programs import standard_attention
from attnmem.tiles.decode import cut, triton_decode
from attnmem.tiles.one_token import decoder

RECORD = load()
MEASURED = [
    pytest.param(cell, found, id=f"{cell.cache}-{cell.workload.kv_len}-{cell.program}")
    for cell, found in RECORD.cells.items()
    if found.call_events
]


def test_the_record_is_whole_and_of_this_code():
    assert not RECORD.stale
    assert RECORD.failures == ()
    assert list(RECORD.cells) == decode.grid()
    assert all(found.graph and found.eager for found in RECORD.cells.values())
    with pytest.raises(LookupError, match=r"no step of 'flash' over 77 tokens of 'GQA', users=1"):
        RECORD.find("GQA", 77, "flash")


@pytest.mark.parametrize(("cell", "found"), MEASURED)
def test_a_call_allocates_what_is_predicted(cell, found):
    if cell.program == "kernel":
        assert found.call_peak == kernel_bytes(cell)
    else:
        assert found.call_events == tuple(event.bytes for event in traced(cell).timeline)


RUNS = [(cell, found) for cell, found in RECORD.cells.items() if found.run_events]


@pytest.mark.parametrize(("cell", "found"), RUNS, ids=lambda x: getattr(x, "cache", ""))
def test_a_run_peaks_as_formula_trace_and_allocator_say(cell, found):
    t = trace(standard_attention, cell.workload)
    assert found.run_peak == peak_bytes(cell.workload) == t.peak_bytes
    assert found.run_events == tuple(event.bytes for event in t.timeline)


def test_a_small_record_can_be_made_on_a_cpu(tmp_path):
    w = replace(decode.CACHES["GQA"], kv_len=1024)
    cells = [
        decode.Cell(cache="GQA", workload=w, program=name, eight_bit=eight)
        for name, eight in (("standard", False), ("kernel", False), ("cast", True))
    ]
    path = tmp_path / "record.json"
    content = decode.record(path, cells, torch.device("cpu"))
    found = load(path)
    assert list(found.cells) == cells
    standard, kernel, _ = found.cells.values()
    assert standard.run_peak == peak_bytes(w)
    assert standard.eager
    assert not standard.graph
    if not importlib.util.find_spec("triton"):
        assert kernel.eager is None
        assert any("triton must be installed" in failure for failure in content["failures"])
    made, program = decode.inputs(cells[0], "meta"), cells[0].decoder()
    with torch.no_grad():
        traced = trace_call(functools.partial(program, *made), device="cpu")
    assert standard.call_peak == traced.peak_bytes


@pytest.mark.parametrize("splits", [None, 1, 3, 1000])
@pytest.mark.parametrize("m", [1, 63, 64, 1000, 131072])
@pytest.mark.parametrize("heads", [1, 8, 1000])
def test_parts_cover_the_keys_and_none_is_empty(m, heads, splits):
    each, parts = cut(m, heads, splits, 132)
    assert each % 64 == 0
    assert each * (parts - 1) < m <= each * parts
    assert parts <= (splits or m)


def test_an_unknown_program_is_named():
    with pytest.raises(ValueError, match="name must be one of standard, flash, cast, kernel; got"):
        decoder("fast")


INTERPRETED = pytest.mark.skipif(
    not importlib.util.find_spec("triton") or os.environ.get("TRITON_INTERPRET") != "1",
    reason="needs Triton, and TRITON_INTERPRET=1",
)


@INTERPRETED
@pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")  # Triton's own
@pytest.mark.parametrize("splits", [None, 1, 3])
@pytest.mark.parametrize(
    ("batch", "heads", "kv_heads", "m", "d", "d_v"),
    [
        (1, 4, 4, 100, 32, 32),
        (2, 8, 2, 333, 64, 64),
        (1, 32, 1, 70, 16, 16),
        (1, 4, 2, 130, 32, 16),
    ],
)
def test_the_kernel_is_attention(batch, heads, kv_heads, m, d, d_v, splits):
    q, k = torch.randn(batch, heads, 1, d), torch.randn(batch, kv_heads, m, d)
    v = torch.randn(batch, kv_heads, m, d_v)
    wanted = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    torch.testing.assert_close(triton_decode(q, k, v, splits=splits), wanted)


@INTERPRETED
@pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")  # Triton's own
@pytest.mark.parametrize("dtype", [torch.float32, decode.EIGHT_BIT])
def test_a_latent_cache_is_keys_whose_beginnings_are_values(dtype):
    q, k = torch.randn(2, 8, 1, 48), torch.randn(2, 1, 200, 48).to(dtype)
    wide = k.float().expand(2, 8, 200, 48)
    wanted = F.scaled_dot_product_attention(q, wide, wide[..., :32])
    torch.testing.assert_close(triton_decode(q, k, value_dim=32), wanted)


@INTERPRETED
@pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")  # Triton's own
@pytest.mark.parametrize(
    ("q", "k", "message"),
    [
        ((1, 4, 2, 16), (1, 4, 9, 16), r"q must be \[B, H, 1, d\]"),
        ((1, 4, 1, 16), (1, 3, 9, 16), "kv_heads a divisor of H"),
        ((1, 4, 1, 24), (1, 4, 9, 24), "powers of two from 16 on"),
    ],
)
def test_shapes_that_do_not_fit_are_named(q, k, message):
    with pytest.raises(ValueError, match=message):
        triton_decode(torch.randn(q), torch.randn(k), torch.randn(k))


@pytest.mark.skipif(bool(importlib.util.find_spec("triton")), reason="Triton is here")
def test_without_triton_the_kernel_says_what_is_missing():
    with pytest.raises(ImportError, match="triton must be installed"):
        triton_decode(torch.randn(1, 4, 1, 16), torch.randn(1, 4, 9, 16))
