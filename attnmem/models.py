"""The attention sizes of language models that readers know, each with its source.

Sources were checked on 2026-11-25, the papers and Meta's config files in copies.
"""

from dataclasses import dataclass

import torch

from attnmem.names import find_by_name
from attnmem.workload import Workload

LLAMA_PAPER = "Grattafiori et al. 2024, arXiv:2407.21783, Table 3"
LLAMA_31_CONTEXT = "context: config.json; the model card says 128k"


@dataclass(frozen=True)
class Model:
    """The sizes of one model's attention, the same in all its layers.

    ``heads`` of queries, each of ``head_dim`` numbers, share ``kv_heads`` heads of keys and values:
    as many as of queries, or fewer with grouped-query attention (Ainslie et al. 2023).
    ``context`` is the longest sequence that the model is published for, in tokens.

    >>> find("GPT-2 medium").workload().shape
    (1, 16, 1024, 64)

    Taught in :ref:`memory-case`.
    """

    name: str
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    source: str

    def workload(
        self, seq_len: int | None = None, batch: int = 1, dtype: torch.dtype = torch.bfloat16
    ) -> Workload:
        """One layer's attention over ``seq_len`` tokens, by default the whole context.

        Q, K and V are ``[batch, heads, seq_len, head_dim]``: keys and values are taken as repeated
        to all heads, as PyTorch's unfused attention needs them (its documentation: ``enable_gqa``).
        Before that, K and V take ``kv_heads / heads`` of these bytes. GPT-3 alternates dense with
        banded layers; this is a dense one.

        Raises ``ValueError`` for sizes or a dtype that :class:`Workload` does not take.
        """
        return Workload(
            batch=batch,
            heads=self.heads,
            seq_len=self.context if seq_len is None else seq_len,
            head_dim=self.head_dim,
            dtype=dtype,
        )


# fmt: off
MODELS = (
    Model("GPT-2 medium", 24, 16, 16, 64, 1024,
          "Radford et al. 2019, section 2.3, Table 2 (345M); heads: gpt2-medium, config.json"),
    Model("GPT-3 175B", 96, 96, 96, 128, 2048,
          "Brown et al. 2020, arXiv:2005.14165, section 2.1, Table 2.1"),
    Model("Llama 3 8B", 32, 32, 8, 128, 8192, f"{LLAMA_PAPER}; context: model card, config.json"),
    Model("Llama 3.1 8B", 32, 32, 8, 128, 131072, f"{LLAMA_PAPER}; {LLAMA_31_CONTEXT}"),
    Model("Llama 3.1 405B", 126, 128, 8, 128, 131072, f"{LLAMA_PAPER}; {LLAMA_31_CONTEXT}"),
)
# fmt: on


def find(name: str) -> Model:
    """The model called ``name``. Raises ``LookupError``, with near misses, if unknown.

    Taught in :ref:`memory-case`.
    """
    return find_by_name(MODELS, name, "model")
