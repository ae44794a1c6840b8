"""What was recorded of one token at a time, and what each table of the page shows."""

from functools import cache
from typing import Any

import torch

from attnmem import figures
from attnmem.cache import max_cached_tokens, token_bytes, weight_bytes
from attnmem.catalog import accelerator, model, recognise
from attnmem.lessons.shared import known
from attnmem.lessons.table import Table
from attnmem.measurement import decode_record
from attnmem.measurement.decode import CACHES, EIGHT_BIT, FEW, SHORTEST, Cell, inputs
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


def excess(cache: str, tokens: int) -> float:
    """The seconds beyond those of the bytes, and of the shortest cache."""
    cell, _ = RECORD.find(cache, tokens)
    return recorded(cache, tokens) - predicted(cell) - recorded(cache, SHORTEST)


def large(caches: tuple[str, ...] = ("MHA", "GQA")) -> list[float]:
    """How much longer than predicted our kernel takes for caches of at least :data:`GIGABYTE`."""
    return [
        known(found.graph).seconds / predicted(cell) - 1
        for cell, found in RECORD.cells.items()
        if (cell.cache in caches and cell.cache_bytes >= GIGABYTE)
        and (cell.program, cell.splits, cell.eight_bit) == ("kernel", None, False)
    ]


def latent_ratios() -> dict[int, float]:
    """Tokens of one user -> our kernel's time on a latent cache over that of standard attention."""
    return {
        n: recorded("latent", n) / recorded("latent", n, "standard") for n in recorded_lengths(1)
    }


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
        {"cache": "", "tokens": ",", "cache (MB)": ",.1f", "predicted (µs)": ",.1f"}
        | {"kernel (µs)": ",.1f", "of predicted": ".1f", "flash (µs)": ",.1f"},
        rows,
    )


def table_of_users() -> Table:
    """Our kernel for 1 and 32 users of 8192 tokens: time of a layer, and for each user."""
    rows = []
    for name in ("MHA", "GQA"):
        for users in (1, 32):
            time = recorded(name, EIGHT_K, users=users)
            each = 1e6 * time / users
            rows.append((name, users, 1e6 * time, each, over(name, EIGHT_K, users=users)))
    return Table(
        {"cache": "", "users": "", "layer (µs)": ",.1f", "for each user (µs)": ",.2f"}
        | {"over predicted": "+.0%"},
        rows,
    )


def table_of_splits() -> Table:
    """Our kernel with the keys of a head in one part, and in as many as fill the GPU."""
    rows = []
    for name in CACHES:
        cell, _ = RECORD.find(name, LONG)
        heads = cell.workload.key_shape[1]
        _, parts = decode.cut(LONG, heads, None, known(CARD.multiprocessors))
        one, many = recorded(name, LONG, splits=1), recorded(name, LONG)
        rows.append((name, heads, parts, heads * parts, 1e6 * one, 1e6 * many, one / many))
    return Table(
        {"cache": "", "heads": ",", "parts of each": ",", "programs": ",", "uncut (µs)": ",.0f"}
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
    """A cache of 16 bit and two ways to read one of 8."""
    rows = []
    for n in FEW:
        wide, _ = RECORD.find("GQA", n)
        narrow, _ = RECORD.find("GQA", n, eight_bit=True)
        times = (
            recorded("GQA", n),
            recorded("GQA", n, eight_bit=True),
            recorded("GQA", n, "cast", eight_bit=True),
        )
        sizes = wide.cache_bytes / 1e6, narrow.cache_bytes / 1e6
        rows.append((n, *sizes, *(1e6 * t for t in times)))
    return Table(
        {"tokens": ",", "16 bit (MB)": ",.1f", "8 bit (MB)": ",.1f", "16 bit (µs)": ",.1f"}
        | {"8 bit, in the kernel (µs)": ",.1f", "8 bit, cast before (µs)": ",.1f"},
        rows,
    )


def times_figure() -> Any:
    """Predicted and recorded times over the tokens of one user."""
    lengths = recorded_lengths(1)
    lines = {c: {n: predicted(RECORD.find(c, n)[0]) for n in lengths} for c in CACHES}
    dots = {c: {n: recorded(c, n) for n in lengths} for c in CACHES}
    crosses = {"MQA": {n: recorded("MQA", n, splits=1) for n in lengths}}
    return figures.token_times(lines, dots, crosses)


def step_seconds(users: int, tokens: int) -> float:
    """The seconds in which the recorded GPU reads Llama's weights, and the caches of users."""
    return (2 * READ + users * tokens * token_bytes(LLAMA)) / READING
