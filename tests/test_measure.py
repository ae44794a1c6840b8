import gc
from dataclasses import replace

import psutil
import pytest
import torch

from attnmem import Workload, measure, standard_attention
from attnmem.measurement.device import provenance, resolve_device

W = Workload(batch=1, heads=2, seq_len=64, head_dim=16, dtype=torch.float32)


def test_a_program_that_keeps_more_peaks_higher():
    def hoarder(q, k, v):
        o, s, p = standard_attention(q, k, v)
        return o + 0, s, p, s.clone()  # alive together: s, p, its copy, and o twice

    m = measure(hoarder, W, device="cpu")
    assert m.peak_bytes == 3 * W.score_bytes + 5 * W.head_bytes
    assert m.saved_bytes == 0  # only O is kept of what a program returns
    assert m.program == "hoarder"


def test_a_program_may_return_the_output_alone():
    m = measure(lambda q, k, v: q + 1, W, training=True, device="cpu")
    assert m.peak_bytes >= 5 * W.head_bytes  # Q, K, V, O, dO
    assert not m.out_of_memory


def test_out_of_memory_is_a_result_and_leaves_the_machine_clean():
    # Scores for twice the free memory: half of it would be granted by Linux, and then taken back.
    n = int((2 * psutil.virtual_memory().available / 2 / W.element_bytes) ** 0.5)
    w = replace(W, seq_len=n)
    m = measure(standard_attention, w, device="cpu")
    assert m.out_of_memory
    assert m.input_bytes == m.peak_bytes == 3 * w.head_bytes
    assert torch.ones(1000, 1000).sum() == 10**6
    assert measure(standard_attention, W, device="cpu").peak_bytes > 0


def test_an_error_of_the_program_is_the_reader_s_to_see():
    def broken(q, k, v):
        raise RuntimeError("a mistake in the program")

    with pytest.raises(RuntimeError, match="a mistake in the program"):
        measure(broken, W, device="cpu")
    gc.collect()
    assert not measure(standard_attention, W, device="cpu").out_of_memory


@pytest.mark.skipif(torch.cuda.is_available(), reason="tells what happens without a GPU")
def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(
        ValueError, match=r"'cuda' is not on this machine.*0 CUDA devices.*use 'cpu'"
    ):
        measure(standard_attention, W, device="cuda")
    assert resolve_device() == torch.device("cpu")


@pytest.mark.parametrize("device", ["tpu", "meta", "gpu", ""])
def test_an_unknown_device_is_named(device):
    with pytest.raises(ValueError, match="device must be 'cuda', 'cuda:<index>' or 'cpu', got"):
        resolve_device(device)


def test_provenance_names_the_machine():
    here = provenance("cpu")
    assert here.memory_bytes == psutil.virtual_memory().total
    assert here.torch == torch.__version__
    assert (here.driver, here.cuda) == (None, None)
    assert str(here) == f"{here.device}, torch {here.torch}, {here.date}"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="measures a GPU")
@pytest.mark.parametrize("training", [False, True])
def test_a_gpu_agrees_with_the_formula_and_is_left_clean(training):
    from attnmem.formulas import peak_bytes

    w = replace(W, seq_len=777, dtype=torch.float16)
    before = torch.cuda.memory_allocated()
    m = measure(standard_attention, w, training, "cuda")
    assert m.peak_bytes == peak_bytes(w, training=training)
    assert torch.cuda.memory_allocated() - before <= m.workspace_bytes
    huge = measure(standard_attention, replace(w, seq_len=2**20), training, "cuda")
    assert huge.out_of_memory
    assert measure(standard_attention, w, training, "cuda").peak_bytes == m.peak_bytes
