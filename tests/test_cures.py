"""Every cure saves what it says: by hand, predicted and measured; and it changes no answer."""

import functools
import math
import multiprocessing
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import pytest
import torch
from conftest import ROOT
from torch._inductor import config as inductor

from attnmem import Workload, measure, trace
from attnmem.cures import CURES, cells, made
from attnmem.cures.kernels import unfused
from attnmem.cures.peaks import PEAKS, bytes_of
from attnmem.cures.training import LAYERS
from attnmem.lessons.what_to_do.cures import RECORDED_WITH, SECTIONS, record
from attnmem.prediction.choice import assuming
from attnmem.prediction.refusal import CannotFollow

PREDICTED = [cure for cure in CURES.values() if not cure.compiled]
SMALL = Workload(batch=2, heads=4, seq_len=272, head_dim=16, dtype=torch.float32)
# A trace of the CPU does not see the state of random numbers, which checkpoint keeps, nor the one
# number in 64 bit that autograd makes of a Python float.
RANDOM_STATE = torch.get_rng_state().nbytes
NUMBER = 8


@functools.cache
def predicted(version, w, training, device="cuda"):
    """A trace, on a GPU for the software of the record."""
    with torch.device("meta" if device == "cuda" else "cpu"):
        program = made(version, w)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*takes cuDNN on Hopper")
        warnings.filterwarnings("ignore", ".*packs 16-bit matrices")
        with assuming(**RECORDED_WITH if device == "cuda" else {}):
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


def in_32_bit(q, k, v):
    return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1, dtype=torch.float32).to(v.dtype) @ v


def scaled_before(q, k, v):
    return ((q * q.shape[-1] ** -0.5) @ k.mT).softmax(-1) @ v


def filled(q, k, v):
    future = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).triu(1)
    s = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(future, -math.inf)
    return s.softmax(-1) @ v


def capped(q, k, v):
    s = q @ k.mT * q.shape[-1] ** -0.5
    return (30 * torch.tanh(s / 30)).softmax(-1) @ v


def found_by_the_compiler(program):
    """Whether the compiler has put the fused call into the place of ``program``."""
    seen: list[bool] = []

    def look(graph):  # which the compiler calls when it has looked for attention
        seen.append(any("scaled_dot_product" in str(node.target) for node in graph.nodes))
        raise RuntimeError("seen")

    inputs = torch.randn(3, 2, 4, 64, 16, dtype=torch.float16)
    with inductor.patch(joint_custom_post_pass=look), pytest.raises(Exception, match="seen"):
        torch.compile(program)(*inputs)
    return seen == [True]


@pytest.mark.skipif(torch.__version__[:5] != "2.13.", reason="the page says it of torch 2.13")
def test_the_compiler_knows_the_forms_that_the_page_names():
    # In a process of its own: what has been compiled changes the order in which later runs free.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        forms = [unfused, in_32_bit, scaled_before, filled, capped]
        assert list(pool.map(found_by_the_compiler, forms)) == [True, True, False, False, False]


# What a GPU reserved otherwise, and what explains it.
RESERVED = {
    # Parameters are there before the run: which holes lie between them no trace sees, and blocks of
    # other sizes are cut from the same segments. Requested bytes do not depend on it.
    **dict.fromkeys(
        ("UnfusedModel", "AttentionCheckpointed", "BlocksCheckpointed", "Model"), "parameters"
    ),
    **dict.fromkeys(("SelectivelyCheckpointed", "FusedBlocksCheckpointed"), "parameters"),
    # See the test of its events.
    "layers_offloaded": "the transposed K is made contiguous before it goes to the CPU",
    # All events are the predicted ones; not explained yet.
    **dict.fromkeys(("whole_batch", "accumulated"), "backward inside the call"),
}


@pytest.mark.parametrize("cure", PREDICTED, ids=lambda cure: cure.name)
def test_the_gpu_needs_what_is_predicted_for_it(cure):
    for version in cure.versions:
        for w in cure.workloads:
            for training in cure.modes:
                t = predicted(version, w, training)
                m = record().measurement(made_on_shapes(version, w), w, training)
                assert (m.peak_bytes, m.saved_bytes) == (t.peak_bytes, t.saved_bytes), w
                if version.__name__ != "layers_offloaded":
                    assert [e.bytes for e in m.timeline] == [e.bytes for e in t.timeline], w
                if not m.parameter_bytes:
                    assert m.peak_allocated_bytes == t.peak_allocated_bytes, w
                if version.__name__ not in RESERVED:
                    assert m.peak_reserved_bytes == t.peak_reserved_bytes, w


def made_on_shapes(version, w):
    with torch.device("meta"):
        return made(version, w)


def test_offloading_has_a_temporary_for_each_transposed_key_and_nothing_else_is_not_predicted():
    (version,) = (v for v in CURES["checkpoint"].after if v.__name__ == "layers_offloaded")
    for w in CURES["checkpoint"].workloads:
        predicted_sizes = Counter(e.bytes for e in predicted(version, w, True).timeline)
        sizes = Counter(e.bytes for e in record().measurement(version, w, True).timeline)
        temporaries = {w.head_bytes: LAYERS, -w.head_bytes: LAYERS}
        assert sizes - predicted_sizes == temporaries
        assert not predicted_sizes - sizes


def test_what_is_recorded_is_whole_and_every_cure_has_its_section():
    assert not record().failures
    assert not record().stale
    pages = "what-to-do", "more-cures"
    text = "".join((ROOT / "book" / "en" / f"{page}.md").read_text() for page in pages)
    assert all(f"({section})=" in text for section in SECTIONS)
    assert sorted(name for names in SECTIONS.values() for name in names) == sorted(CURES)
