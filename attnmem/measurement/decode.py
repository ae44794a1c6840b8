"""Decode steps on a GPU: time of one token over caches of all lengths, and the call's memory.

As in a model, each layer has a cache of its own: a step is timed over so many layers that no cache
is in the L2 cache when its turn comes. Once as a CUDA graph, in which nothing waits for Python, and
once launched by Python, call by call.
"""

import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from attnmem.measurement.device import provenance
from attnmem.measurement.digest import digest
from attnmem.measurement.memory import measure, measure_call
from attnmem.measurement.timing import ceilings, time_of
from attnmem.programs import standard_attention
from attnmem.tiles.one_token import Decoder, decoder
from attnmem.workload import Workload, ceil_div, dtype_name

PACKAGE = Path(__file__).parents[1]

#: What a recorded number depends on. A record made by other code than that of these files is stale.
MEASURING_CODE = (
    *(f"{name}.py" for name in ("workload", "programs")),
    *(f"tiles/{name}.py" for name in ("decode", "one_token")),
    *(f"measurement/{name}.py" for name in ("device", "memory", "timing", "decode")),
)

EIGHT_BIT = torch.float8_e4m3fn

#: One token of 32 heads: heads of keys, as many as of queries, shared by 4, by all, and the latent
#: cache of DeepSeek-V2's attention (512 + 64 numbers, arXiv 2405.04434, section 2.1).
CACHES = {
    name: Workload(batch=1, heads=32, seq_len=1, dtype=torch.bfloat16, **sizes)
    for name, sizes in {
        "MHA": {"head_dim": 128, "kv_heads": 32},
        "GQA": {"head_dim": 128, "kv_heads": 8},
        "MQA": {"head_dim": 128, "kv_heads": 1},
        "latent": {"head_dim": 576, "kv_heads": 1, "value_dim": 512},
    }.items()
}

#: Tokens of a cache; of the shortest, nothing but the launches is left.
SHORTEST = 64
LENGTHS = tuple(2**power for power in range(10, 18))
FEW = (1024, 8192, 131072)

