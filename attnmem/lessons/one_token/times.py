"""What was recorded of one token at a time, and what each table of the page shows."""

from functools import cache
from typing import Any

import torch

from attnmem import figures
from attnmem.cache import max_cached_tokens, token_bytes, weight_bytes
from attnmem.catalog import accelerator, model, recognise
from attnmem.lessons.shared import at_most, known
from attnmem.lessons.table import Table
from attnmem.measurement import decode_record
from attnmem.measurement.decode import CACHES, EIGHT_BIT, SHORTEST, Cell, inputs
from attnmem.measurement.decode_record import Found
from attnmem.prediction.call import trace_call
from attnmem.prediction.trace import Trace
from attnmem.tiles import decode

RECORD = decode_record.load()
CARD = known(recognise(RECORD.provenance.device))
READING = RECORD.ceilings.largest["sum"]
LLAMA = model("Llama 3.1 8B")
#: Llama's embedding, a table beside its head: of it a token reads a row, and computes nothing.
TABLE = known(LLAMA.vocabulary) * LLAMA.heads * LLAMA.head_dim
READ = LLAMA.parameters - TABLE  # weights that each token reads
LATENT = model("DeepSeek-V2-Lite")
SHOWN = ("GPT-2 medium", "GPT-3 175B", "Llama 3.1 8B", "Llama 3.1 405B", "DeepSeek-V2-Lite")
LONG, EIGHT_K = 131072, 8192
GIGABYTE = 10**9


def predicted(cell: Cell) -> float:
    """The seconds in which the recorded GPU reads the cache of one layer, as fast as it sums."""
    return cell.cache_bytes / READING


def recorded(cache: str, tokens: int, program: str = "kernel", **options: Any) -> float:
    """The seconds of one layer in a CUDA graph."""
    return known(RECORD.find(cache, tokens, program, **options)[1].graph).seconds


def over(cache: str, tokens: int, **options: Any) -> float:
    """How much longer than predicted our kernel takes, as a share."""
    cell, _ = RECORD.find(cache, tokens, **options)
    return recorded(cache, tokens, **options) / predicted(cell) - 1


def on_top() -> list[float]:
    """The seconds beyond those of the bytes, of each MHA and GQA below :data:`GIGABYTE`."""
    return [
        known(found.graph).seconds - predicted(cell)
        for cell, found in of_sizes(("MHA", "GQA"))
        if cell.cache_bytes < GIGABYTE
    ]


def excess(cache: str, tokens: int) -> float:
    """The seconds beyond those of the bytes, and of the shortest cache."""
    cell, _ = RECORD.find(cache, tokens)
    return recorded(cache, tokens) - predicted(cell) - recorded(cache, SHORTEST)


def of_sizes(caches: tuple[str, ...]) -> list[tuple[Cell, Found]]:
    """Our kernel over caches of 16 bit, of all users and lengths but the shortest."""
    return [
        (cell, found)
        for cell, found in RECORD.cells.items()
        if (cell.cache in caches and cell.workload.kv_len != SHORTEST)
        and (cell.program, cell.splits, cell.eight_bit) == ("kernel", None, False)
    ]


def large(caches: tuple[str, ...] = ("MHA", "GQA")) -> list[float]:
    """How much longer than predicted our kernel takes for caches of at least :data:`GIGABYTE`."""
    return [
        known(found.graph).seconds / predicted(cell) - 1
        for cell, found in of_sizes(caches)
        if cell.cache_bytes >= GIGABYTE
    ]


def latent_ratios(users: int = 1) -> dict[int, float]:
    """Tokens of a user -> our kernel's time on a latent cache over that of standard attention."""
    return {
        n: recorded("latent", n, users=users) / recorded("latent", n, "standard", users=users)
        for n in recorded_lengths(users)
        if n >= EIGHT_K
    }


def shared() -> list[float]:
    """How much longer than predicted 8 and 32 users' caches take, as large as one user's of GQA."""
    size = RECORD.find("GQA", LONG)[0].cache_bytes
    return [
        known(found.graph).seconds / predicted(cell) - 1
        for cell, found in of_sizes(("MHA", "GQA"))
        if cell.cache_bytes == size and cell.workload.batch > 1
    ]


