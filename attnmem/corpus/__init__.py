"""A corpus: attention programs after public projects, written as those projects write them.

What users bring looks like this. ``CORPUS`` holds the programs that are to be predicted as they
are measured, ``REFUSED`` those that cannot be: they read values, or are compiled. Each entry names
the project and the file that it is written after; no code is taken from there.

>>> from attnmem.corpus import CORPUS, WORKLOADS
>>> CORPUS["NanoGPT"].source
'karpathy/nanoGPT, model.py'
>>> program = CORPUS["NanoGPT"].make(WORKLOADS[0])
"""

from types import ModuleType

from attnmem.corpus import (
    blocks,
    classics,
    decoders,
    diffusion,
    efficient,
    groups,
    images,
    local,
    masks,
    modules,
    refused,
    sdpa,
    structures,
    training,
    variants,
    vision,
)
from attnmem.corpus.entry import SHAPES, WORKLOADS, Entry, module, only, program

__all__ = ["CORPUS", "REFUSED", "SHAPES", "WORKLOADS", "Entry", "module", "only", "program"]


def _entries(*places: ModuleType) -> dict[str, Entry]:
    found = [x for place in places for x in vars(place).values() if isinstance(x, Entry)]
    named = {entry.name: entry for entry in found}
    if len(named) < len(found):
        raise ValueError("two entries of the corpus have one name")
    return named


#: Programs to predict, by name.
CORPUS: dict[str, Entry] = _entries(
    classics,
    decoders,
    variants,
    masks,
    sdpa,
    modules,
    vision,
    images,
    diffusion,
    structures,
    efficient,
    groups,
    local,
    blocks,
    training,
)

#: Programs that no prediction is made for.
REFUSED: dict[str, Entry] = _entries(refused)
