"""Whole passes of attention on a GPU: peak, time and bytes of each program, recorded.

A pass is forward alone, or forward and backward together. Nothing looks at single operations, so
compiled programs and kernels that PyTorch does not know run as they do without us. Nsight Compute
starts this module as a program of its own.
"""

import concurrent.futures
import contextlib
import csv
import gc
import json
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from attnmem.measurement import traffic
from attnmem.measurement.device import provenance
from attnmem.measurement.digest import digest
from attnmem.measurement.memory import measure
from attnmem.measurement.timing import ceilings, time_of
from attnmem.tiles.programs import program
from attnmem.workload import Workload, dtype_name

PACKAGE = Path(__file__).parents[1]

#: What a recorded number depends on. A record made by other code than that of these files is stale.
MEASURING_CODE = (
    *(f"{name}.py" for name in ("workload", "timeline", "programs")),
    *(f"tiles/{name}.py" for name in ("attention", "statistics", "kernel", "programs")),
    *(f"measurement/{name}.py" for name in ("device", "memory", "timing", "passes")),
)

#: What is counted in one run under Nsight Compute each: the GPU's memory; what multiprocessors got
#: through the L2 cache; FLOPs of matrix products.
TENSOR = "sm__ops_path_tensor_src_fp16_dst_fp32.sum"
COUNTED = ((traffic.READ, traffic.WRITTEN), (traffic.RECEIVED,), (TENSOR,))


@dataclass(frozen=True, kw_only=True)
class Pass:
    """Which pass: the name of a program (:mod:`attnmem.tiles.programs`), its problem, its options.

    ``block`` is ``None`` where the program has its own.
    """

    program: str
    workload: Workload
    causal: bool = False
    training: bool = False
    block: tuple[int | None, ...] | None = None

    def prepare(self, device: str = "cuda") -> Callable[[], Any]:
        """A call that does the pass once, on random Q, K, V and dO that are there before."""
        found, w = program(self.program, causal=self.causal, block=self.block), self.workload
        shapes = *w.shapes, w.output_shape
        q, k, v, do = (torch.randn(shape, dtype=w.dtype, device=device) for shape in shapes)

        def once() -> Any:
            if not self.training:
                with torch.no_grad():
                    return found(q, k, v)
            return torch.autograd.grad(found(q, k, v), (q, k, v), do)

        for x in (q, k, v):
            x.requires_grad_(self.training)
        return once

    def as_json(self) -> dict[str, Any]:
        """As a row of a record."""
        w = self.workload
        return asdict(self) | {"workload": asdict(w) | {"dtype": dtype_name(w.dtype)}}


def from_json(row: dict[str, Any]) -> Pass:
    """The pass that :meth:`Pass.as_json` wrote."""
    block = row["block"] and tuple(row["block"])
    return Pass(**row | {"workload": Workload(**row["workload"]), "block": block})


def memory(cell: Pass, device: str = "cuda") -> dict[str, Any]:
    """What :func:`attnmem.measurement.memory.measure` says; its timeline, too, if it is short."""
    found = measure(
        program(cell.program, causal=cell.causal, block=cell.block),
        cell.workload,
        cell.training,
        device,
    )
    names = ("peak_bytes", "peak_allocated_bytes", "peak_reserved_bytes", "saved_bytes")
    sizes = [event.bytes for event in found.timeline]
    return {name: getattr(found, name) for name in (*names, "workspace_bytes", "out_of_memory")} | {
        "timeline": sizes if len(sizes) < 100 else None
    }


def seconds(cell: Pass, device: str = "cuda") -> dict[str, float]:
    """How long the pass takes: the fields of a :class:`attnmem.measurement.timing.Time`."""
    return asdict(time_of(cell.prepare(device), torch.device(device), total=0.03))


