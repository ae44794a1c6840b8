"""Keys and values that are kept: the bytes of a token, and how many tokens a card holds."""

import torch

from attnmem.catalog.models import Model


def token_bytes(model: Model, dtype: torch.dtype = torch.bfloat16) -> int:
    """What all layers of a model keep of one token, in bytes: 2·L·kv_heads·d·e, or L·latent·e.

    >>> from attnmem.catalog import model
    >>> token_bytes(model("Llama 3.1 8B")), token_bytes(model("DeepSeek-V2-Lite"))
    (131072, 31104)
    """
    return model.layers * model.kept_numbers * dtype.itemsize


def weight_bytes(model: Model, dtype: torch.dtype = torch.bfloat16) -> int:
    """The bytes of a model's parameters, all in one dtype."""
    return model.parameters * dtype.itemsize


def max_cached_tokens(
    model: Model,
    memory_bytes: int,
    *,
    users: int = 1,
    dtype: torch.dtype = torch.bfloat16,
    weights: torch.dtype = torch.bfloat16,
    page: int = 1,
) -> int:
    """How many tokens of each user fit beside the weights: what ``memory_bytes`` of a card hold.

    Each of ``users`` keeps equally many, in ``dtype``, in whole pages of ``page`` tokens. What a
    step computes is not counted, nor what the driver and libraries keep: it is an upper bound. The
    model's ``context`` is no limit here. 0 where the weights fit, and no page beside them.

    Raises ``ValueError`` for ``memory_bytes`` that do not hold the weights, and for ``users`` or
    ``page`` below 1.

    >>> from attnmem.catalog import accelerator, model
    >>> card, llama = accelerator("H100 SXM").memory_bytes, model("Llama 3.1 8B")
    >>> max_cached_tokens(llama, card), max_cached_tokens(llama, card, users=8)
    (532827, 66603)
    """
    for name, value in (("users", users), ("page", page)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    own = weight_bytes(model, weights)
    if memory_bytes < own:
        raise ValueError(
            f"memory_bytes must hold the weights of {model.name}, {own:,} B in {weights}; "
            f"got {memory_bytes:,}"
        )
    pages = (memory_bytes - own) // (users * page * token_bytes(model, dtype))
    return int(pages) * page  # 80e9 bytes hold a whole number of tokens, too