def eight_bit_gains() -> list[float]:
    """How many times as fast 8 bits are as 16 at the longest length, by users: 1, 8, 32."""
    return [
        recorded("GQA", LONG, users=users) / recorded("GQA", LONG, users=users, eight_bit=True)
        for users in (1, 8, 32)
    ]


def beyond() -> float:
    """How much less time than predicted a program takes at most, as a share."""
    return 1 - min(
        known(found.graph).seconds / predicted(cell) for cell, found in RECORD.cells.items()
    )


def recorded_lengths(users: int) -> list[int]:
    """The tokens of the caches that were timed with so many users, but for the shortest."""
    return sorted(
        {
            known(c.workload.kv_len)
            for c in RECORD.cells
            if c.workload.batch == users and c.workload.kv_len != SHORTEST
        }
    )


@cache
def traced(cell: Cell) -> Trace:
    """The call of one layer, query and cache being there before."""
    made, program = inputs(cell, "meta"), cell.decoder()

    @torch.no_grad()
    def call() -> torch.Tensor:
        return program(*made)

    return trace_call(call)


def kernel_bytes(cell: Cell) -> int:
    """What a call of our kernel allocates: of each part a maximum, a sum, an output; and O."""
    w = cell.workload
    heads, (_, _, _, d_v) = w.key_shape[1], w.output_shape
    _, parts = decode.cut(
        known(w.kv_len), w.batch * heads, cell.splits, known(CARD.multiprocessors)
    )
    return 4 * w.batch * w.heads * parts * (d_v + 2) + w.o_bytes


def table_of_designs() -> Table:
    """What a token leaves in one layer, by how heads of queries share heads of keys."""
    rows = []
    for name, w in CACHES.items():
        latent = name == "latent"
        kept = w.head_dim if latent else 2 * known(w.kv_heads) * w.head_dim
        heads = "one vector" if latent else str(w.kv_heads)
        rows.append((name, heads, kept, 2 * w.heads * CACHES["MHA"].head_dim / kept))
    return Table(
        {"cache": "", "heads of keys": "", "numbers a token": ",", "times less": ".3g"}, rows
    )


def table_of_caches() -> Table:
    """What each model keeps of a token, at its context, and its weights."""
    rows = []
    for m in map(model, SHOWN):
        whole = m.context * token_bytes(m)
        kib, own = token_bytes(m) / 1024, weight_bytes(m)
        rows.append((m.name, kib, m.context, whole / 1e9, own / 1e9, whole / own))
    return Table(
        {"model": "", "a token (KiB)": ",.1f", "context": ","}
        | {"cache (GB)": ",.2f", "weights (GB)": ",.1f", "cache / weights": ".1%"},
        rows,
    )


