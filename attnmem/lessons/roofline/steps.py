"""The four steps of a forward pass: as predicted, and as a device took them."""

from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from attnmem.catalog import accelerator
from attnmem.figures import Point
from attnmem.formulas import standard_steps
from attnmem.measurement.records import SHIPPED, Record, load
from attnmem.measurement.timing import TimedStep
from attnmem.programs import standard_attention
from attnmem.roofline import Ceilings, limited_by, measured_roof, share_of_roof
from attnmem.timeline import Step
from attnmem.workload import Workload

W = Workload(batch=1, heads=12, seq_len=8192, head_dim=64, dtype=torch.float16)
LENGTHS: tuple[int, ...] = tuple(2**power for power in range(7, 15))
LONG = replace(W, seq_len=LENGTHS[-1])
HEAD_DIMS = (64, 128, 256)

H100, H200 = load(), load(SHIPPED.with_name("nvidia-h200.json"))
CARD = accelerator("H100 SXM")  # what the first of them was made on

T = TypeVar("T")


def known(value: T | None) -> T:
    """A value that a record or a data sheet has. Raises ``ValueError`` where it does not."""
    if value is None:
        raise ValueError("a value must be in the record or the data sheet, and is not")
    return value


CEILINGS = known(H100.ceilings)


@dataclass(frozen=True)
class Observed:
    """A step as predicted, and as a device took it whose ceilings are these."""

    predicted: Step
    timed: TimedStep
    ceilings: Ceilings

    @property
    def name(self) -> str:
        """QKᵀ, scale, softmax or PV; elsewhere PyTorch's name."""
        return self.predicted.name

    @property
    def seconds(self) -> float:
        """Its measured time."""
        return self.timed.time.seconds

    @property
    def read(self) -> int:
        """Bytes read, as counted."""
        return known(self.timed.read)

    @property
    def written(self) -> int:
        """Bytes written, as counted."""
        return known(self.timed.written)

    @property
    def counted(self) -> float:
        """Bytes counted over bytes predicted, read and written together."""
        return (self.read + self.written) / self.predicted.bytes_moved

    @property
    def roof(self) -> str:
        """What its measured roof is."""
        return measured_roof(self.predicted, self.ceilings)[0]

    @property
    def least(self) -> float:
        """The seconds that this roof allows."""
        return measured_roof(self.predicted, self.ceilings)[1]

    @property
    def share(self) -> float:
        """What share of its roof it reaches."""
        return share_of_roof(self.predicted, self.seconds, self.ceilings)

    @property
    def limit(self) -> str:
        """What limits it."""
        return limited_by(self.predicted, self.seconds, self.ceilings)


def forward(w: Workload, record: Record = H100) -> list[Observed]:
    """QKᵀ, scale, softmax and PV of a recorded run."""
    run = record.timed(standard_attention, w)
    timed = [step for step in run.steps if step.stage == "forward"]
    return [
        Observed(step, found, known(record.ceilings))
        for step, found in zip(standard_steps(w), timed, strict=True)
    ]


def at(seq_len: int, record: Record = H100) -> list[Observed]:
    """The steps of :data:`W` at another length."""
    return forward(replace(W, seq_len=seq_len), record)


def where_at_roof(step: Observed) -> Point:
    """Where a step would be if it reached its roof."""
    p = step.predicted
    return Point(p.name, p.intensity, p.flops / step.least)
