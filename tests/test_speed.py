"""Time and traffic: the steps are those of the trace, and the record agrees with it."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from attnmem import Workload, standard_attention, trace
from attnmem.catalog.accelerators import recognise
from attnmem.measurement import records, traffic
from attnmem.measurement.grid import Case, speed_grid
from attnmem.measurement.records import load, make_record
from attnmem.measurement.timing import ceilings, time_of, time_program, time_steps
from attnmem.programs import PROGRAMS, cudnn_sdpa, efficient_sdpa, flash_sdpa, run
from attnmem.roofline import Ceilings, limited_by, measured_roof

W = Workload(batch=1, heads=2, seq_len=64, head_dim=16, dtype=torch.float32)
CPU = torch.device("cpu")
BY_NAME = {program.__name__: program for program in PROGRAMS}
RECORD = load()
each_record = pytest.mark.parametrize("path", records.RECORDS, ids=lambda path: path.stem)


def steps_of(found):
    """The steps of a recorded run, predicted and measured, without what only makes tensors."""
    predicted = trace(BY_NAME[found.program], found.workload, found.training).steps
    pairs = zip(predicted, found.steps, strict=True)
    return [(p, m) for p, m in pairs if p.name not in ("randn", "randn_like")]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["standard_attention", "scaled_queries", "dropout_attention"])
def test_a_cpu_times_the_steps_that_the_trace_predicts(name, training):
    program = BY_NAME[name]
    measured = time_steps(program, W, training, "cpu")
    predicted = trace(program, W, training, "cpu").steps
    assert [(m.name, m.stage) for m in measured] == [(p.name, p.stage) for p in predicted]
    for m in measured:
        assert 0 < m.time.low <= m.time.seconds <= m.time.high
        assert m.read is None


def test_a_call_is_timed_in_groups_that_are_long_enough_to_time():
    calls = []
    time_of(lambda: calls.append(1), CPU, total=0.01)  # a call takes far less than a microsecond
    assert len(calls) > 1000
    assert time_program(standard_attention, W, "cpu").seconds > 0


def test_ceilings_of_this_machine():
    found = ceilings("cpu", largest=2**22, products=[(1, 64, 64, 64)], dtypes=[torch.float32])
    assert list(found.bandwidth) == [2**20, 2**21, 2**22]
    assert set(found.largest) == {"copy", "triad", "fill", "sum"}
    assert found.bandwidth[2**22] == max(found.largest.values())
    assert found.matmul["float32"] > 0 < found.launch


def test_the_bandwidth_for_a_size_is_that_of_the_next_size_up_or_of_a_faster_larger_one():
    found = Ceilings({2**20: 1.0, 2**21: 5.0, 2**22: 3.0}, {}, {}, 0)
    assert [found.bandwidth_at(n) for n in (1, 2**20, 2**20 + 1, 2**22, 2**30)] == [5, 5, 5, 3, 3]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
@pytest.mark.parametrize("training", [False, True])
def test_flops_are_those_that_pytorch_counts(program, training):
    w = W
    if program in (flash_sdpa, efficient_sdpa, cudnn_sdpa):
        # On a CPU, PyTorch would count the unfused kernel. By hand: two products, or seven.
        w = replace(W, dtype=torch.float16)
        expected = (14 if training else 4) * w.score_elements * w.head_dim
    else:
        with FlopCounterMode(display=False) as counter:
            for _ in run(program, w, training=training, device=CPU):
                pass
        expected = counter.get_total_flops()
    assert sum(s.flops for s in trace(program, w, training).steps if s.matrix) == expected


def test_an_operand_that_is_there_twice_is_read_once():
    def squared(q, k, v):
        return q * q + k.expand_as(v) * 2.0

    square, double, add = [s for s in trace(squared, W).steps if s.name != "randn"]
    x = W.head_bytes
    assert (square.bytes_read, square.bytes_written) == (x, x)
    assert (double.bytes_read, add.bytes_read) == (x, 2 * x)


def test_softmax_s_backward_is_two_kernels_on_cuda_and_one_on_a_cpu():
    s = W.score_bytes
    moved = {
        device: [
            (step.bytes_read, step.bytes_written, step.flops)
            for step in trace(standard_attention, W, training=True, device=device).steps
            if step.name == "softmax_backward_data"
        ]
        for device in ("cuda", "cpu")
    }
    flops = 4 * W.score_elements
    assert moved == {"cuda": [(4 * s, 2 * s, flops)], "cpu": [(2 * s, s, flops)]}


TABLE = """==PROF== Connected to process 1
"ID","Process ID","Kernel Name","Metric Name","Metric Unit","Metric Value"
"0","1","first","dram__bytes_read.sum","byte","7"
"0","1","first","dram__bytes_write.sum","byte","7"
"1","1","spin_kernel","dram__bytes_read.sum","byte","0"
"1","1","spin_kernel","dram__bytes_write.sum","byte","0"
"2","1","gemm","dram__bytes_read.sum","byte","1,000"
"2","1","gemm","dram__bytes_write.sum","byte","20"
"3","1","reduce","dram__bytes_read.sum","byte","3"
"3","1","reduce","dram__bytes_write.sum","byte","4"
"4","1","spin_kernel","dram__bytes_read.sum","byte","0"
"4","1","spin_kernel","dram__bytes_write.sum","byte","0"
"""


def test_kernels_belong_to_the_mark_before_them():
    first, second = traffic._by_mark(TABLE)
    assert first == traffic.Traffic(read=1003, written=24, kernels=["gemm", "reduce"])
    assert second == traffic.Traffic()


def test_what_multiprocessors_receive_is_counted_apart():
    head, *_ = TABLE.partition('"0","1"')
    rows = [("spin_kernel", 0), ("gemm", 70), ("reduce", 30)]
    table = head + "".join(
        f'"{i}","1","{kernel}","{traffic.RECEIVED}","byte","{size}"\n'
        for i, (kernel, size) in enumerate(rows)
    )
    (step,) = traffic._by_mark(table)
    assert (step.read, step.received) == (0, 100)


def test_a_table_that_is_none_is_named(monkeypatch, tmp_path):
    program = tmp_path / "ncu"
    program.write_text("#!/bin/sh\necho '[1]'\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(program))
    with pytest.raises(RuntimeError, match="ncu printed no table that we know"):
        traffic.count_traffic([(standard_attention, W, False)])


def test_without_nsight_compute_a_record_has_times_alone(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="ncu, NVIDIA Nsight Compute, must be on the PATH"):
        traffic.count_traffic([(standard_attention, W, False)])
    with pytest.warns(UserWarning, match="bytes of the GPU's memory are not counted: ncu"):
        assert records._with_traffic(RECORD.runs[:1]) == RECORD.runs[:1]


def test_times_are_kept_when_counters_or_ceilings_fail(monkeypatch):
    def broken(*args):
        raise ValueError("a table without a head")

    monkeypatch.setattr(records, "count_traffic", broken)
    with pytest.warns(UserWarning, match="not counted: a table without a head"):
        assert records._with_traffic(RECORD.runs[:1]) == RECORD.runs[:1]
    monkeypatch.setattr(records, "ceilings", broken)
    record = make_record([], "cpu", timed=[Case(standard_attention, W)])
    assert (len(record.runs), record.ceilings) == (1, None)
    assert "a table without a head" in record.failures[0]


def test_a_record_of_times_survives_writing_and_reading(tmp_path, monkeypatch):
    made = Ceilings({2**20: 1.0}, {"copy": 1.0, "sum": 1.0, "fill": 1.0, "triad": 1.0}, {}, 1e-6)
    monkeypatch.setattr(records, "ceilings", lambda device: made)
    cells = [Case(standard_attention, W), Case(standard_attention, W, training=True)]
    record = make_record([], "cpu", timed=cells)
    record.save(tmp_path / "cpu.json")
    assert load(tmp_path / "cpu.json") == record
    assert record.timed(standard_attention, W).whole.seconds > 0
    assert record.timed(standard_attention, W, training=True).whole is None
    with pytest.raises(LookupError, match=r"no timed run of flash_sdpa .*\.grid"):
        record.timed(flash_sdpa, W)


@each_record
def test_a_record_is_whole(path):
    for program, w, training, _ in speed_grid():
        found = load(path).timed(program, w, training)
        predicted = trace(program, w, training).steps
        assert [m.name for m in found.steps] == [p.name for p in predicted]
        assert all(m.kernels and m.read is not None for m in found.steps[3:])
    assert set(load(path).ceilings.matmul) == {"float16", "bfloat16", "float32"}


def test_the_shipped_record_shows_what_multiprocessors_receive_and_how_fast_they_run():
    assert all(m.received is not None for found in RECORD.runs for m in found.steps[3:])
    assert set(RECORD.ceilings.clock) == set(RECORD.ceilings.matmul)


@each_record
def test_the_device_reaches_most_of_its_data_sheet(path):
    # A copy reads and writes in turn, which costs a tenth. Products lower the clock at full power:
    # on five machines with an H100 or H200 they reached 715 to 792 of 989 TFLOP/s.
    found, card = load(path).ceilings, recognise(load(path).provenance.device)
    assert found.largest["copy"] >= 0.85 * card.bandwidth
    assert found.matmul["bfloat16"] >= 0.7 * card.peak_flops(matrix=True)
    # The data sheet's rate is that of a clock which full power does not allow.
    assert all(rate < card.clock_ghz * 1e9 for rate in found.clock.values())


@each_record
def test_counted_bytes_are_the_predicted_ones_where_s_is_large(path):
    card = recognise(load(path).provenance.device)
    large = [
        found
        for found in load(path).runs
        if found.program == "standard_attention" and not found.training
        if found.workload.score_bytes >= 32 * card.l2_bytes
    ]
    assert len(large) >= 6
    for found in large:
        w = found.workload
        for p, m in steps_of(found):
            # What a step finds of the one before in the cache, or leaves there, is less than that.
            assert abs(m.written - p.bytes_written) <= card.l2_bytes * 1.1, (w, p)
            # Parts of Q, K and V are pushed out of the cache and read again, more with larger d.
            assert m.read >= p.bytes_read - card.l2_bytes, (w, p)
            if not p.matrix or (w.head_dim, w.element_bytes) == (64, 2):
                assert m.read + m.written == pytest.approx(p.bytes_moved, rel=0.02), (w, p)


def test_operands_are_received_as_often_as_tiles_take_them():
    w = Workload(batch=1, heads=12, seq_len=16384, head_dim=64, dtype=torch.float16)
    for d in (64, 128, 256):
        found = RECORD.timed(standard_attention, replace(w, head_dim=d))
        (p, m) = steps_of(found)[0]
        assert "128x256" in m.kernels[0]
        taken = (w.seq_len / 256 + w.seq_len / 128) * found.workload.head_bytes
        # Beside operands a kernel receives its parameters and descriptors of its tensors.
        assert m.received == pytest.approx(taken, rel=0.001)
        assert p.bytes_read < m.read < m.received / 10


@each_record
def test_what_is_written_too_little_is_no_more_than_the_cache_holds(path):
    card = recognise(load(path).provenance.device)
    for found in load(path).runs:
        if found.program == "standard_attention":
            for p, m in steps_of(found):
                assert p.bytes_written - m.written <= card.l2_bytes, (found.workload, p)


@each_record
def test_no_step_beats_its_measured_roof(path):
    for found in load(path).runs:
        for p, m in steps_of(found):
            _, least = measured_roof(p, load(path).ceilings)
            # The roof is a measurement too, and one of random numbers. P's are small; a product of
            # them draws less power, and in 32 bit was 0.7 % faster than the roof of its own shape.
            assert m.time.high >= 0.99 * least, (found.workload, p, m)


def verdict(step, **sizes):
    w = Workload(**{"batch": 1, "heads": 12, "seq_len": 8192, "head_dim": 64} | sizes)
    (p, m) = steps_of(RECORD.timed(standard_attention, w))[step]
    return limited_by(p, m.time.seconds, RECORD.ceilings)


def test_verdicts_of_the_chapter():
    qk, scale, softmax, pv = range(4)
    half = {"dtype": "float16"}
    assert {verdict(step, **half) for step in (qk, scale, pv)} == {"memory"}
    assert verdict(softmax, **half) == "kernel"
    assert verdict(qk, head_dim=256, **half) == "compute"
    assert verdict(pv, dtype="float32") == "compute"
    assert {verdict(step, seq_len=512, **half) for step in range(4)} == {"launches"}
