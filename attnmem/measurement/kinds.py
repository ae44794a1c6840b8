"""The kinds of records that a GPU can make: what ``attnmem measure`` takes by name."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from attnmem.corpus.steps import calls, recipes
from attnmem.measurement import decode, operations, passes_grid
from attnmem.measurement.calls import as_calls, record_calls
from attnmem.measurement.cures import save_fragmentation, with_times
from attnmem.measurement.grid import corpus_grid, cures_grid, grid, modules_grid, speed_grid
from attnmem.measurement.ranks import grid as grid_of_ranks
from attnmem.measurement.ranks import record as record_ranks
from attnmem.measurement.records import make_record

# Hands things on one by one, and shows under a name how far it is.
Show = Callable[[Iterable[Any], str], Iterable[Any]]


class Kind(NamedTuple):
    """A kind of record: how it is made, and the file that it is written to by default.

    ``make`` measures on a device, writes the file, and returns a text for each thing that failed.
    ``file`` has ``{}`` in the place of the device's name; the folder is that of the shipped record.
    ``cuda``: whether it is nothing for a CPU.
    """

    make: Callable[[torch.device, Path, Show], Sequence[str]]
    file: str
    cuda: bool = False


def _book(device: torch.device, output: Path, show: Show) -> Sequence[str]:
    record = make_record(show(grid(), "Memory"), device, timed=show(speed_grid(), "Speed"))
    record.save(output)
    return record.failures


def _corpus(device: torch.device, output: Path, show: Show) -> Sequence[str]:
    record = make_record(show(corpus_grid(device), "Memory"), device)
    record.save(output)
    return record.failures


def _modules(device: torch.device, output: Path, show: Show) -> Sequence[str]:
    record = record_calls(as_calls(show(modules_grid(device), "Modules"), device), device)
    record.save(output)
    return record.failures


def _cures(device: torch.device, output: Path, show: Show) -> Sequence[str]:
    record = make_record(show(cures_grid(device), "Memory"), device)
    record.save(output)  # what comes next compiles, for minutes
    record = with_times(record, device)
    record.save(output)
    save_fragmentation(output.with_name(f"fragmentation-{output.name}"), device)
    return record.failures


def _tiles(device: torch.device, output: Path, show: Show) -> Sequence[str]:
    with torch.cuda.device(device):
        return passes_grid.main(output)


def _decode(device: torch.device, output: Path, show: Show) -> Sequence[str]:
    failures: list[str] = decode.record(output, show(decode.grid(), "Tokens"), device)["failures"]
    return failures


def _steps(device: torch.device, output: Path, show: Show) -> Sequence[str]:
    # Of the recipes, not of the calls: a model must go before the next is made.
    chosen = show(list(recipes()), "Steps")
    record = record_calls(calls(chosen, device), device)
    record.save(output)
    return record.failures


def _operations(device: torch.device, output: Path, show: Show) -> Sequence[str]:
    found = operations.try_operations(device, show(operations.samples(), "Operations"))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(operations.as_text(found, device), encoding="utf-8")
    return []


#: Each kind, by its name: the book's grid, programs after public projects, of these the modules
#: with what the allocator held before, training steps of models, the cures of What to do, attention
#: in tiles beside its like, one token at a time; and PyTorch's own samples of each operation.
KINDS = {
    "book": Kind(_book, "{}.json"),
    "corpus": Kind(_corpus, "corpus/{}.json.gz"),
    "modules": Kind(_modules, "corpus/modules-{}.json.gz", cuda=True),
    "steps": Kind(_steps, "steps/{}.json.gz", cuda=True),
    "cures": Kind(_cures, "cures/{}.json", cuda=True),
    "tiles": Kind(_tiles, "tiles/{}.json", cuda=True),
    "decode": Kind(_decode, "decode/{}.json", cuda=True),
    "operations": Kind(_operations, "operations/{}.txt"),
}


def kind_of_record(name: str, device: torch.device) -> Kind:
    """The kind of that name. Raises ``ValueError`` for another name, or a device not for it.

    >>> kind_of_record("corpus", torch.device("cpu")).file
    'corpus/{}.json.gz'
    """
    if name not in KINDS:
        raise ValueError(f"what to measure must be one of {', '.join(KINDS)}; got {name!r}")
    if KINDS[name].cuda and device.type != "cuda":
        raise ValueError(f"device must be a CUDA device to measure {name}, got {str(device)!r}")
    return KINDS[name]


def split_over(ranks: int, device: torch.device) -> Kind:
    """The kind of attention that is split over so many GPUs, a process each.

    Raises ``ValueError`` where this machine has fewer.
    """
    if device.type != "cuda" or torch.cuda.device_count() < ranks:
        raise ValueError(
            f"ranks must be at most the GPUs of this machine, {torch.cuda.device_count()}; "
            f"got {ranks}"
        )

    def make(device: torch.device, output: Path, show: Show) -> Sequence[str]:
        return record_ranks(output, list(show(grid_of_ranks(ranks), "Ranks")), ranks)

    return Kind(make, "ranks/{}.json.gz", cuda=True)
