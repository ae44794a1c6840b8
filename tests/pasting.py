"""The cells of notebooks as a reader runs them, where only the package is installed."""

import code
import functools
import gc
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import cpuinfo

# What only the build of the book has.
MISSING = ("myst_nb", "sphinx", "jupytext")

# Each notebook runs in a process of its own: a fork of one that has imported what takes seconds.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["torch", "torch._dynamo", "matplotlib.figure"])

machine = functools.cache(cpuinfo.get_cpu_info)  # a process of its own finds out, in a second


class Session(code.InteractiveInterpreter):
    """One that ends with the first cell that fails."""

    def showtraceback(self) -> None:
        """Say what failed."""
        sys.exit(f"a cell failed: {sys.exc_info()[1]!r}")


def paste(sessions: list[list[str]], folder: Path) -> str:
    """Run the cells of some sessions, which must not complain; what they print."""
    process = PROCESSES.Process(target=_run, args=(sessions, folder, machine()))
    process.start()
    process.join()
    printed, complaints = ((folder / name).read_text() for name in ("stdout", "stderr"))
    assert process.exitcode == 0, complaints
    assert complaints == ""
    return printed


def _run(sessions: list[list[str]], folder: Path, here: dict[str, Any]) -> None:
    """A session after the other; in each a cell after the other, as if pasted, without echo."""
    os.chdir(folder)
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), stream)
    sys.modules |= dict.fromkeys(MISSING)
    cpuinfo.get_cpu_info = lambda: here
    gc.freeze()  # else each measurement looks through all that is imported
    for cells in sessions:
        session = Session({"__name__": "__main__"})
        for cell in cells:
            assert session.runsource(cell, symbol="exec") is False, cell
