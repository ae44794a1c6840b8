"""The words of a refusal and of a warning, with the line of the program that is meant."""

import linecache
import re
import sys
import traceback
import warnings
from pathlib import Path

import torch

# Frames of these are not the program's.
NOT_THE_PROGRAM = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")

VALUES = "what it reads are values, and a prediction has shapes alone"

# What PyTorch says where it finds no data, or no GPU -> what that means here.
MEANINGS = {
    "expected device cpu but got meta": (
        "a gradient goes to a tensor that has data. Make it, or its module, with "
        "`with torch.device('meta'):`, before it is traced"
    ),
    r"Sparse|[Ss]parse (tensor|COO|CSR)": (
        "sparse tensors can't be predicted: how much memory they take is in their values"
    ),
    r"\bmeta\b|\bMeta ": "PyTorch has no answer without data",
    r"out CUDA|CUDA (enabled|support)|ATen_cuda|for cuda devices|dummy base class|_cuda_": (
        "this asks the GPU itself, and a prediction has none. Ask outside"
    ),
}

RAISED: list["CannotFollow"] = []  # in this trace, whether or not the program caught them
SUSPECTS: list["CannotFollow"] = []  # what is meant if autograd finds gradients in another place


class CannotFollow(RuntimeError):  # noqa: N818 (it is raised to be read)
    """A program that can't be predicted: which line of it, why, and what to do."""


def refuse(why: str) -> CannotFollow:
    """The error to raise, with the line of the program that is running now."""
    RAISED.append(_at(why, *_place()))
    return RAISED[-1]


def refuse_reading(what: str) -> CannotFollow:
    """The error to raise where ``what`` reads values: for the program, or inside of PyTorch."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith(NOT_THE_PROGRAM[1:]):
        frame = frame.f_back
    if frame.f_code.co_filename.startswith(NOT_THE_PROGRAM[0]):
        name = f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"
        what, advice = f"{what} in PyTorch's {name}", "Take another way than this call"
    else:
        advice = "Make the choice outside"
    RAISED.append(_at(f"{what}: {VALUES}. {advice}", *_place()))
    return RAISED[-1]


def suspect(why: str) -> None:
    """Note the line that runs now, for the case that the backward pass fails because of it."""
    SUSPECTS.append(_at(why, *_place()))


def settle(error: BaseException | None) -> None:
    """At the end of a trace, raise what was refused in it, if anything was.

    Also what the program caught: behind its ``except`` it went on as it would not with data.
    ``error`` is what ended the program. If it says that there is no data, or no GPU, it is raised
    as a refusal.
    """
    refused, RAISED[:] = RAISED[:1], []
    suspects, SUSPECTS[:] = SUSPECTS[:1], []
    if isinstance(error, CannotFollow) or not isinstance(error, Exception | None):
        return
    if refused:
        raise refused[0].with_traceback(None) from None
    if error:
        said = str(error).partition("\n")[0]
        if suspects and "invalid gradient" in said:
            raise suspects[0] from error
        for pattern, meaning in MEANINGS.items():
            if re.search(pattern, said):
                raise _at(f"{meaning}: {said}", *_place_of(error)) from error


def warn(what: str) -> None:
    """Warn of what a prediction leaves out, at the line of the program that is running now."""
    warnings.warn_explicit(what, UserWarning, *_place())


def _at(why: str, file: str, line: int) -> CannotFollow:
    code = linecache.getline(file, line).strip()
    return CannotFollow(f"{why} ({file}, line {line}: {code})")


def _place() -> tuple[str, int]:
    frame = sys._getframe(2)
    while frame.f_back and frame.f_code.co_filename.startswith(NOT_THE_PROGRAM):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def _place_of(error: BaseException) -> tuple[str, int]:
    frames = traceback.walk_tb(error.__traceback__)
    places = [(frame.f_code.co_filename, line) for frame, line in frames]
    of_the_program = [place for place in places if not place[0].startswith(NOT_THE_PROGRAM)]
    return (of_the_program or places or [_place()])[-1]
