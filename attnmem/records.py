"""Measured runs that ship with the book, each with its provenance."""

import ast
import gc
import hashlib
import json
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch

from attnmem.attention import PROGRAMS, Program
from attnmem.counters import Traffic, count_traffic
from attnmem.grid import Cell
from attnmem.measure import Measurement, measure, timeline
from attnmem.provenance import Provenance, find_device, provenance
from attnmem.speed import Ceilings, Time, TimedStep, ceilings, time_program, time_steps
from attnmem.workload import Workload, dtype_name

PACKAGE = Path(__file__).parent

# What a recorded number depends on. A record made by other versions of these files is stale.
MEASURING_CODE = ("workload.py", "attention.py", "measure.py", "speed.py", "counters.py")

RECORDS = tuple(sorted((PACKAGE / "data").glob("*.json")))

# The record that stands in for a GPU on a machine that has none.
SHIPPED = PACKAGE / "data" / "nvidia-h100-80gb-hbm3.json"


S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TimedRun:
    """The steps of one run of a program, timed, and how long its forward pass takes as a whole.

    ``whole`` is ``None`` for training.

    Used in :doc:`/roofline`.
    """

    program: str
    workload: Workload
    training: bool
    steps: tuple[TimedStep, ...]
    whole: Time | None


@dataclass(frozen=True, kw_only=True)
class Record:
    """Measurements made on one device by one version of the measuring code.

    ``digest`` identifies that version. ``failures`` holds the traceback of each cell that raised.
    ``ceilings`` is ``None``, and ``runs`` empty, in a record of memory alone.

    Used in :ref:`measurement-gpu` and :doc:`/status`.
    """

    digest: str
    provenance: Provenance
    measurements: tuple[Measurement, ...]
    failures: tuple[str, ...]
    ceilings: Ceilings | None = None
    runs: tuple[TimedRun, ...] = ()

    @property
    def stale(self) -> bool:
        """Whether the record was made by other code than the code that reads it."""
        return self.digest != code_digest()

    def find(
        self, program: Program, w: Workload, training: bool = False, warm_up: bool = True
    ) -> Measurement:
        """The measurement of one cell. Raises ``LookupError`` if the record does not have it."""
        name = getattr(program, "__name__", repr(program))
        for m in self.measurements:
            if (m.program, m.workload, m.training, m.warm_up) == (name, w, training, warm_up):
                return m
        raise LookupError(
            f"the record made on {self.provenance.device} has no run of {name} with {w}, "
            f"training={training}, warm_up={warm_up}; run it on a machine with a GPU, or take a "
            "cell of attnmem.grid"
        )

    def run(self, program: Program, w: Workload, training: bool = False) -> TimedRun:
        """The timed run of one cell. Raises ``LookupError`` if the record does not have it."""
        for found in self.runs:
            if (found.program, found.workload, found.training) == (program.__name__, w, training):
                return found
        raise LookupError(
            f"the record made on {self.provenance.device} has no timed run of {program.__name__} "
            f"with {w}, training={training}; take a cell of attnmem.grid"
        )

    def save(self, path: Path) -> None:
        """Write the record as JSON."""
        content = asdict(self)
        runs = content.pop("runs")
        cells = content.pop("measurements")
        for cell in cells:
            del cell["provenance"]
            cell["timeline"] = [event["bytes"] for event in cell["timeline"]]
        text = json.dumps(content, indent=1).removesuffix("\n}")
        for name, rows in (("measurements", cells), ("runs", runs)):  # a cell a line
            lines = ",\n".join(json.dumps(row, default=dtype_name) for row in rows)
            text += f',\n "{name}": [\n{lines}\n]'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n}\n")


def make_record(
    cells: Iterable[Cell],
    device: str | torch.device | None = None,
    *,
    timed: Iterable[Cell] = (),
) -> Record:
    """Measure the memory of ``cells`` and the speed of ``timed`` on ``device``.

    What fails is noted, and the rest goes on. On a CUDA device it also counts the traffic of what
    is timed, or warns that it can't. Raises ``ValueError`` for a device that is not on this
    machine.

    Used in :doc:`/status`.
    """
    device = find_device(device)
    failures: list[str] = []

    def each(things: Iterable[S], act: Callable[[S], T]) -> tuple[T, ...]:
        results = []
        for thing in things:
            gc.freeze()  # each cell collects garbage several times: it need not look at all of this
            try:
                results.append(act(thing))
            except torch.OutOfMemoryError:  # measure answers that; speed has nothing to say
                torch.cuda.empty_cache()
            except Exception:
                failures.append(traceback.format_exc())
        return tuple(results)

    def memory(cell: Cell) -> Measurement:
        program, w, training, warm_up = cell
        return measure(program, w, training, device, warm_up=warm_up)

    def speed(cell: Cell) -> TimedRun:
        program, w, training, _ = cell
        return TimedRun(
            program=program.__name__,
            workload=w,
            training=training,
            steps=time_steps(program, w, training, device),
            whole=None if training else time_program(program, w, device),
        )

    measurements, runs = each(cells, memory), each(timed, speed)
    roofs = each([device] if runs else [], ceilings)
    return Record(
        digest=code_digest(),
        provenance=provenance(device),
        measurements=measurements,
        failures=tuple(failures),
        ceilings=roofs[0] if roofs else None,
        runs=_with_traffic(runs) if device.type == "cuda" else runs,
    )


