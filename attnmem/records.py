"""Measured runs that ship with the book, each with its provenance."""

import hashlib
import json
import traceback
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import torch

from attnmem.attention import (
    PROGRAMS,
    Program,
    cudnn_sdpa,
    efficient_sdpa,
    flash_sdpa,
    standard_attention,
)
from attnmem.measure import Measurement, measure, timeline
from attnmem.provenance import Provenance, provenance
from attnmem.workload import Workload

PACKAGE = Path(__file__).parent

# What a recorded number depends on. A record made by other versions of these files is stale.
MEASURING_CODE = ("workload.py", "attention.py", "measure.py")

RECORDS = tuple(sorted((PACKAGE / "data").glob("*.json")))

# The record that stands in for a GPU on a machine that has none.
SHIPPED = PACKAGE / "data" / "nvidia-h100-80gb-hbm3.json"

Cell = tuple[Program, Workload, bool]  # a program, its workload, whether it is training


def grid() -> list[Cell]:
    """The cells of a record: standard attention up to where a GPU ends, and every program."""
    short = Workload(batch=1, heads=12, seq_len=512, head_dim=64, dtype=torch.float16)
    powers = [replace(short, seq_len=2**power) for power in range(9, 18)]
    shapes = [
        Workload(batch=b, heads=h, seq_len=n, head_dim=d, dtype=dtype)
        for b, h, n, d in SHAPES
        for dtype in (torch.float16, torch.bfloat16, torch.float32)
    ]
    return [
        (standard_attention, w, training)
        for training, workloads in ((False, powers), (True, powers[:7]))
        for w in workloads
    ] + [
        (program, w, training)
        for program in PROGRAMS
        for w in shapes
        for training in (False, True)
        if _exists(program, w) and not (program is standard_attention and w in powers)
    ]


# (batch, heads, seq_len, head_dim)
SHAPES = (
    (1, 1, 64, 32),
    (1, 3, 333, 33),
    (2, 8, 512, 128),
    (1, 12, 777, 64),
    (2, 7, 777, 40),
    (3, 5, 1000, 80),
    (4, 2, 2048, 96),
    (1, 12, 8192, 64),
)


def _exists(program: Program, w: Workload) -> bool:
    """Whether a fused kernel takes the dtype and the head dimension."""
    half = w.element_bytes == 2
    if program is efficient_sdpa:
        return w.head_dim % (8 if half else 4) == 0
    if program is cudnn_sdpa:
        return half and w.head_dim % 8 == 0
    return half or program is not flash_sdpa


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
        cells = content.pop("measurements")
        for cell in cells:
            del cell["provenance"]
            cell["timeline"] = [event["bytes"] for event in cell["timeline"]]
        lines = ",\n".join(json.dumps(cell, default=_dtype_name) for cell in cells)
        head = json.dumps(content, indent=1).removesuffix("\n}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{head},\n "measurements": [\n{lines}\n]}}\n')  # a cell a line


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
                Measurement(
                    **m
                    | {
                        "workload": Workload(**m["workload"]),
                        "timeline": timeline(m.get("timeline", ())),
                        "provenance": origin,
                    }
                )
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
