import json
from dataclasses import replace

import pytest
import torch

from attnmem import Workload, records, standard_attention
from attnmem.records import grid, load, make_record, measured, origin

W = Workload(batch=1, heads=1, seq_len=32, head_dim=8, dtype=torch.bfloat16)


def test_a_record_survives_writing_and_reading(tmp_path):
    record = make_record([(standard_attention, W, training) for training in (False, True)], "cpu")
    record.save(tmp_path / "new" / "cpu.json")
    assert load(tmp_path / "new" / "cpu.json") == record
    assert record.find(standard_attention, W, training=True).training
    assert not record.stale


@pytest.mark.parametrize("text", ["", "[]", '{"digest": "", "provenance": {"device": "A"}}'])
def test_a_file_that_is_no_record_is_named(tmp_path, text):
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(ValueError, match=r"other\.json is not a record .* nox -s measure"):
        load(tmp_path / "other.json")


def test_a_cell_that_fails_is_noted_and_the_others_go_on(tmp_path):
    def broken(q, k, v):
        raise RuntimeError("a mistake in the program")

    record = make_record([(broken, W, False), (standard_attention, W, False)], "cpu")
    assert [m.program for m in record.measurements] == ["standard_attention"]
    (failure,) = record.failures
    assert failure.rstrip().endswith("a mistake in the program")


def test_a_cell_that_is_not_there_is_named():
    with pytest.raises(LookupError, match=r"H100 .* no run of standard_attention with Workload\("):
        load().find(standard_attention, W)
    with pytest.raises(LookupError, match="training=True"):
        load().find(standard_attention, replace(grid()[0][1], heads=13), training=True)


def test_the_shipped_record_is_a_complete_run_of_a_real_h100():
    record = load()
    assert record.provenance.device == "NVIDIA H100 80GB HBM3"
    assert record.provenance.driver
    assert record.failures == ()
    for program, w, training in grid():
        assert record.find(program, w, training).program == program.__name__


def test_a_record_of_other_code_is_called_stale(tmp_path, monkeypatch):
    old = tmp_path / "old.json"
    content = json.loads(records.SHIPPED.read_text())
    old.write_text(json.dumps(content | {"digest": "0" * 16}))
    assert load(old).stale
    monkeypatch.setattr(records, "load", lambda: load(old))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "by an older version of this code" in origin()


@pytest.mark.skipif(torch.cuda.is_available(), reason="tells what happens without a GPU")
def test_without_a_gpu_a_page_shows_the_record_and_says_so():
    program, w, training = grid()[0]
    assert measured(program, w, training) == load().find(program, w, training)
    assert origin().startswith("recorded")
    assert str(load().provenance) in origin()


def test_the_digest_follows_the_measuring_code(tmp_path, monkeypatch):
    for name in records.MEASURING_CODE:
        (tmp_path / name).write_bytes((records.PACKAGE / name).read_bytes())
    before = records.code_digest()
    monkeypatch.setattr(records, "PACKAGE", tmp_path)
    assert records.code_digest() == before
    (tmp_path / "measure.py").write_text("# other code")
    assert records.code_digest() != before