def _with_traffic(runs: Sequence[TimedRun]) -> tuple[TimedRun, ...]:
    """The runs with what the GPU's counters saw; as they are, with a warning, if nothing did."""
    programs = {program.__name__: program for program in PROGRAMS}
    try:
        counted = count_traffic((programs[r.program], r.workload, r.training) for r in runs)
    except Exception as error:  # the times stand, whatever happens to the counters
        warnings.warn(f"bytes of the GPU's memory are not counted: {error}", stacklevel=2)
        return tuple(runs)
    return tuple(
        replace(
            run,
            steps=run.steps[: -len(found)] + tuple(map(_counted, run.steps[-len(found) :], found)),
        )
        for run, found in zip(runs, counted, strict=True)
    )


def _counted(step: TimedStep, found: Traffic) -> TimedStep:
    return replace(
        step,
        read=found.read,
        written=found.written,
        received=found.received,
        kernels=tuple(found.kernels),
    )


@cache
def load(path: Path = SHIPPED) -> Record:
    """Read a record that :meth:`Record.save` wrote, by default the one that stands in for a GPU.

    Raises ``ValueError`` for a file of another form, and ``OSError`` for one that is not there.

    >>> from attnmem import Workload, standard_attention
    >>> w = Workload(batch=1, heads=12, seq_len=512, head_dim=64, dtype="float16")
    >>> load().find(standard_attention, w).peak_bytes
    15728640

    Used in :ref:`measurement-gpu`.
    """
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
                        "warm_up": m.get("warm_up", True),
                        "timeline": timeline(m.get("timeline", ())),
                        "segments": tuple(m.get("segments", ())),
                        "provenance": origin,
                    }
                )
                for m in content["measurements"]
            ),
            failures=tuple(content["failures"]),
            ceilings=_ceilings(content.get("ceilings")),
            runs=tuple(_timed_run(**run) for run in content.get("runs", ())),
        )
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is not a record that this version reads; make it again with nox -s measure"
        ) from error


def _ceilings(found: dict[str, Any] | None) -> Ceilings | None:
    if found is None:
        return None
    sizes = {int(size): rate for size, rate in found["bandwidth"].items()}
    return Ceilings(**found | {"bandwidth": sizes})


def _timed_run(workload: Any, steps: Any, whole: Any, **options: Any) -> TimedRun:
    timed = tuple(
        TimedStep(
            **step | {"time": Time(**step["time"]), "kernels": tuple(step.get("kernels", ()))}
        )
        for step in steps
    )
    total = Time(**whole) if whole else None
    return TimedRun(workload=Workload(**workload), steps=timed, whole=total, **options)


def measured(
    program: Program, w: Workload, training: bool = False, *, warm_up: bool = True
) -> Measurement:
    """The memory of a run on a GPU: measured now if this machine has one, else as recorded.

    It takes ``program``, ``w``, ``training`` and ``warm_up`` as :func:`attnmem.measure.measure`
    does. Raises ``LookupError`` where there is no GPU and the shipped record lacks the cell.

    Taught in :ref:`measurement-gpu`.
    """
    if torch.cuda.is_available():
        return measure(program, w, training, device="cuda", warm_up=warm_up)
    return load().find(program, w, training, warm_up)


def origin() -> str:
    """A line for captions: whether :func:`measured` measures or looks up, where, and when.

    Used in :ref:`measurement-gpu`.
    """
    if torch.cuda.is_available():
        return f"measured live on {provenance('cuda')}"
    made_by = " by an older version of this code" if load().stale else ""
    return f"recorded{made_by} on {load().provenance}"


def code_digest() -> str:
    """A digest of the code that measures, without what it says of itself.

    Docstrings, comments and empty lines do not change a number, and do not count.

    Used in :doc:`/status`.
    """
    digest = hashlib.sha256()
    for name in MEASURING_CODE:
        digest.update("\n".join(_code((PACKAGE / name).read_text())).encode())
    return digest.hexdigest()[:16]


def _code(text: str) -> list[str]:
    docstrings = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
        for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    lines = enumerate(text.splitlines(), start=1)
    code = (line.split("  # ")[0].rstrip() for number, line in lines if number not in docstrings)
    return [line for line in code if line and not line.lstrip().startswith("#")]
