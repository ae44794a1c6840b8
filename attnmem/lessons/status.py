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
    versions = {
        "device": here.device,
        "driver": here.driver or "none",
        "Python": here.python,
        **{name: importlib.metadata.version(name) for name in DISTRIBUTIONS},
        "system": platform.system(),
    }
    return Table([{"what": what, "version": version} for what, version in versions.items()])


def table_of_records() -> Table:
    """The records of the package, that which stands in for a GPU first."""
    paths = sorted(records.RECORDS, key=lambda path: path != records.SHIPPED)
    return Table(
        [
            {
                "device": record.provenance.device,
                "date": record.provenance.date,
                "driver": record.provenance.driver,
                "torch": record.provenance.torch,
                "runs": len(record.measurements),
                "timed runs": len(record.runs),
                "made by": "older code" if record.stale else "current code",
            }
            for record in map(records.load, paths)
        ]
    )
