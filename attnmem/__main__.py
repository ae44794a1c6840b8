"""The package from a shell: ``python -m attnmem --help``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from attnmem.measure import find_device, provenance
from attnmem.records import PACKAGE, grid, make_record

app = typer.Typer(
    help="Predict and measure the memory of attention.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(stderr=True)


@app.callback()
def main() -> None:
    """Predict and measure the memory of attention."""


@app.command("measure")
def measure_command(
    device: Annotated[
        str | None, typer.Option(help="The torch device, such as cuda or cuda:1.")
    ] = "cuda",
    output: Annotated[
        Path | None,
        typer.Option(help="The JSON file to write; by default one named after the device."),
    ] = None,
) -> None:
    """Measure the book's grid on a GPU and record it, with its provenance, as JSON."""
    try:
        found = find_device(device)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--device") from None
    name = provenance(found).device.lower().replace(" ", "-")
    output = output or PACKAGE / "data" / f"{name}.json"
    record = make_record(track(grid(), description="Measuring", console=console), found)
    record.save(output)
    for failure in record.failures:
        console.print(failure, markup=False)
    console.print(
        f"{output}: {len(record.measurements)} cells measured, {len(record.failures)} failed"
    )
    raise typer.Exit(code=1 if record.failures else 0)


app()
