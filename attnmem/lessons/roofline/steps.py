"""The four steps of a forward pass: as predicted, and as a device took them."""

from dataclasses import dataclass, replace

from attnmem.catalog import accelerator
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
STEPS = tuple(step.name for step in standard_steps(W))

H100, H200 = RECORDS = load(), load(SHIPPED.with_name("nvidia-h200.json"))
CARD, NEWER = CARDS = accelerator("H100 SXM"), accelerator("H200 SXM")  # what they were made on
CEILINGS = known(H100.ceilings)


@dataclass(frozen=True)
class Observed:
    """A step as predicted, and as a device took it: bytes, and seconds.

    ``roof`` is its measured roof and the seconds that this allows, ``limit`` what limits it.
    """

    predicted: Step
    timed: TimedStep
    roof: tuple[str, float]
    limit: str

    @property
    def seconds(self) -> float:
        """Its measured time."""
        return self.timed.time.seconds

    @property
    def share(self) -> float:
        """What share of its roof it reaches."""
        return self.roof[1] / self.seconds

    @property
    def rates(self) -> tuple[float, float]:
        """Predicted bytes and FLOPs over the measured time."""
        return self.predicted.bytes_moved / self.seconds, self.predicted.flops / self.seconds

    @property
    def more(self) -> tuple[int, int]:
        """Bytes read and bytes written, counted minus predicted."""
        p, read, written = self.predicted, known(self.timed.read), known(self.timed.written)
        return read - p.bytes_read, written - p.bytes_written

    @property
    def counted(self) -> float:
        """Bytes counted over bytes predicted, read and written together."""
        return 1 + sum(self.more) / self.predicted.bytes_moved


def observe(step: Step, timed: TimedStep, ceilings: Ceilings) -> Observed:
    """A step on the device that has these ceilings."""
    roof, limit = measured_roof(step, ceilings), limited_by(step, timed.time.seconds, ceilings)
    return Observed(step, timed, roof, limit)


def forward(w: Workload, record: Record = H100) -> list[Observed]:
    """QKᵀ, scale, softmax and PV of a recorded run."""
    run = record.timed(standard_attention, w)
    timed = [step for step in run.steps if step.stage == "forward"]
    return [
        observe(step, found, known(record.ceilings))
        for step, found in zip(standard_steps(w), timed, strict=True)
    ]


def at(seq_len: int, record: Record = H100) -> list[Observed]:
    """The steps of the book's example at another length."""
    return forward(replace(W, seq_len=seq_len), record)
