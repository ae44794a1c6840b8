"""Status: what built a copy of the book, and the records that ship with the package."""

import importlib.metadata
import platform

from attnmem.lessons.table import Table
from attnmem.measurement import records
from attnmem.measurement.device import provenance

DISTRIBUTIONS = ("attnmem", "torch", "matplotlib", "Sphinx", "myst-nb", "furo")


def table_of_versions() -> Table:
    """The device that builds this copy of the book, and the versions that it is built with."""
    here = provenance()
    return Table(
        {"what": "", "version": ""},
        (
            ("device", here.device),
            ("driver", here.driver or "none"),
            ("Python", here.python),
            *((name, importlib.metadata.version(name)) for name in DISTRIBUTIONS),
            ("system", platform.system()),
        ),
    )


def table_of_records() -> Table:
    """The records of the package, that which stands in for a GPU first."""
    rows = []
    for path in sorted(records.RECORDS, key=lambda path: path != records.SHIPPED):
        record = records.load(path)
        made_on, made_by = record.provenance, "older code" if record.stale else "current code"
        runs = len(record.measurements), len(record.runs)
        rows.append((made_on.device, made_on.date, made_on.driver, made_on.torch, *runs, made_by))
    names = ("device", "date", "driver", "torch", "runs", "timed runs", "made by")
    return Table(dict.fromkeys(names, ""), rows)
