"""Every cure saves what it says: by hand, predicted and measured; and it changes no answer."""

import warnings
from dataclasses import replace

import pytest
import torch

from attnmem import Workload, measure, trace
from attnmem.cures import CURES, cells, made
from attnmem.cures.peaks import PEAKS, bytes_of
from attnmem.cures.training import LAYERS
from attnmem.prediction.refusal import CannotFollow

PREDICTED = [cure for cure in CURES.values() if not cure.compiled]
SMALL = Workload(batch=2, heads=4, seq_len=272, head_dim=16, dtype=torch.float32)
# A trace of the CPU does not see the state of random numbers, which checkpoint keeps, nor the one
# number in 64 bit that autograd makes of a Python float.
RANDOM_STATE = torch.get_rng_state().nbytes
NUMBER = 8


def predicted(version, w, training, device="cuda"):
    with torch.device("meta" if device == "cuda" else "cpu"):
        program = made(version, w)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*takes cuDNN on Hopper")
        warnings.filterwarnings("ignore", ".*packs 16-bit matrices on some CPUs")
        return trace(program, w, training, device)


@pytest.mark.parametrize("cure", PREDICTED, ids=lambda cure: cure.name)
def test_each_change_needs_less_than_before(cure):
    for w in cure.workloads:
        for training in cure.modes:
            before, *after = (predicted(v, w, training).peak_bytes for v in cure.versions)
            assert max(after) < before, (w, training)


@pytest.mark.parametrize("name", PEAKS)
def test_a_peak_is_what_its_closed_form_says(name):
    found = 0
    for cell in cells():
        form = PEAKS[name][cell.training] if cell.name == name else None
        if form and cell.workload.seq_len > 1000:
            found += 1
            version = next(v for c in PREDICTED for v in c.versions if v.__name__ == name)
            t = predicted(version, cell.workload, cell.training)
            assert t.peak_bytes == bytes_of(form, cell.workload), cell
    assert found


@pytest.mark.parametrize("cure", [c for c in PREDICTED if not c.random], ids=lambda cure: cure.name)
def test_a_change_gives_the_same_answer(cure):
    w = replace(SMALL, head_dim=12) if cure.name == "odd head dimension" else SMALL
    training = cure.modes[-1]
    # 16 bits of autocast have 8 of fraction; elsewhere sums of 32 bit are taken in another order.
    tolerance = 2**-7 if cure.name == "autocast" else 1e-4

    def answers(version):
        torch.manual_seed(0)
        program = made(version, w)
        q, k, v = (torch.randn(w.shape, requires_grad=training) for _ in range(3))
        with torch.set_grad_enabled(training):
            o = program(q, k, v)
        if training:
            o.backward(torch.ones_like(o))
        return [o.detach(), *(x.grad for x in (q, k, v) if x.grad is not None)]

    before, *after = map(answers, cure.versions)
    for found in after:
        assert len(found) == len(before)
        for x, y in zip(found, before, strict=True):
            torch.testing.assert_close(x, y, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("cure", PREDICTED, ids=lambda cure: cure.name)
def test_the_cpu_needs_what_is_predicted_for_it(cure):
    w = replace(SMALL, head_dim=12) if cure.name == "odd head dimension" else SMALL
    for version in cure.versions:
        for training in cure.modes:
            program = made(version, w)
            try:
                t = predicted(version, w, training, "cpu")
            except CannotFollow:
                assert version.__name__ == "layers_offloaded"  # the CPU's memory to itself
                continue
            m = measure(program, w, training, "cpu")
            if version.__name__ == "autocast_fused":  # of whose copies a warning tells
                assert m.peak_bytes >= t.peak_bytes
                continue
            states, rest = divmod(m.saved_bytes - t.saved_bytes, RANDOM_STATE)
            assert (0 <= states <= LAYERS, rest) == (True, 0)
            assert 0 <= m.peak_bytes - t.peak_bytes <= states * RANDOM_STATE + NUMBER


def test_every_program_is_recorded_once_and_has_a_name_of_its_own():
    runs = [(cell.name, cell.workload, cell.training) for cell in cells()]
    assert len(set(runs)) == len(runs)
    versions = {version for cure in CURES.values() for version in cure.versions}
    assert len({version.__name__ for version in versions}) == len(versions)
    assert all(cell.program.__name__ == cell.name for cell in cells())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_compiled_is_refused():
    (cure,) = (cure for cure in CURES.values() if cure.compiled)
    with pytest.raises(CannotFollow, match="compil"):
        predicted(cure.after[0], SMALL, False)