def count(cells: Sequence[Pass]) -> list[dict[str, Any]]:
    """What counters see of each pass: metric -> sum over its kernels; and the kernels' names.

    Nothing of a pass is in the L2 cache when it begins. Raises ``RuntimeError`` where ``ncu`` can't
    read the counters of the memory; others are left out where they can't be read.
    """
    found: list[dict[str, Any]] = [{} for _ in cells]
    for metrics in COUNTED:
        # FLOPs do not depend on caches: at one length they tell all.
        chosen = [
            i for i, c in enumerate(cells) if TENSOR not in metrics or c.workload.seq_len == 4096
        ]
        try:
            rows = _under_ncu([cells[i] for i in chosen], metrics)
        except RuntimeError:
            if metrics is COUNTED[0]:
                raise
            traceback.print_exc()
            continue
        for i, row in zip(chosen, rows, strict=True):
            found[i] |= row
    return found


def _under_ncu(cells: Sequence[Pass], metrics: Sequence[str]) -> list[dict[str, Any]]:
    ncu = shutil.which("ncu")
    if not ncu:
        raise RuntimeError("ncu, NVIDIA Nsight Compute, must be on the PATH to count traffic")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "kernels.csv")
        command = [ncu, *traffic.NCU, *traffic.CSV, "--metrics", ",".join(metrics)]
        command += ["--log-file", str(log), sys.executable, "-m", __name__]
        request = json.dumps([cell.as_json() for cell in cells])
        done = subprocess.run(command, input=request, text=True, capture_output=True)
        text = log.read_text() if log.exists() else ""
    if done.returncode or '"ID"' not in text:
        raise RuntimeError(f"ncu could not count: {done.stderr[-800:]}{text[-800:]}")
    rows = _by_pass(text, metrics)
    if len(rows) != len(cells):
        raise RuntimeError(f"ncu saw {len(rows)} passes where {len(cells)} were run")
    return rows