MOST_LAYERS = 256


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Which step: the cache (a key of :data:`CACHES`), its sizes, the program, its options.

    ``workload`` has the tokens as ``kv_len``, the users as ``batch``. ``splits``: of our kernel;
    ``None``: as many as it likes. ``eight_bit``: whether the cache is in ``float8_e4m3fn``.
    """

    cache: str
    workload: Workload
    program: str
    splits: int | None = None
    eight_bit: bool = False

    @property
    def cache_bytes(self) -> int:
        """The bytes of the cache of one layer: of K and V, or of the latent numbers alone."""
        w = self.workload
        own = w.k_bytes + (0 if self.cache == "latent" else w.v_bytes)
        return own // w.element_bytes if self.eight_bit else own

    def decoder(self) -> Decoder:
        """The program."""
        of_v = self.workload.value_dim if self.cache == "latent" else None
        return decoder(self.program, value_dim=of_v, splits=self.splits)

    def as_json(self) -> dict[str, Any]:
        """As a row of a record."""
        w = self.workload
        return asdict(self) | {"workload": asdict(w) | {"dtype": dtype_name(w.dtype)}}


def from_json(row: dict[str, Any]) -> Cell:
    """The cell that :meth:`Cell.as_json` wrote."""
    return Cell(**row | {"workload": Workload(**row["workload"])})


Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


def inputs(cell: Cell, device: torch.device | str) -> Inputs:
    """A random query and cache of one layer, which may be without data on the device ``meta``."""
    w = cell.workload
    q, k = (torch.randn(shape, dtype=w.dtype, device=device) for shape in w.shapes[:2])
    v = None
    if cell.cache != "latent":
        v = torch.randn(w.value_shape, dtype=w.dtype, device=device)
    if cell.eight_bit:
        k, v = k.to(EIGHT_BIT), None if v is None else v.to(EIGHT_BIT)
    return q, k, v


def grid() -> list[Cell]:
    """All cells of a record: those of one user first."""
    return [
        *_cells(1, (SHORTEST, *LENGTHS)),
        *_cells(8, (1024, 4096, 8192, 32768, 131072)),
        *_cells(32, (1024, 4096, 8192, 32768, 131072)),
    ]


def _cells(batch: int, lengths: Iterable[int]) -> Iterator[Cell]:
    for (name, w), m in itertools.product(CACHES.items(), lengths):
        cell = Cell(cache=name, workload=replace(w, batch=batch, kv_len=m), program="kernel")
        yield cell
        if batch < 32:
            yield replace(cell, splits=1)
        yield replace(cell, program="standard")
        if name != "latent":
            yield replace(cell, program="flash")
        if name == "GQA":
            yield replace(cell, eight_bit=True)
            yield replace(cell, eight_bit=True, program="cast")


def caches(cell: Cell, device: torch.device) -> list[Inputs]:
    """The inputs of so many layers that they are four times as large as the L2 cache, if few do."""
    layers = 2
    if device.type == "cuda":
        l2 = torch.cuda.get_device_properties(device).L2_cache_size
        layers = min(MOST_LAYERS, ceil_div(4 * l2, cell.cache_bytes))
    return [inputs(cell, device) for _ in range(layers)]


def step(cell: Cell, made: list[Inputs], device: torch.device) -> dict[str, Any]:
    """The time of one layer of a step: in a CUDA graph of all, and launched by Python."""
    program, each = cell.decoder(), itertools.cycle(made)

    def all_layers() -> None:
        for x in made:
            program(*x)

    with torch.no_grad():
        all_layers()  # Triton compiles, libraries take their workspaces
        eager = time_of(lambda: program(*next(each)), device, total=0.01)
        found = {"eager": asdict(eager), "layers": len(made)}
        if device.type == "cuda":
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                all_layers()
            whole = asdict(time_of(graph.replay, device, total=0.02))
            found["graph"] = {name: value / len(made) for name, value in whole.items()}
            graph.reset()
    return found


def call_memory(cell: Cell, device: torch.device) -> dict[str, Any]:
    """What the call of one layer allocates beside query and cache, which are there before."""
    made, program = inputs(cell, device), cell.decoder()

    @torch.no_grad()
    def call() -> torch.Tensor:
        return program(*made)

    found = measure_call(call, device)
    return {"peak_bytes": found.peak_bytes, "events": [event.bytes for event in found.timeline]}


def run_memory(w: Workload, device: torch.device) -> dict[str, Any]:
    """The peak of a run of standard attention, its inputs included."""
    found = measure(standard_attention, w, device=device)
    return {"peak_bytes": found.peak_bytes, "events": [event.bytes for event in found.timeline]}


def record(path: Path, cells: Iterable[Cell], device: torch.device) -> dict[str, Any]:
    """Time each cell, measure the memory of some, write JSON. What fails is noted.

    Neighbours in ``cells`` with equal inputs share them. The file is written again now and then.
    """
    began = saved = time.monotonic()
    rows: list[dict[str, Any]] = []
    content: dict[str, Any] = {
        "digest": digest(PACKAGE / name for name in MEASURING_CODE),
        "provenance": asdict(provenance(device)),
        "failures": [],
    }

    def attempt(act: Callable[..., Any], *args: Any) -> Any:
        try:
            return act(*args)
        except Exception as error:
            what = f"{act.__name__} of {args[0]}: {type(error).__name__}: {error}"
            content["failures"].append(what[:500])
            return None

    roofs = {"largest": 2**31 if device.type == "cuda" else 2**20, "products": (), "dtypes": ()}
    content["ceilings"] = asdict(ceilings(device, **roofs))  # type: ignore[arg-type]
    for _, group in itertools.groupby(cells, lambda c: (c.cache, c.workload, c.eight_bit)):
        alike = list(group)
        made = attempt(caches, alike[0], device) or []
        new: list[dict[str, Any]] = [{"cell": cell.as_json()} for cell in alike]
        for row, cell in zip(new, alike, strict=True):
            row["time"] = attempt(step, cell, made, device)
        made = []
        for row, cell in zip(new, alike, strict=True):
            if cell.workload.batch == 1 and cell.workload.kv_len in FEW:
                row["call"] = attempt(call_memory, cell, device)
                if cell.program == "standard":
                    row["run"] = attempt(run_memory, cell.workload, device)
        rows += new
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if time.monotonic() - saved > 20:
            saved = time.monotonic()
            save(path, content, rows)
            print(f"{len(rows)} cells: {saved - began:.0f} s", flush=True)
    save(path, content, rows)
    return content | {"cells": rows}


def save(path: Path, content: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write a record as JSON, a cell a line."""
    text = json.dumps(content, indent=1).removesuffix("\n}")
    text += ',\n "cells": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]\n}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
