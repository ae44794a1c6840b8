"""Measured runs that ship with the book, each with its provenance."""

import hashlib
import json
import traceback
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import torch

from attnmem.attention import Program, standard_attention
from attnmem.measure import Measurement, Provenance, measure, provenance
from attnmem.workload import Workload

PACKAGE = Path(__file__).parent

# What a recorded number depends on. A record made by other versions of these files is stale.
MEASURING_CODE = ("workload.py", "attention.py", "measure.py")

# The record that stands in for a GPU on a machine that has none.
SHIPPED = PACKAGE / "data" / "nvidia-h100-80gb-hbm3.json"

Cell = tuple[Program, Workload, bool]  # a program, its workload, whether it is training


def grid() -> list[Cell]:
    """The cells of a record: powers of two up to where 80 GB are not enough, and some odd ones."""
    short = Workload(batch=1, heads=12, seq_len=512, head_dim=64, dtype=torch.float16)
    powers = [replace(short, seq_len=2**power) for power in range(9, 18)]
    odd = [
        replace(short, seq_len=777),
        Workload(batch=2, heads=8, seq_len=1024, head_dim=128, dtype=torch.bfloat16),
        Workload(batch=3, heads=5, seq_len=1000, head_dim=80, dtype=torch.float32),
    ]
    return [
        (standard_attention, w, training)
        for training, workloads in ((False, powers + odd), (True, powers[:7] + odd))
        for w in workloads
    ]


@dataclass(frozen=True, kw_only=True)
class Record:
    """Measurements made on one device by one version of the measuring code.

    ``digest`` identifies that version. ``failures`` holds the traceback of each cell that raised.
    """

    digest: str
    provenance: Provenance
    measurements: tuple[Measurement, ...]
    failures: tuple[str, ...]

    @property
    def stale(self) -> bool:
        """Whether the record was made by other code than the code that reads it."""
        return self.digest != code_digest()

    def find(self, program: Program, w: Workload, training: bool = False) -> Measurement:
        """The measurement of one cell. Raises ``LookupError`` if the record does not have it."""
        name = getattr(program, "__name__", repr(program))
        for m in self.measurements:
            if (m.program, m.workload, m.training) == (name, w, training):
                return m
        raise LookupError(
            f"the record made on {self.provenance.device} has no run of {name} with {w}, "
            f"training={training}; run it on a machine with a GPU, or take a cell of records.grid()"
        )

    def save(self, path: Path) -> None:
        """Write the record as JSON."""
        content = asdict(self)
        for m in content["measurements"]:
            del m["provenance"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1, default=_dtype_name) + "\n")


def make_record(cells: Iterable[Cell], device: str | torch.device | None = None) -> Record:
    """Measure ``cells`` on ``device``. A cell that fails is noted, and the others go on."""
    origin = provenance(device)
    measurements, failures = [], []
    for program, w, training in cells:
        try:
            measurements.append(measure(program, w, training, device))
        except Exception:
            failures.append(traceback.format_exc())
    return Record(
        digest=code_digest(),
        provenance=origin,
        measurements=tuple(measurements),
        failures=tuple(failures),
    )


@cache
def load(path: Path = SHIPPED) -> Record:
    """Read a record that :meth:`Record.save` wrote. Raises ``ValueError`` for any other file."""
    try:
        content = json.loads(path.read_text())
        origin = Provenance(**content["provenance"])
        return Record(
            digest=content["digest"],
            provenance=origin,
            measurements=tuple(
                Measurement(**m | {"workload": Workload(**m["workload"]), "provenance": origin})
                for m in content["measurements"]
            ),
            failures=tuple(content["failures"]),
        )
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is not a record that this version reads; make it again with nox -s measure"
        ) from error


def measured(program: Program, w: Workload, training: bool = False) -> Measurement:
    """The memory of a run on a GPU: measured now if this machine has one, else as recorded.

    Raises ``LookupError`` where there is no GPU and the shipped record lacks the cell.
    """
    if torch.cuda.is_available():
        return measure(program, w, training, device="cuda")
    return load().find(program, w, training)


def origin() -> str:
    """A line for captions: whether :func:`measured` measures or looks up, where, and when."""
    if torch.cuda.is_available():
        return f"measured live on {provenance('cuda')}"
    made_by = " by an older version of this code" if load().stale else ""
    return f"recorded{made_by} on {load().provenance}"


def code_digest() -> str:
    """A digest of the code that measures."""
    digest = hashlib.sha256()
    for name in MEASURING_CODE:
        digest.update((PACKAGE / name).read_bytes())
    return digest.hexdigest()[:16]


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
