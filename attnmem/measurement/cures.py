"""What a record of the cures has besides memory: times, and what lengths that change reserve."""

import json
import traceback
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from attnmem.cures import made
from attnmem.cures.compiled import timed
from attnmem.cures.fragmentation import record as record_fragmentation
from attnmem.measurement.device import provenance
from attnmem.measurement.records import Record, TimedRun
from attnmem.measurement.timing import time_program


def with_times(record: Record, device: torch.device) -> Record:
    """The record with the times of what is compiled or graphed, and of what it is compared with.

    A run has no steps: they are timed as a whole. What fails is noted.
    """
    runs, failures = [], []
    for version, w in timed():
        try:
            with torch.device(device):
                program = made(version, w)
            whole = time_program(program, w, device)
        except Exception:
            failures.append(traceback.format_exc())
            continue
        name = version.__name__
        runs.append(TimedRun(program=name, workload=w, training=False, steps=(), whole=whole))
    return replace(record, runs=tuple(runs), failures=record.failures + tuple(failures))


def save_fragmentation(path: Path, device: torch.device) -> None:
    """Record as JSON what training on lengths that change reserves, with its provenance."""
    found: dict[str, Any] = {"provenance": asdict(provenance(device))}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found | record_fragmentation()) + "\n")
