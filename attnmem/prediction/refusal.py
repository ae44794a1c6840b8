"""The words of a refusal and of a warning, with the line of the program that is meant."""

import linecache
import sys
import warnings
from pathlib import Path

import torch

# Frames of these are not the program's.
NOT_THE_PROGRAM = (str(Path(torch.__file__).parent), str(Path(__file__).parent))

VALUES = "what it reads are values, and a prediction has shapes alone. Make the choice outside"


class CannotFollow(RuntimeError):  # noqa: N818 (it is raised to be read)
    """A program that can't be predicted: which line of it, why, and what to do."""


def refuse(why: str) -> CannotFollow:
    """The error to raise, with the line of the program that is running now."""
    file, line = _place()
    code = linecache.getline(file, line).strip()
    return CannotFollow(f"{why} ({file}, line {line}: {code})")


def warn(what: str) -> None:
    """Warn of what a prediction leaves out, at the line of the program that is running now."""
    file, line = _place()
    warnings.warn_explicit(what, UserWarning, file, line)


def _place() -> tuple[str, int]:
    frame = sys._getframe(2)
    while frame.f_back and frame.f_code.co_filename.startswith((*NOT_THE_PROGRAM, "<")):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno
