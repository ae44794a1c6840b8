"""The attention sizes of language models that readers know, each with its source.

Sources were checked on 2026-11-25, the papers and Meta's config files in copies.
"""

from dataclasses import dataclass

import torch

from attnmem.catalog.lookup import by_name, rows
from attnmem.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Model:
    """The sizes of one model's attention, the same in all its layers.

    ``heads`` of queries, each of ``head_dim`` numbers, share ``kv_heads`` heads of keys and values:
    as many as of queries, or fewer with grouped-query attention (Ainslie et al. 2023).
    ``context`` is the longest sequence that the model is published for, in tokens. ``parameters``
    is their number in the whole model: counted from its sizes, or, where it is round, as the source
    prints it. ``mlp_width`` and ``vocabulary`` are there where the book needs them.

    With ``latent_dim``, keys and values are not kept: so many numbers are, for all heads, from
    which both are made, and ``rope_dim`` more that tell the token's place. These are also appended
    to each head's query and key (multi-head latent attention, arXiv 2405.04434, section 2.1).

    >>> model("GPT-2 medium").workload().shape
    (1, 16, 1024, 64)
    """

    name: str
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    source: str
    parameters: int
    latent_dim: int | None = None
    rope_dim: int = 0
    mlp_width: int | None = None
    vocabulary: int | None = None

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
            head_dim=self.head_dim + self.rope_dim,
            value_dim=self.head_dim if self.rope_dim else None,
            dtype=dtype,
        )

    @property
    def kept_numbers(self) -> int:
        """How many numbers of a token one layer keeps: a key and a value a head, or the latent."""
        return (
            self.latent_dim + self.rope_dim
            if self.latent_dim
            else 2 * self.kv_heads * self.head_dim
        )


MODELS = tuple(Model(**row) for row in rows("model"))


def model(name: str) -> Model:
    """The model called ``name``. Raises ``LookupError``, with near misses, if unknown."""
    return by_name(MODELS, name, "model")
