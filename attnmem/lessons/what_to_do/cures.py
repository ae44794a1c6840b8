"""Every cure before and after its change: predicted, recorded, and whether the two are equal."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch

from attnmem.cures import CURES, Cure, made
from attnmem.cures.compiled import Compiled
from attnmem.cures.peaks import PEAKS
from attnmem.lessons.table import Table
from attnmem.measurement import records
from attnmem.measurement.memory import Measurement
from attnmem.prediction.choice import assuming, kernel_for
from attnmem.prediction.trace import Trace, trace
from attnmem.workload import Workload

#: The software of the record, on which PyTorch's choice of kernels depends.
RECORDED_WITH = {"release": (2, 11), "cudnn": 91900}

#: The section of the page -> the cures that it tells.
SECTIONS = {
    "kernel": ("fused kernel",),
    "lost": (
        "dropout",
        "dimensions",
        "mask",
        "mask with a gradient",
        "groups in 16 bit",
        "groups in 32 bit",
        "odd head dimension",
    ),
    "names": ("names", "chunks", "returned weights"),
    "copies": ("split heads", "contiguous"),
    "autocast": ("autocast", "softmax in 32 bit"),
    "checkpoint": ("checkpoint", "blocks", "accumulation"),
    "compile": ("compile",),
    "loss": ("loss",),
}

#: What the page calls a run.
RUNS = {False: "inference", True: "training"}


class Found(NamedTuple):
    """One program on one workload: what was predicted, if anything was, and what recorded."""

    predicted: Trace | None
    recorded: Measurement

    @property
    def equal(self) -> bool:
        """Whether both have the same peak."""
        return bool(self.predicted) and self.difference == 0

    @property
    def difference(self) -> int:
        """Recorded minus predicted, in bytes; nothing where nothing was predicted."""
        peak = self.recorded.peak_bytes
        return peak - (self.predicted.peak_bytes if self.predicted else peak)


@cache
def record() -> records.Record:
    """The record of the cures, of memory and of time."""
    return records.load(records.CURES_RECORD)


@cache
def found(version: Callable[..., Any], w: Workload, training: bool) -> Found:
    """The prediction for a program with the software of the record, and its recorded run."""
    with torch.device("meta"):
        program = made(version, w)
    recorded = record().measurement(program, w, training)
    if isinstance(program, Compiled):
        return Found(None, recorded)
    with assuming(**RECORDED_WITH):
        return Found(trace(program, w, training), recorded)


def shown(cure: Cure) -> list[Found]:
    """The versions of a cure on its first workload, in training if it is recorded so."""
    return [found(version, cure.workloads[0], cure.modes[-1]) for version in cure.versions]


def table_of_cures() -> Table:
    """All cures: the symptom, the change, and bytes before it and after the best of it."""
    rows = []
    for section, names in SECTIONS.items():
        for cure in map(CURES.__getitem__, names):
            before, *after = shown(cure)
            best = min(after, key=lambda run: run.recorded.peak_bytes)
            peaks = [run.recorded.peak_bytes / 1e6 for run in (before, best)]
            symptom = f"[{cure.symptom}](#what-to-do-{section})"
            rows.append((symptom, *peaks, cure.change, said(before, best)))
    columns = {"symptom": "", "before (MB)": ",.1f", "after (MB)": ",.1f"}
    return Table(columns | {"change": "", "predicted": ""}, rows)


def said(*runs: Found) -> str:
    """What predictions and records say of each other, in a word or two."""
    if not all(run.predicted for run in runs):
        return "before: equal" if runs[0].equal else "not"
    off = [run.difference for run in runs if not run.equal]
    return ", ".join(f"{bytes_off:+,} B" for bytes_off in off) or "equal"


def table_of(section: str, both: bool = False) -> Table:
    """The cures of a section: each program's peak, by hand, predicted and recorded.

    In training if it is recorded so, and with ``both`` in inference, too.
    """
    rows: dict[tuple[str, bool, Workload], tuple[Any, ...]] = {}
    for cure in (CURES[name] for name in SECTIONS[section]):
        w = cure.workloads[0]
        for version in cure.versions:
            for training in cure.modes if both else cure.modes[-1:]:
                run, name = found(version, w, training), version.__name__
                form = PEAKS.get(name, (None, None))[training]
                equal = said(run) if run.predicted else "not predicted"
                peak = run.recorded.peak_bytes / 1e6
                rows[name, training, w] = f"`{name}`", RUNS[training], peak, equal, form
    columns = {"program": "", "run": "", "peak (MB)": ",.1f", "predicted": "", "by hand": ""}
    return Table(columns, rows.values())


def _of(*, dtype: str = "float16", d: int = 64, groups: int = 1, **rest: Any) -> dict[str, Any]:
    """A call of the fused function, by what is special about it."""
    kind = getattr(torch, dtype)
    q = torch.empty(2, 8, 2048, d, dtype=kind, device="meta")
    k = torch.empty(2, 8 // groups, 2048, d, dtype=kind, device="meta")
    return {"query": q, "key": k, "value": k, "enable_gqa": groups > 1} | rest


def calls() -> dict[str, dict[str, Any]]:
    """Calls that readers make: in words -> the arguments."""
    boolean = torch.empty(2048, 2048, dtype=torch.bool, device="meta")
    joined = torch.empty(16, 2048, 64, dtype=torch.float16, device="meta")
    return {
        "16 bit": _of(),
        "32 bit": _of(dtype="float32"),
        "32 bit, grouped heads": _of(dtype="float32", groups=4),
        "64 bit": _of(dtype="float64"),
        "16 bit, grouped heads": _of(groups=4),
        "a mask": _of(attn_mask=boolean),
        "a mask, $d = 60$": _of(d=60, attn_mask=boolean),
        "$d = 60$": _of(d=60),
        "$d = 320$": _of(d=320),
        "$d = 320$, grouped heads": _of(d=320, groups=4),
        "dropout": _of(dropout_p=0.1),
        "3 dimensions": {"query": joined, "key": joined, "value": joined},
    }


def kernels_of(call: dict[str, Any]) -> tuple[str, str]:
    """The kernel that training gets on an H200, and on an A100."""
    with assuming(**RECORDED_WITH):
        return (
            kernel_for(**call, training=True).kernel or "none",
            kernel_for(**call, training=True, capability=(8, 0)).kernel or "none",
        )


def table_of_kernels() -> Table:
    """Which kernel calls get."""
    rows = ((words.replace("$", "`"), *kernels_of(call)) for words, call in calls().items())
    return Table({"the call has": "", "H100, H200": "", "A100": ""}, rows)
