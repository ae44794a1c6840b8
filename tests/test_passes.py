"""Records of whole passes: what ncu printed is read right; peaks and bytes are as computed."""

from dataclasses import replace

import pytest
import torch

from attnmem import Workload, trace
from attnmem.measurement import passes
from attnmem.measurement.passes_record import load
from attnmem.measurement.traffic import MARK, READ, WRITTEN
from attnmem.tiles import costs
from attnmem.tiles.kernel import BACKWARD
from attnmem.tiles.programs import program

RECORD = load()
W = Workload(batch=1, heads=12, seq_len=8192, head_dim=64, dtype=torch.float16)

# As ncu prints it: notes before the table, a row a kernel and metric, thousands with a comma.
TABLE = f'''==PROF== Connected to process 7
"ID","Kernel Name","Metric Name","Metric Value"
"0","warm_up","{READ}","5"
"1","{MARK}","{READ}","1"
"1","{MARK}","{WRITTEN}","1"
"2","product","{READ}","1,000"
"2","product","{WRITTEN}","20"
"3","softmax","{READ}","n/a"
"3","softmax","{WRITTEN}","300"
"4","{MARK}","{READ}","1"
"4","{MARK}","{WRITTEN}","1"
"5","product","{READ}","7"
"5","product","{WRITTEN}","8"
"6","{MARK}","{READ}","1"
"6","{MARK}","{WRITTEN}","1"
'''


def test_what_ncu_printed_is_added_up_between_marks():
    assert passes._by_pass(TABLE, (READ, WRITTEN)) == [
        {READ: 1000, WRITTEN: 320, "kernels": ["product", "softmax"]},
        {READ: 7, WRITTEN: 8, "kernels": ["product"]},
        {READ: 0, WRITTEN: 0, "kernels": []},
    ]


def test_a_pass_is_the_same_after_json():
    for cell in RECORD.passes:
        assert passes.from_json(cell.as_json()) == cell


def test_the_record_is_whole_and_of_this_code():
    assert not RECORD.stale
    assert len(RECORD.passes) > 350
    assert len(RECORD.blocks) == 58
    with pytest.raises(LookupError, match=r"no pass of 'triton' with .*seq_len=77"):
        RECORD.find("triton", replace(W, seq_len=77))


def recorded(name):
    """The passes of a program whose memory was recorded."""
    return [
        pytest.param(cell, found, id=str(cell))
        for cell, found in RECORD.passes.items()
        if cell.program == name and found.peak_bytes
    ]


@pytest.mark.parametrize(("cell", "found"), recorded("triton"))
def test_our_kernel_needs_four_or_eight_x_and_numbers_a_row(cell, found):
    w, row = cell.workload, 4 * cell.workload.batch * cell.workload.heads * cell.workload.seq_len
    assert found.peak_bytes == (
        8 * w.head_bytes + 2 * row if cell.training else 4 * w.head_bytes + row
    )


@pytest.mark.parametrize(("cell", "found"), recorded("tiled"))
def test_tiles_need_what_the_formula_says(cell, found):
    # With a mask there is the mask of a tile, too: of booleans, gone before the peak.
    assert found.peak_bytes == costs.peak_bytes(cell.workload, cell.block, training=cell.training)


TRACED = [
    pytest.param(cell, found, id=str(cell))
    for cell, found in RECORD.passes.items()
    if cell.program not in ("triton", "compiled")  # which no trace follows
    and cell.workload.seq_len <= 4096
    and found.events
]


@pytest.mark.parametrize(("cell", "found"), TRACED)
def test_every_allocation_is_as_traced(cell, found):
    traced = trace(
        program(cell.program, causal=cell.causal, block=cell.block), cell.workload, cell.training
    )
    assert found.events == tuple(event.bytes for event in traced.timeline)
    assert found.peak_bytes == traced.peak_bytes


# Two configurations receive more than their loops ask for. Perhaps their registers spill into the
# caches; the first does not with 3 stages, nor either with 8 warps.
MORE = {(64, (128, 128, 4, 2)): 1.35, (128, (128, 64, 4, 3)): 1.63}

COUNTED = [
    pytest.param(cell, found, id=str(cell))
    for cell, found in RECORD.passes.items()
    if cell.program == "triton" and found.received
]


@pytest.mark.parametrize(("cell", "found"), COUNTED)
def test_multiprocessors_receive_what_the_loops_ask_for(cell, found):
    w, (queries, keys, *_) = cell.workload, cell.block
    asked = costs.received(w, queries, causal=cell.causal, keys=keys)
    if cell.training:
        of_q, of_kv = (block[:2] for block in BACKWARD)
        asked += costs.backward_received(w, of_q, of_kv, causal=cell.causal)
    more = MORE.get((w.head_dim, cell.block), 1)
    # All but three are within 0.01 %; these, with most to hold, receive up to 0.2 % more.
    assert found.received == pytest.approx(asked * more, rel=0.004)


def test_what_is_counted_has_the_configurations_that_receive_more():
    assert len(COUNTED) == 53
    assert {(cell.workload.head_dim, cell.block) for cell in RECORD.passes} >= set(MORE)
