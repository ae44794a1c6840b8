"""Status: the devices and versions behind a copy of the book, and the package's records."""

import importlib.metadata
import json
import platform
from collections.abc import Sequence
from typing import Any

from attnmem.catalog import recognise
from attnmem.lessons.shared import known
from attnmem.lessons.table import Table
from attnmem.measurement import decode_record, passes_record, records
from attnmem.measurement.calls import MODULES_RECORD, STEPS_RECORD, load_calls
from attnmem.measurement.device import Provenance, provenance
from attnmem.measurement.ranks import load_ranks

DISTRIBUTIONS = ("attnmem", "torch", "matplotlib", "Sphinx", "myst-nb", "furo")


def table_of_devices(devices: Sequence[Provenance]) -> Table:
    """What a measurement says about its device, a row a device."""
    rows = []
    for d in devices:
        versions = d.driver or "none", d.cuda or "none", d.torch, d.python
        rows.append((d.device, d.memory_bytes / 1e9, d.memory_bytes / 2**30, *versions, d.date))
    return Table(
        {"device": "", "memory (GB)": ".1f", "memory (GiB)": ".1f"}
        | dict.fromkeys(("driver", "CUDA", "torch", "Python", "date"), ""),
        rows,
    )


def table_of_versions() -> Table:
    """The device that builds this copy of the book, and the versions that it is built with."""
    here = provenance()
    return Table(
        {"what": "", "version": ""},
        (
            ("device", here.device),
            ("driver", here.driver or "none"),
            ("Python", here.python),
            *((name, _version(name)) for name in DISTRIBUTIONS),
            ("system", platform.system()),
        ),
    )


def _version(name: str) -> str:
    """That of a distribution; the cells of the book need fewer of them than its build."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "–"


def table_of_records() -> Table:
    """The records of the package, that which stands in for a GPU first."""
    book = sorted(records.RECORDS, key=lambda path: path != records.SHIPPED)
    whole = dict.fromkeys(book, "attention")
    whole |= {records.CORPUS_RECORD: "corpus", records.CURES_RECORD: "cures"}
    rows: list[tuple[Any, ...]] = []
    for path, what in whole.items():
        record = records.load(path)
        runs = len(record.measurements), len(record.runs) or None
        rows.append(_row(what, record.provenance, *runs, stale=record.stale))
    # Fragmentation is written in the run that makes the record of the cures.
    orders = json.loads(records.FRAGMENTATION.read_text())
    made_on = records.JSON.structure(orders.pop("provenance"), Provenance)
    runs_of_it = sum(map(len, orders.values()))
    stale = records.load(records.CURES_RECORD).stale
    rows.append(_row("fragmentation", made_on, runs_of_it, None, stale=stale))
    tiles, decode = passes_record.load(), decode_record.load()
    rows.append(_row("tiles", tiles.provenance, len(tiles.passes), None, stale=tiles.stale))
    rows.append(_row("decode", decode.provenance, len(decode.cells), None, stale=decode.stale))
    ranks = load_ranks()
    rows.append(_row("ranks", ranks.provenance, len(ranks.cells), None, stale=ranks.stale))
    for path, what in ((MODULES_RECORD, "modules"), (STEPS_RECORD, "steps")):
        calls = load_calls(path)
        old = calls.digest != records.code_digest()
        rows.append(_row(what, calls.provenance, len(calls.calls), None, stale=old))
    names = ("record", "device", "date", "driver", "torch", "runs", "timed runs", "made by")
    return Table(dict.fromkeys(names, ""), rows)


def _row(
    what: str, made_on: Provenance, runs: int, timed: int | None, *, stale: bool
) -> tuple[Any, ...]:
    """A record: what of, where and when it was made, how many runs are in it, by which code."""
    where = made_on.device, made_on.date, made_on.driver, made_on.torch
    return what, *where, runs, timed, "older code" if stale else "current code"


def numbers() -> dict[str, Any]:
    """What the text looks up: the GPU of the shipped record, and its memory."""
    gpu = records.load().provenance
    return {
        "origin": records.origin(),
        "gpu": gpu.device,
        "label": known(recognise(gpu.device)).memory_gib,
        "gpu_gb": gpu.memory_bytes / 1e9,
        "gpu_gib": gpu.memory_bytes / 2**30,
    }


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    found = numbers()
    return {"what the vendor counts are GiB, nearly": abs(found["gpu_gib"] - found["label"]) < 1}
