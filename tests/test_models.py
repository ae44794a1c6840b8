import pytest
import torch

from attnmem import Workload
from attnmem.catalog import MODELS, model

WIDTHS = {  # as printed by the sources of the models
    "GPT-2 medium": 1024,
    "GPT-3 175B": 12288,
    "Llama 3 8B": 4096,
    "Llama 3.1 8B": 4096,
    "Llama 3.1 405B": 16384,
    "DeepSeek-V2-Lite": 2048,
}


def test_the_heads_of_a_model_fill_its_published_width():
    assert {model.name: model.heads * model.head_dim for model in MODELS} == WIDTHS
    assert len(MODELS) == len(WIDTHS)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_heads_of_keys_serve_equally_many_heads_of_queries(model):
    assert model.heads % model.kv_heads == 0
    assert model.source


def test_a_workload_is_one_layer_over_the_whole_context_unless_told_otherwise():
    whole = Workload(batch=1, heads=32, seq_len=131072, head_dim=128, dtype=torch.bfloat16)
    llama = model("Llama 3.1 8B")
    assert llama.workload() == whole
    assert llama.workload(512, 2, torch.float32).shape == (2, 32, 512, 128)
    assert llama.workload(dtype=torch.float32).element_bytes == 4
    with pytest.raises(ValueError, match="seq_len must be an integer of at least 1, got 0"):
        llama.workload(0)


def test_the_workload_of_a_latent_cache_has_longer_keys_than_values():
    w = model("DeepSeek-V2-Lite").workload(512)
    assert (w.head_dim, w.value_dim, w.heads) == (192, 128, 16)
    assert w.output_shape == (1, 16, 512, 128)


def test_an_unknown_model_is_answered_with_near_ones():
    with pytest.raises(LookupError, match=r"no model 'Llama 3' in .*catalog\.models;.*Llama 3 8B"):
        model("Llama 3")
    with pytest.raises(LookupError, match="GPT-2 medium or GPT-3 175B or Llama 3 8B or"):
        model("?")
