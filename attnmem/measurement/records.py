"""Recorded measurements: files of them, made on a real device by one version of the code."""

import ast
import gc
import gzip
import hashlib
import json
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from cattrs import Converter, ForbiddenExtraKeysError
from cattrs.gen import make_dict_unstructure_fn, override

from attnmem.measurement.device import Provenance, provenance, resolve_device
from attnmem.measurement.grid import Case
from attnmem.measurement.memory import MeasuredCall, Measurement, measure
from attnmem.measurement.timing import Time, TimedStep, ceilings, time_program, time_steps
from attnmem.measurement.traffic import Traffic, count_traffic
from attnmem.programs import PROGRAMS, Program
from attnmem.roofline import Ceilings
from attnmem.timeline import Event, events
from attnmem.workload import Workload, dtype_name

PACKAGE = Path(__file__).parents[1]
DATA = Path(__file__).with_name("data")

# What a recorded number depends on. A record made by other code than that of these files is stale.
MEASURING_CODE = (
    "workload.py",
    "timeline.py",
    "programs.py",
    "measurement/device.py",
    "measurement/memory.py",
    "measurement/timing.py",
    "measurement/traffic.py",
)

RECORDS = tuple(sorted(DATA.glob("*.json")))

# What the programs of the corpus needed on a GPU.
CORPUS_RECORD = DATA / "corpus" / "nvidia-h100-80gb-hbm3.json.gz"

# What each cure needed before and after its change, and what lengths that change reserved.
CURES_RECORD = DATA / "cures" / "nvidia-h200.json"
FRAGMENTATION = DATA / "cures" / "fragmentation-nvidia-h200.json"

# The record that stands in for a GPU on a machine that has none.
SHIPPED = DATA / "nvidia-h100-80gb-hbm3.json"


S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TimedRun:
    """The steps of one run of a program, timed, and how long its forward pass takes as a whole.

    ``whole`` is ``None`` for training.
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

    def measurement(
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
            "cell of attnmem.measurement.grid"
        )

    def timed(self, program: Program, w: Workload, training: bool = False) -> TimedRun:
        """The timed run of one cell. Raises ``LookupError`` if the record does not have it."""
        for found in self.runs:
            if (found.program, found.workload, found.training) == (program.__name__, w, training):
                return found
        raise LookupError(
            f"the record made on {self.provenance.device} has no timed run of {program.__name__} "
            f"with {w}, training={training}; take a cell of attnmem.measurement.grid"
        )

    def save(self, path: Path) -> None:
        """Write the record as JSON, a run a line."""
        content = JSON.unstructure(self)
        tables = {name: content.pop(name) for name in ("measurements", "runs")}
        text = json.dumps(content, indent=1).removesuffix("\n}")
        for name, rows in tables.items():
            text += f',\n "{name}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]"
        path.parent.mkdir(parents=True, exist_ok=True)
        written = (text + "\n}\n").encode()
        path.write_bytes(gzip.compress(written) if path.suffix == ".gz" else written)


def _events(sizes: list[int], _: Any) -> tuple[Event, ...]:
    return events(sizes)


JSON = Converter(detailed_validation=False, forbid_extra_keys=True)
JSON.register_unstructure_hook(torch.dtype, dtype_name)
JSON.register_structure_hook(torch.dtype, lambda name, _: getattr(torch, name))
JSON.register_structure_hook_func(lambda kind: kind == tuple[Event, ...], _events)
for _kind in (MeasuredCall, Measurement):
    JSON.register_unstructure_hook(
        _kind,
        make_dict_unstructure_fn(
            _kind,
            JSON,
            timeline=override(unstruct_hook=lambda timeline: [event.bytes for event in timeline]),
            parameter_bytes=override(omit_if_default=True),  # as in older records
            provenance=override(omit=True),  # that of the record
        ),
    )


def write(record: Any, path: Path) -> None:
    """Write a record as compressed JSON, the same bytes each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(JSON.unstructure(record)).encode(), mtime=0))


def read(path: Path) -> Any:
    """What :func:`write` has written, as JSON. Raises ``OSError`` if it is not there."""
    return json.loads(gzip.decompress(path.read_bytes()))


def make_record(
    cells: Iterable[Case],
    device: str | torch.device | None = None,
    *,
    timed: Iterable[Case] = (),
) -> Record:
    """Measure the memory of ``cells`` and the speed of ``timed`` on ``device``.

    What fails is noted, and the rest goes on. On a CUDA device it also counts the traffic of what
    is timed, or warns that it can't. Raises ``ValueError`` for a device that is not on this
    machine.
    """
    device = resolve_device(device)
    failures: list[str] = []

    def each(things: Iterable[S], act: Callable[[S], T]) -> tuple[T, ...]:
        results = []
        for thing in things:
            gc.freeze()  # each run collects garbage several times: it need not look at all of this
            try:
                results.append(act(thing))
            except torch.OutOfMemoryError:  # measure answers that; speed has nothing to say
                torch.cuda.empty_cache()
            except Exception:
                failures.append(traceback.format_exc())
        return tuple(results)

    def memory(cell: Case) -> Measurement:
        program, w, training, warm_up = cell
        return measure(program, w, training, device, warm_up=warm_up)

    def speed(cell: Case) -> TimedRun:
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
    >>> load().measurement(standard_attention, w).peak_bytes
    15728640
    """
    try:
        read = path.read_bytes()
        content = json.loads(gzip.decompress(read) if path.suffix == ".gz" else read)
        for measurement in content["measurements"]:
            measurement["provenance"] = content["provenance"]
        return JSON.structure(content, Record)
    except (EOFError, LookupError, TypeError, ValueError, ForbiddenExtraKeysError) as error:
        raise ValueError(
            f"{path} is not a record that this version reads; make it again with nox -s measure"
        ) from error


def measured(
    program: Program, w: Workload, training: bool = False, *, warm_up: bool = True
) -> Measurement:
    """The memory of a run on a GPU: measured now if this machine has one, else as recorded.

    It takes what :func:`attnmem.measurement.memory.measure` takes, but for the device. Raises
    ``LookupError`` where there is no GPU and the shipped record lacks the run.
    """
    if torch.cuda.is_available():
        return measure(program, w, training, device="cuda", warm_up=warm_up)
    return load().measurement(program, w, training, warm_up)


def origin() -> str:
    """A line for captions: whether :func:`measured` measures or looks up, where, and when."""
    if torch.cuda.is_available():
        return f"measured live on {provenance('cuda')}"
    made_by = " by an older version of this code" if load().stale else ""
    return f"recorded{made_by} on {load().provenance}"


def code_digest(folder: Path = PACKAGE) -> str:
    """A digest of the code in ``folder`` that measures: of what is executed, wherever it stands.

    Docstrings, comments and imports do not change a number, and do not count; nor does the order
    of definitions, or the file among :data:`MEASURING_CODE` that each is in.
    """
    code = sorted(
        repr(_executed(node))
        for name in MEASURING_CODE
        for node in ast.parse((folder / name).read_text()).body
        if not isinstance(node, ast.Import | ast.ImportFrom) and not _is_said(node)
    )
    return hashlib.sha256("\n".join(code).encode()).hexdigest()[:16]


def _executed(node: Any) -> Any:
    """A syntax tree as nested lists, without strings that are statements, and what is not there.

    Fields that one version of Python has and another lacks are empty where they do not matter.
    """
    if isinstance(node, list):
        return [_executed(part) for part in node if not _is_said(part)]
    if not isinstance(node, ast.AST):
        return node
    fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
    return [type(node).__name__, *((name, _executed(value)) for name, value in fields)]


def _is_said(node: Any) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)