def table_of_cards() -> Table:
    """How many users fit on cards, in 16 bit and with a cache of 8 bit."""
    rows = []
    for name in ("RTX 4090", "H100 SXM", "H200 SXM"):
        card = accelerator(name)
        found = (
            max_cached_tokens(LLAMA, card.memory_bytes, dtype=t)
            for t in (torch.bfloat16, EIGHT_BIT)
        )
        wide, narrow = found
        rows.append((name, card.memory_gib, wide, wide // EIGHT_K, wide // LONG, narrow // LONG))
    return Table(
        {"card": "", "GiB": "g", "tokens": ",", "users of 8k": ",", "users of 128k": ","}
        | {"of 128k, 8-bit cache": ","},
        rows,
    )


def table_of_times() -> Table:
    """One layer, from a small cache to large ones: what its bytes say, and what was recorded."""
    cells = (("GQA", 1, EIGHT_K), ("GQA", 1, LONG), ("GQA", 32, EIGHT_K), ("MHA", 1, LONG))
    rows = []
    for name, users, n in (*cells, ("MHA", 32, EIGHT_K)):
        cell, _ = RECORD.find(name, n, users=users)
        bytes_say, took = predicted(cell), recorded(name, n, users=users)
        near = "yes"
        if cell.cache_bytes < GIGABYTE:
            near = "no: launches show" if n == EIGHT_K else "no: one user, half a gigabyte"
        sizes = f"{name}, {users} × {n:,}", cell.cache_bytes / 1e9
        rows.append((*sizes, 1e6 * bytes_say, 1e6 * took, took / bytes_say, near))
    return Table(
        {"cache, users × tokens": "", "GB": ".2f", "bytes say (µs)": ",.1f", "took (µs)": ",.1f"}
        | {"times": ".2f", f"within {at_most(max(map(abs, large()))):.0%}": ""},
        rows,
    )


def table_of_one_user() -> Table:
    """One layer, one user: its cache's bytes, the time that they say, and what was recorded."""
    rows = []
    for name in CACHES:
        for n in (EIGHT_K, LONG):
            cell, _ = RECORD.find(name, n)
            flash = None if name == "latent" else 1e6 * recorded(name, n, "flash")
            bytes_say, took = predicted(cell), recorded(name, n)
            times = 1e6 * bytes_say, 1e6 * took, took / bytes_say
            rows.append((name, n, cell.cache_bytes / 1e6, *times, flash))
    return Table(
        {"cache": "", "tokens": ",", "cache (MB)": ",.1f", "bytes say (µs)": ",.1f"}
        | {"kernel (µs)": ",.1f", "times": ".2f", "flash (µs)": ",.1f"},
        rows,
    )


def table_of_splits() -> Table:
    """Our kernel with the keys of a head in one part, and in as many as fill the GPU."""
    rows = []
    for name in ("MHA", "GQA", "MQA"):
        cell, _ = RECORD.find(name, LONG)
        heads = cell.workload.key_shape[1]
        _, parts = decode.cut(LONG, heads, None, known(CARD.multiprocessors))
        one, many = recorded(name, LONG, splits=1), recorded(name, LONG)
        rows.append((name, heads, 1e6 * one, heads * parts, 1e6 * many, one / many))
    return Table(
        {"cache": "", "programs": ",", "uncut (µs)": ",.0f", "parts": ","}
        | {"cut (µs)": ",.0f", "times as fast": ".1f"},
        rows,
    )


def table_of_memory() -> Table:
    """What a call holds beside query and cache: by formula or trace, and as the allocator says."""
    rows = []
    for program in ("standard", "flash", "kernel", "cast"):
        cell, found = RECORD.find("GQA", LONG, program, eight_bit=program == "cast")
        by_hand = kernel_bytes(cell) if program == "kernel" else traced(cell).peak_bytes
        sizes = by_hand / 1e6, known(found.call_peak) / 1e6
        rows.append((program, *sizes, by_hand / cell.cache_bytes))
    return Table(
        {"program": "", "predicted (MB)": ",.3f", "recorded (MB)": ",.3f"}
        | {"of the cache": ".1%"},
        rows,
    )


def table_of_eight_bits() -> Table:
    """A long cache of 16 bit, and two ways to read one of 8."""
    rows = []
    for name, program, narrow in (
        ("16 bit", "kernel", False),
        ("8 bit, cast in the kernel", "kernel", True),
        ("8 bit, cast before", "cast", True),
    ):
        cell, _ = RECORD.find("GQA", LONG, program, eight_bit=narrow)
        time = recorded("GQA", LONG, program, eight_bit=narrow)
        rows.append((name, cell.cache_bytes / 1e6, 1e6 * time))
    return Table({"cache": "", "MB": ",.0f", "took (µs)": ",.0f"}, rows)


def near_figure() -> Any:
    """How many times as long as its bytes say a layer takes, over the bytes of its caches."""
    found = {
        name: [
            (cell.cache_bytes, known(times.graph).seconds / predicted(cell))
            for cell, times in of_sizes((name,))
        ]
        for name in ("MHA", "GQA")
    }
    return figures.over_bytes(found, GIGABYTE, at_most(max(map(abs, large()))))


def step_seconds(users: int, tokens: int) -> float:
    """The seconds in which the recorded GPU reads Llama's weights, and the caches of users."""
    return (2 * READ + users * tokens * token_bytes(LLAMA)) / READING
