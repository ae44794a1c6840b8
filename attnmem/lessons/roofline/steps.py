"""The four steps of a forward pass: as predicted, and as a device took them."""

from dataclasses import dataclass, replace

from attnmem.catalog import accelerator
from attnmem.figures import Point
from attnmem.formulas import standard_steps
from attnmem.lessons.shared import W, known
from attnmem.measurement.records import SHIPPED, Record, load
from attnmem.measurement.timing import TimedStep
from attnmem.programs import standard_attention
from attnmem.roofline import Ceilings, limited_by, measured_roof
from attnmem.timeline import Step
from attnmem.workload import Workload

LENGTHS: tuple[int, ...] = tuple(2**power for power in range(7, 15))
LONGEST = replace(W, seq_len=LENGTHS[-1])
HEAD_DIMS = (64, 128, 256)
STEPS = tuple(step.name for step in standard_steps(W))

H100, H200 = load(), load(SHIPPED.with_name("nvidia-h200.json"))
CARD = accelerator("H100 SXM")  # what the first of them was made on
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
    def flops_per_second(self) -> float:
        """The predicted FLOPs over the measured time."""
        return self.predicted.flops / self.seconds

    @property
    def read(self) -> int:
        """Bytes read, as counted."""
        return known(self.timed.read)

    @property
    def more_read(self) -> int:
        """Bytes read, counted minus predicted."""
        return self.read - self.predicted.bytes_read

    @property
    def more_written(self) -> int:
        """Bytes written, counted minus predicted."""
        return known(self.timed.written) - self.predicted.bytes_written

    @property
    def moved(self) -> int:
        """Bytes read and written, as counted."""
        return self.read + known(self.timed.written)

    @property
    def counted(self) -> float:
        """Bytes counted over bytes predicted, read and written together."""
        return self.moved / self.predicted.bytes_moved

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
        return self.least / self.seconds

    @property
    def limit(self) -> str:
        """What limits it."""
        return limited_by(self.predicted, self.seconds, self.ceilings)

    @property
    def at_roof(self) -> Point:
        """Where it would be if it reached its roof."""
        p = self.predicted
        return Point(p.name, p.intensity, p.flops / self.least)


def forward(w: Workload, record: Record = H100) -> list[Observed]:
    """QKᵀ, scale, softmax and PV of a recorded run."""
    run = record.timed(standard_attention, w)
    timed = [step for step in run.steps if step.stage == "forward"]
    return [
        Observed(step, found, known(record.ceilings))
        for step, found in zip(standard_steps(w), timed, strict=True)
    ]


def at(seq_len: int, record: Record = H100) -> list[Observed]:
    """The steps of the book's example at another length."""
    return forward(replace(W, seq_len=seq_len), record)