def _by_pass(text: str, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """From ncu's table, a row a kernel and metric, the sums between two marks."""
    passes: list[dict[str, Any]] = []
    names: dict[str, None] = {}
    for row in csv.DictReader(text[text.index('"ID"') :].splitlines()):
        kernel, metric, value = row["Kernel Name"], row["Metric Name"], row["Metric Value"]
        if traffic.MARK in kernel:
            if metric == metrics[0]:
                names = {}
                passes.append(dict.fromkeys(metrics, 0) | {"kernels": names})
        elif passes and value.replace(",", "").isdecimal():
            passes[-1][metric] += int(value.replace(",", ""))
            names[kernel] = None
    return [found | {"kernels": list(found["kernels"])} for found in passes]


def _run_counted(cell: Pass) -> None:
    """Run a pass under the profiler, behind a mark, with nothing of it in the L2 cache."""
    torch.cuda.empty_cache()
    others = torch.zeros(
        4 * torch.cuda.get_device_properties().L2_cache_size, dtype=torch.uint8, device="cuda"
    )
    with contextlib.suppress(Exception):  # counted as a pass that moved nothing
        once = cell.prepare()
        once()  # a warm-up
        others.max()  # reading pushes out of the L2 cache what was there
    torch.cuda.synchronize()
    torch.cuda.profiler.start()  # type: ignore[no-untyped-call]
    torch.cuda._sleep(0)  # type: ignore[no-untyped-call]
    with contextlib.suppress(Exception):
        once()
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()  # type: ignore[no-untyped-call]


def compile_kernels(cell: Pass) -> None:
    """Have Triton compile what the pass needs, which it keeps on disk."""
    with contextlib.suppress(Exception):  # the pass itself tells of it
        replace(cell, workload=replace(cell.workload, heads=1, seq_len=256)).prepare()()
        torch.cuda.synchronize()


def record(
    path: Path, tried: Sequence[Pass], timed: Iterable[Pass], counted: Iterable[Pass]
) -> dict[str, Any]:
    """Time ``tried``, measure peak and time of ``timed``, count ``counted``; write JSON.

    Where a pass says no block sizes of our kernel, it takes the fastest that were tried for its
    head dimension and mask. What fails is noted, and the rest goes on; the file is written after
    each part.
    """
    began = time.monotonic()
    content: dict[str, Any] = {
        "digest": digest(PACKAGE / name for name in MEASURING_CODE),
        "provenance": asdict(provenance("cuda")),
        "failures": [],
    }

    def attempt(row: dict[str, Any], name: str, act: Callable[[Pass], Any], cell: Pass) -> None:
        try:
            row[name] = act(cell)
        except Exception as error:
            content["failures"].append(f"{name} of {cell}: {type(error).__name__}: {error}"[:500])
        torch.cuda.empty_cache()

    def done(what: str, **tables: list[dict[str, Any]]) -> None:
        save(path, content, **tables)
        print(f"{what}: {time.monotonic() - began:.0f} s", flush=True)

    timed, counted = list(timed), list(counted)
    kernels = {
        (c.workload.head_dim, c.workload.dtype, c.causal, c.training, c.block): c
        for c in (*tried, *timed)
        if c.program == "triton"
    }
    spawn = multiprocessing.get_context("spawn")
    with (
        contextlib.suppress(concurrent.futures.BrokenExecutor),  # then each is compiled when run
        concurrent.futures.ProcessPoolExecutor(8, spawn) as pool,
    ):
        list(pool.map(compile_kernels, kernels.values()))
    done(f"{len(kernels)} kernels compiled")
    blocks = [cell.as_json() for cell in tried]
    for row, cell in zip(blocks, tried, strict=True):
        attempt(row, "time", seconds, cell)
    best = fastest(blocks)
    content["ceilings"] = asdict(ceilings("cuda", largest=2**31))
    done(f"{len(blocks)} block sizes tried, best {best}, and ceilings", blocks=blocks)
    timed, counted = ([tuned(cell, best) for cell in cells] for cells in (timed, counted))
    passes = [cell.as_json() for cell in timed]
    for row, cell in zip(passes, timed, strict=True):
        gc.freeze()  # each run collects garbage several times: it need not look at all of this
        attempt(row, "memory", memory, cell)
        attempt(row, "time", seconds, cell)
    done(f"{len(passes)} passes", blocks=blocks, passes=passes)
    counts = [cell.as_json() for cell in counted]
    try:
        for row, found in zip(counts, count(counted), strict=True):
            row["counters"] = found
    except Exception:
        content["failures"].append(traceback.format_exc())
    done(f"{len(counts)} passes counted", blocks=blocks, passes=passes, counts=counts)
    return content


Block = tuple[int | None, ...]


def fastest(blocks: Iterable[dict[str, Any]]) -> dict[tuple[int, bool], Block]:
    """(head_dim, causal) -> the block sizes of the row that took the least time."""
    found: dict[tuple[int, bool], Block] = {}
    for row in sorted((row for row in blocks if "time" in row), key=lambda r: r["time"]["seconds"]):
        found.setdefault((row["workload"]["head_dim"], row["causal"]), tuple(row["block"]))
    return found


def tuned(cell: Pass, best: dict[tuple[int, bool], Block]) -> Pass:
    """The pass with the best block sizes of our kernel, if it is one of that and says none."""
    if cell.program != "triton" or cell.block:
        return cell
    return replace(cell, block=best.get((cell.workload.head_dim, cell.causal)))


def save(path: Path, content: dict[str, Any], **tables: list[dict[str, Any]]) -> None:
    """Write a record as JSON, a row of its tables a line."""
    text = json.dumps(content, indent=1).removesuffix("\n}")
    for name, rows in tables.items():
        text += f',\n "{name}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n}\n")


def main() -> None:
    """Run the passes that :func:`count` writes to our standard input."""
    for row in json.load(sys.stdin):
        _run_counted(from_json(row))


if __name__ == "__main__":
    main()
