"""What cutting costs, in closed form and by the trace; what others printed of it."""

from dataclasses import replace
from functools import cache, partial

import torch

from attnmem.formulas import peak_bytes
from attnmem.lessons.shared import W, known
from attnmem.lessons.table import Table
from attnmem.prediction.trace import trace
from attnmem.programs import Program, standard_attention
from attnmem.tiles import attend, costs, finish, merge, tiled_attention
from attnmem.workload import Workload

LONG = 131072
KIB = 2**10
SHARED = 227  # KiB that a block of threads can have on Hopper: CUDA's programming guide
FAST = (32, 64, 128, SHARED)


@cache
def eager_traffic(w: Workload, block: costs.Block) -> int:
    """What every operation of the eager program reads and writes, forward, in bytes."""
    t = trace(partial(tiled_attention, block=block), w)
    return sum(step.bytes_moved for step in t.steps if step.stage != "inputs")


def table_of_bounds(w: Workload = W) -> Table:
    """For fast memories of some sizes: the largest block of queries, its traffic, the bound."""
    rows = []
    for kib in FAST:
        block = largest_block(w, kib * KIB)
        moved, bound = costs.traffic(w, block), costs.bound(w, kib * KIB)
        rows.append((kib, block, moved / w.head_bytes, bound / w.head_bytes, moved / bound))
    return Table(
        {"fast memory (KiB)": "", "queries": "", "loop moves (X)": ".1f"}
        | {"N²d²/C (X)": ".1f", "ratio": ".1f"},
        rows,
    )


def largest_block(w: Workload, memory: int) -> int:
    """The most queries whose block fits, beside 16 keys."""
    return max(b for b in range(1, w.seq_len) if costs.fast_bytes(w, (b, 16)) <= memory)


def by_hand() -> list[float]:
    """Both halves of the row that the page computes by hand, their factor, and the whole of it."""
    s, v = torch.tensor([[2.0, 3.0, 2.0, 5.0]]), torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    left, right = attend(s[:, :2].clone(), v[:2]), attend(s[:, 2:].clone(), v[2:])
    both = merge(left, right)
    factor = (left.maximum - both.maximum).exp()
    rows = left.total, left.output, right.total, right.output, factor, both.total, both.output
    return [x.item() for x in (*rows, finish(both)[0])]


def table_of_peaks() -> Table:
    """The peak of the eager program in units of X, and what it needs beside tensors of N."""
    rows = []
    for n in (512, 4096, 32768, LONG):
        w = replace(W, seq_len=n)
        forward, training = (costs.peak_bytes(w, (128, 128), training=t) for t in (False, True))
        row = 4 * w.batch * w.heads * n
        standard = peak_bytes(w) / w.head_bytes
        tiles = (forward - 4 * w.head_bytes - row) / 2**20
        rows.append((n, standard, forward / w.head_bytes, tiles, training / w.head_bytes))
    return Table(
        {"N": "", "standard (X)": ",.0f", "tiles (X)": ".3f"}
        | {"tiles − 4X − L (MiB)": ".3f", "tiles, training (X)": ".3f"},
        rows,
    )


def table_of_flops() -> Table:
    """Matrix products of a forward and a backward pass, in units of one."""
    ways: dict[str, Program] = {"standard": standard_attention, "tiles": tiled_attention}
    small = replace(W, seq_len=512)
    rows: list[tuple[str, float, float, float]] = []
    for name, program in ways.items():
        steps = [s for s in trace(program, small, training=True).steps if s.matrix]
        unit = products(small, 1)
        forward, backward = (
            sum(s.flops for s in steps if s.stage == stage) / unit
            for stage in ("forward", "backward")
        )
        rows.append((name, forward, backward, forward + backward))
    rows.append(("our kernels, by their loops", 2, 7, 9))
    return Table({"program": "", "forward": "g", "backward": "g", "both": "g"}, rows)


@cache
def accuracy(block: int, n: int = 16384) -> float:
    """The largest error of O in 32 bit, with keys merged so many at a time, by 64-bit softmax."""
    generator = torch.Generator().manual_seed(0)
    s, v = torch.randn(16, n, generator=generator), torch.randn(n, 64, generator=generator)
    exact = s.double().softmax(-1) @ v.double()
    rows = None
    for a, b in zip(torch.split(s, block, 1), torch.split(v, block), strict=True):
        part = attend(a.clone(), b)
        rows = part if rows is None else merge(rows, part)
    return (finish(known(rows))[0].double() - exact).abs().max().item()


def products(w: Workload, count: int, *, causal: bool = False) -> int:
    """The FLOPs of so many products of N×N×d; with a mask, of the scores that count."""
    scores = w.score_elements * (w.seq_len + 1) // (2 * w.seq_len) if causal else w.score_elements
    return count * 2 * scores * w.head_dim
