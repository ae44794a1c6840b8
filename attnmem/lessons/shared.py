"""What several lessons use: the layer that is the book's example, its runs, sums of S and X."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

import torch

from attnmem.catalog import accelerator, recognise
from attnmem.measurement import records
from attnmem.measurement.device import provenance
from attnmem.measurement.memory import Measurement
from attnmem.prediction.trace import Trace
from attnmem.programs import standard_attention
from attnmem.workload import Workload

SHORT = Workload(batch=1, heads=12, seq_len=512, head_dim=64, dtype=torch.float16)
W = replace(SHORT, seq_len=8192)

# The cards that most readers have, or rent; the others stand in the appendix.
OWNED = tuple(
    map(
        accelerator,
        ("RTX 3090", "RTX 4090", "RTX 5090", "L4", "L40S", "A100 80 GB SXM4", "H100 SXM"),
    )
)

T = TypeVar("T")


def known(value: T | None) -> T:
    """A value that a record or a data sheet has. Raises ``ValueError`` where it does not."""
    if value is None:
        raise ValueError("a value must be in the record or the data sheet, and is not")
    return value


def at_most(value: float, step: float = 0.01) -> float:
    """A multiple of ``step`` that is not below ``value``: for what the text says is a bound.

    >>> at_most(0.131), at_most(0.0155, 0.001), at_most(0.14)
    (0.14, 0.016, 0.14)
    """
    return round(math.ceil(round(value / step, 9)) * step, 9)


def made(*recorded: records.Record) -> str:
    """Where numbers come from, in short, for the line under a table: "H100, recorded".

    Without records: where :func:`attnmem.measurement.records.measured` takes them from.
    """
    live = not recorded and torch.cuda.is_available()
    found = recorded or (records.load(),)
    devices = [provenance("cuda").device] if live else [r.provenance.device for r in found]
    cards = [(card.name if (card := recognise(name)) else name).split()[0] for name in devices]
    return f"{' and '.join(cards)}, {'measured live' if live else 'recorded'}"


def total(w: Workload, scores: int, heads: int) -> int:
    """So many S and so many X, in bytes."""
    return scores * w.score_bytes + heads * w.head_bytes


def measured(w: Workload, lengths: Iterable[int], *, training: bool = False) -> list[Measurement]:
    """Runs of standard attention on a GPU, one for each length."""
    return [records.measured(standard_attention, replace(w, seq_len=n), training) for n in lengths]


def same_events(m: Measurement, t: Trace) -> bool:
    """Whether every allocation and every release is as predicted, in the same order."""
    return [event.bytes for event in m.timeline] == [event.bytes for event in t.timeline]
