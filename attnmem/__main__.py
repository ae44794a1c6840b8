"""The package from a shell: ``attnmem --help``, or ``python -m attnmem --help``."""

import importlib
import json
import warnings
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from attnmem.comparison.choices import peaks
from attnmem.measurement.device import provenance, resolve_device
from attnmem.measurement.kinds import KINDS, kind_of_record
from attnmem.prediction.choice import which_kernel
from attnmem.prediction.formula import Formula
from attnmem.prediction.trace import max_seq_len, trace
from attnmem.programs import Program, standard_attention
from attnmem.workload import Workload

app = typer.Typer(
    help="Predict and measure the memory of attention.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(stderr=True)

Batch = Annotated[int, typer.Option(min=1, help="Sequences.")]
Heads = Annotated[int, typer.Option(min=1, help="Heads.")]
HeadDim = Annotated[int, typer.Option(min=1, help="Head dimension d.")]
Dtype = Annotated[str, typer.Option(help="float16, bfloat16, float32, …")]
Training = Annotated[bool, typer.Option("--training", help="Forward and backward.")]
Device = Annotated[str, typer.Option(help="Whose kernels to predict: cuda or cpu.")]
ProgramName = Annotated[
    str,
    typer.Option("--program", help="A function of attnmem.programs, or module:function."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def peak(
    seq_len: Annotated[int, typer.Option(min=1, help="Sequence length N.")],
    batch: Batch = 1,
    heads: Heads = 12,
    head_dim: HeadDim = 64,
    dtype: Dtype = "float16",
    training: Training = False,
    device: Device = "cuda",
    program: ProgramName = standard_attention.__name__,
    formula: Annotated[bool, typer.Option("--formula", help="The peak in closed form.")] = False,
    as_json: Json = False,
) -> None:
    """Predict the peak of memory, and show what is alive then. Needs no GPU."""
    w = _checked(
        Workload, batch=batch, heads=heads, seq_len=seq_len, head_dim=head_dim, dtype=dtype
    )
    t = _checked(trace, _program(program), w, training, device)
    totals = {
        "peak_bytes": t.peak_bytes,
        "peak_allocated_bytes": t.peak_allocated_bytes,
        "peak_reserved_bytes": t.peak_reserved_bytes,
        "saved_bytes": t.saved_bytes,
        "workspace_bytes": t.workspace_bytes(),
    }
    if as_json:
        closed = {"formula": str(t.formula)} if formula else {}
        print(json.dumps(totals | {"at_peak": t.at_peak} | closed, ensure_ascii=False))
        return
    table = Table("alive at the peak", show_footer=True)
    table.columns[0].footer = "peak"
    table.add_column("bytes", f"{t.peak_bytes:,}", justify="right")
    for label, size in t.at_peak.items():
        table.add_row(label, f"{size:,}")
    Console().print(table)
    for name, size in totals.items():
        print(f"{name:20} {size:>20,}")
    if formula:
        _print_formula(t.formula)


def _print_formula(formula: Formula) -> None:
    """The sum, the tensors in each of its terms, and where it ends along N."""
    table = Table("peak", str(formula))
    for term, labels in formula.terms.items():
        table.add_row(term, ", ".join(labels))
    Console().print(table)
    if formula.where:
        print(f"where {formula.where}")
    if formula:
        print(f"traced at {formula.proven} other sizes, and the same")
    for first, last, piece in formula.along_n:
        where = f", where {piece.where}" if piece.where else ""
        print(f"N from {first:,} to {last:,}: {piece}{where}")


@app.command("max-seq-len")
def max_seq_len_command(
    memory: Annotated[str, typer.Option(help="Bytes, or with a unit: 80GB, 79.2GiB.")],
    batch: Batch = 1,
    heads: Heads = 12,
    head_dim: HeadDim = 64,
    dtype: Dtype = "float16",
    training: Training = False,
    device: Device = "cuda",
    program: ProgramName = standard_attention.__name__,
    as_json: Json = False,
) -> None:
    """Predict the longest sequence whose run fits into the memory. Needs no GPU."""
    w = _checked(Workload, batch=batch, heads=heads, seq_len=1, head_dim=head_dim, dtype=dtype)
    size = _memory_bytes(memory)
    n = _checked(max_seq_len, _program(program), w, size, training, device)
    print(json.dumps({"max_seq_len": n, "memory_bytes": size}) if as_json else n)


@app.command()
def kernels(
    seq_len: Annotated[int, typer.Option(min=1, help="Sequence length N.")],
    batch: Batch = 1,
    heads: Heads = 12,
    head_dim: HeadDim = 64,
    dtype: Dtype = "float16",
    training: Training = False,
    device: Literal["cuda", "cpu"] = "cuda",
    kv_heads: Annotated[int | None, typer.Option(min=1, help="Heads of K and V.")] = None,
    value_dim: Annotated[int | None, typer.Option(min=1, help="Head dimension of V.")] = None,
    mask: Annotated[Literal["bool", "float"] | None, typer.Option(help="Its kind.")] = None,
    causal: Annotated[bool, typer.Option("--causal", help="is_causal=True.")] = False,
    dropout: Annotated[float, typer.Option(min=0, max=1, help="dropout_p.")] = 0.0,
    capability: Annotated[str, typer.Option(help="The GPU's, such as 8.0 for an A100.")] = "9.0",
    as_json: Json = False,
) -> None:
    """Which kernel scaled_dot_product_attention takes, why no other, and what each would cost."""
    w = _checked(
        Workload, batch=batch, heads=heads, seq_len=seq_len, head_dim=head_dim, dtype=dtype
    )
    options: dict[str, Any] = {
        "kv_heads": kv_heads,
        "value_dim": value_dim,
        "mask": mask,
        "causal": causal,
        "dropout": dropout,
        "training": training,
        "device": device,
        "capability": _capability(capability),
    }
    choice = which_kernel(w, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a choice that the user sees
        found = _checked(peaks, w, **options)
    if as_json:
        answer = {"kernel": choice.kernel, "reasons": choice.reasons, "peak_bytes": found}
        print(json.dumps(answer, ensure_ascii=False))
        return
    print(choice)
    for name, size in found.items():
        print(f"{name:20} {size:>20,}")


@app.command("measure")
def measure_command(
    what: Annotated[str, typer.Argument(metavar="|".join(KINDS), help="What to record.")] = "book",
    device: Annotated[str, typer.Option(help="The torch device, such as cuda or cuda:1.")] = "cuda",
    output: Annotated[
        Path | None,
        typer.Option(help="The file to write; by default one here, named after the device."),
    ] = None,
) -> None:
    """Measure on a GPU and record it, with its provenance, as JSON.

    By default the book's grid; or the corpus of programs after public projects, or training steps.
    """
    found = _checked(resolve_device, device)
    kind = _checked(kind_of_record, what, found)
    output = output or Path(kind.file.format(provenance(found).device.lower().replace(" ", "-")))
    failures = kind.make(found, output, partial(track, console=console))
    for failure in failures:
        console.print(failure, markup=False)
    console.print(f"{output}: {len(failures)} failed")
    raise typer.Exit(code=1 if failures else 0)


def _checked(function: Any, *args: Any, **options: Any) -> Any:
    """Answer a wrong value with usage: it is the reader's, not a defect."""
    try:
        return function(*args, **options)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _program(name: str) -> Program:
    module, _, function = name.rpartition(":")
    try:
        found = getattr(importlib.import_module(module or "attnmem.programs"), function)
    except (ImportError, AttributeError) as error:
        raise typer.BadParameter(f"no program {name!r}: {error}") from None
    if not callable(found):
        raise typer.BadParameter(f"{name!r} must be a function of q, k, v")
    return found  # type: ignore[no-any-return]


def _capability(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        raise typer.BadParameter(f"capability must be like 8.0, got {text!r}")
    return int(major), int(minor)


def _memory_bytes(text: str) -> int:
    units = {"": 1, "B": 1}
    for power, letter in enumerate("KMGT", start=1):
        units |= {f"{letter}B": 1000**power, f"{letter}IB": 1024**power}
    number = text.rstrip("KMGTIBkmgtib ")
    try:
        return int(float(number) * units[text[len(number) :].strip().upper()])
    except (KeyError, ValueError):
        raise typer.BadParameter(f"memory must be like 80GB or 79.2GiB, got {text!r}") from None


if __name__ == "__main__":
    app()
