import json
from dataclasses import replace

import pytest
import torch

from attnmem import Workload, standard_attention
from attnmem.measurement import records
from attnmem.measurement.grid import Case, grid
from attnmem.measurement.records import load, make_record, measured, origin

W = Workload(batch=1, heads=1, seq_len=32, head_dim=8, dtype=torch.bfloat16)


def test_a_record_survives_writing_and_reading(tmp_path):
    cells = [Case(standard_attention, W), Case(standard_attention, W, training=True)]
    record = make_record(cells, "cpu")
    record.save(tmp_path / "new" / "cpu.json")
    assert load(tmp_path / "new" / "cpu.json") == record
    assert record.measurement(standard_attention, W, training=True).training
    assert not record.stale


@pytest.mark.parametrize("text", ["", "[]", '{"digest": "", "provenance": {"device": "A"}}'])
def test_a_file_that_is_no_record_is_named(tmp_path, text):
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(ValueError, match=r"other\.json is not a record .* nox -s measure"):
        load(tmp_path / "other.json")


def test_a_cell_that_fails_is_noted_and_the_others_go_on(tmp_path):
    def broken(q, k, v):
        raise RuntimeError("a mistake in the program")

    record = make_record([Case(broken, W), Case(standard_attention, W)], "cpu")
    assert [m.program for m in record.measurements] == ["standard_attention"]
    (failure,) = record.failures
    assert failure.rstrip().endswith("a mistake in the program")


def test_a_cell_that_is_not_there_is_named():
    with pytest.raises(LookupError, match=r"H100 .* no run of standard_attention with Workload\("):
        load().measurement(standard_attention, W)
    with pytest.raises(LookupError, match="training=True"):
        load().measurement(standard_attention, replace(grid()[0].workload, heads=13), training=True)


def test_the_shipped_record_is_a_complete_run_of_a_real_gpu():
    record = load()
    assert record.provenance.device == "NVIDIA H100 80GB HBM3"
    assert not record.stale
    assert record.provenance.driver
    assert record.failures == ()
    for cell in grid():
        assert record.measurement(*cell).program == cell.program.__name__


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
    program, w, training, warm_up = grid()[0]
    recorded = load().measurement(program, w, training, warm_up)
    assert measured(program, w, training, warm_up=warm_up) == recorded
    assert origin().startswith("recorded")
    assert str(load().provenance) in origin()


def code_in(folder, change=lambda text: text):
    for name in records.MEASURING_CODE:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(change((records.PACKAGE / name).read_text()))
    return records.code_digest(folder)


def test_the_digest_follows_the_code_that_measures(tmp_path):
    assert code_in(tmp_path) == records.code_digest()
    assert code_in(tmp_path, lambda text: text + "\nMORE = 1\n") != records.code_digest()
    changed = code_in(tmp_path, lambda text: text.replace("torch.randn(", "torch.zeros("))
    assert changed != records.code_digest()


def test_what_the_code_says_of_itself_does_not_make_a_record_stale(tmp_path):
    def say(text):
        return "# A comment.\nimport os\n\n" + text.replace('"""', '"""Well: ', 1)

    assert code_in(tmp_path, say) == records.code_digest()


def test_a_move_does_not_make_a_record_stale(tmp_path):
    code_in(tmp_path)
    last, first = (tmp_path / records.MEASURING_CODE[i] for i in (-1, 0))
    first.write_text(last.read_text() + first.read_text())
    last.write_text("")
    assert records.code_digest(tmp_path) == records.code_digest()


@pytest.mark.parametrize("path", records.RECORDS, ids=lambda path: path.stem)
def test_a_cold_start_adds_the_workspace_to_the_first_peak_and_nothing_else(path):
    cold = [m for m in load(path).measurements if not m.warm_up]
    assert cold
    for m in cold:
        warm = load(path).measurement(standard_attention, m.workload)
        assert m.peak_bytes - warm.peak_bytes == warm.workspace_bytes
