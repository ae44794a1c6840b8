"""The page on writing one token at a time: what its text looks up, and what it says."""

import warnings
from dataclasses import replace
from functools import cache
from typing import Any

import torch

from attnmem import figures
from attnmem.cache import max_cached_tokens, token_bytes, weight_bytes
from attnmem.catalog import ACCELERATORS, MODELS, accelerator, model, recognise
from attnmem.formulas import peak_bytes, standard_steps
from attnmem.lessons.shared import known
from attnmem.lessons.table import Table
from attnmem.measurement import decode_record, passes_record
from attnmem.measurement.decode import CACHES, EIGHT_BIT, FEW, LENGTHS, SHORTEST, Cell, inputs
from attnmem.prediction.call import trace_call
from attnmem.prediction.trace import Trace
from attnmem.tiles import decode
from attnmem.workload import Workload

RECORD = decode_record.load()
CARD = known(recognise(RECORD.provenance.device))
READING = RECORD.ceilings.largest["sum"]
LLAMA = model("Llama 3.1 8B")
LATENT = model("DeepSeek-V2-Lite")
SHOWN = ("GPT-2 medium", "GPT-3 175B", "Llama 3.1 8B", "Llama 3.1 405B", "DeepSeek-V2-Lite")
USERS = (1, 8, 32)
LONG, EIGHT_K = 131072, 8192


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


def with_floor(cache: str, tokens: int, **options: Any) -> float:
    """The same, where the prediction is the bytes' time and that of the shortest cache."""
    cell, _ = RECORD.find(cache, tokens, **options)
    floor = recorded(cache, SHORTEST)
    return recorded(cache, tokens, **options) / (predicted(cell) + floor) - 1


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
    for m in MODELS:
        whole = m.context * token_bytes(m)
        kib, own = token_bytes(m) / 1024, weight_bytes(m)
        rows.append((m.name, m.kept_numbers, kib, m.context, whole / 1e9, own / 1e9, whole / own))
    return Table(
        {"model": "", "numbers a layer": ",", "a token (KiB)": ",.1f", "context": ","}
        | {"cache (GB)": ",.2f", "weights (GB)": ",.1f", "cache / weights": ".1%"},
        rows,
    )


def table_of_cards() -> Table:
    """How many users fit on cards, in 16 bit and with a cache of 8 bit."""
    rows = []
    for name in ("RTX 4090", "A100 80 GB SXM4", "H100 SXM", "H200 SXM"):
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
    """One layer, one user: bytes, predicted and recorded time of three programs."""
    rows = []
    for name in CACHES:
        for n in FEW:
            cell, _ = RECORD.find(name, n)
            flash = None if name == "latent" else 1e6 * recorded(name, n, "flash")
            standard = 1e6 * recorded(name, n, "standard")
            floor = recorded(name, SHORTEST)
            times = (
                *(1e6 * t for t in (predicted(cell), predicted(cell) + floor)),
                1e6 * recorded(name, n),
            )
            rows.append((name, n, cell.cache_bytes / 1e6, *times, flash, standard))
    return Table(
        {"cache": "", "tokens": ",", "cache (MB)": ",.1f", "predicted (µs)": ",.1f"}
        | {"and the floor (µs)": ",.1f", "kernel (µs)": ",.1f", "flash (µs)": ",.1f"}
        | {"standard (µs)": ",.1f"},
        rows,
    )


def table_of_users() -> Table:
    """Our kernel for 1, 8 and 32 users of 8192 tokens: time of a layer, and for each user."""
    rows = []
    for name in CACHES:
        for users in USERS:
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
        rows.append((name, heads, heads * parts, 1e6 * one, 1e6 * many, one / many))
    return Table(
        {"cache": "", "programs, uncut": ",", "cut": ",", "uncut (µs)": ",.0f"}
        | {"cut (µs)": ",.0f", "times as fast": ".1f"},
        rows,
    )


def table_of_memory(name: str = "GQA") -> Table:
    """What a call holds beside query and cache: by formula or trace, and as the allocator says."""
    rows = []
    for n in FEW:
        for program in ("standard", "flash", "kernel", "cast"):
            cell, found = RECORD.find(name, n, program, eight_bit=program == "cast")
            by_hand = kernel_bytes(cell) if program == "kernel" else traced(cell).peak_bytes
            sizes = by_hand / 1e6, known(found.call_peak) / 1e6
            rows.append((n, program, *sizes, by_hand / cell.cache_bytes))
    return Table(
        {"tokens": ",", "program": "", "predicted (MB)": ",.3f", "recorded (MB)": ",.3f"}
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


def _times_figure() -> Any:
    lengths = recorded_lengths(1)
    lines = {c: {n: predicted(RECORD.find(c, n)[0]) for n in lengths} for c in CACHES}
    dots = {c: {n: recorded(c, n) for n in lengths} for c in CACHES}
    crosses = {"MQA": {n: recorded("MQA", n, splits=1) for n in lengths}}
    return figures.token_times(lines, dots, crosses)


def step_seconds(users: int, tokens: int) -> float:
    """The seconds in which the recorded GPU reads Llama's weights, and the caches of users."""
    return (weight_bytes(LLAMA) + users * tokens * token_bytes(LLAMA)) / READING


def launch_limited(cache: str) -> int:
    """The shortest cache timed that takes 1.5 times as long as the shortest of all, at least."""
    floor = recorded(cache, SHORTEST)
    return min(n for n in recorded_lengths(1) if recorded(cache, n) > 1.5 * floor)


def numbers() -> dict[str, Any]:
    """What the text looks up."""
    made_by = " by an older version of this code" if RECORD.stale else ""
    peak = known(CARD.peak_flops(matrix=True))
    flops, own, kept = 2 * LLAMA.parameters, weight_bytes(LLAMA), LONG * token_bytes(LLAMA)
    prefill = LLAMA.workload()
    products = 2 * prefill.score_elements * prefill.head_dim * LLAMA.layers  # half is masked
    rate = passes_record.load().ceilings.matmul["bfloat16"]
    gqa, mha = (RECORD.find(name, LONG)[0] for name in ("GQA", "MHA"))
    floor = recorded("GQA", SHORTEST)
    eager = known(RECORD.find("GQA", SHORTEST)[1].eager).seconds
    token = replace(CACHES["GQA"], kv_len=LONG)
    cast = traced(RECORD.find("GQA", LONG, "cast", eight_bit=True)[0])
    return {
        "origin": f"recorded{made_by} on {RECORD.provenance}",
        "made": f"{CARD.name.split()[0]}, recorded",
        "growth": figures.cache_growth([model(n) for n in SHOWN], [10**i for i in range(3, 8)]),
        "pages": figures.pages((700, 300, 1000), 2048, 128),
        "times": _times_figure(),
        "step": figures.step_bytes(own, EIGHT_K * token_bytes(LLAMA), [2**i for i in range(9)]),
        "gflop": flops / 1e9,
        "tflops": peak / 1e12,
        "naive": peak / flops,
        "weights_gb": own / 1e9,
        "cache_gb": kept / 1e9,
        "both_gb": (own + kept) / 1e9,
        "reading_tb": READING / 1e12,
        "real": 1 / step_seconds(1, LONG),
        "wrong": peak / flops * step_seconds(1, LONG),
        "llama_layers": LLAMA.layers,
        "llama_kv_heads": LLAMA.kv_heads,
        "llama_d": LLAMA.head_dim,
        "llama_n": LONG,
        "token_kib": token_bytes(LLAMA) / 1024,
        "even": own // token_bytes(LLAMA),
        "latent_kib": token_bytes(LATENT) / 1024,
        "latent_numbers": LATENT.kept_numbers,
        "latent_unkept": 2 * LATENT.heads * LATENT.head_dim,
        "latent_less": 2 * LATENT.heads * LATENT.head_dim / LATENT.kept_numbers,
        "page_most": 15 * token_bytes(LLAMA) / 1e6,
        "h100_tokens": max_cached_tokens(LLAMA, accelerator("H100 SXM").memory_bytes),
        "mha_us": 1e6 * recorded("MHA", LONG),
        "gqa_us": 1e6 * recorded("GQA", LONG),
        "mqa_us": 1e6 * recorded("MQA", LONG),
        "worst_over": max(over(c, n) for c in CACHES for n in recorded_lengths(1) if n >= LONG / 4),
        "worst_8k": max(over(c, EIGHT_K) for c in CACHES),
        "gqa_8k": over("GQA", EIGHT_K),
        "floor_us": 1e6 * floor,
        "shortest": SHORTEST,
        "floor_over": max(
            abs(with_floor(c, n)) for c in CACHES for n in recorded_lengths(1) if n >= EIGHT_K
        ),
        "eager_us": 1e6 * eager,
        "even_users": own / (EIGHT_K * token_bytes(LLAMA)),
        "one_mqa": recorded("MQA", LONG, splits=1) / recorded("MQA", LONG),
        "one_us": 1e6 * recorded("MQA", LONG, splits=1),
        "flash_parts": _flash_parts("GQA", LONG),
        "multiprocessors": known(CARD.multiprocessors),
        "mha_gb": mha.cache_bytes / 1e9,
        "gqa_gb": gqa.cache_bytes / 1e9,
        "s_mb": token.score_bytes / 1e6,
        "s_share": 2 * token.score_bytes / gqa.cache_bytes,
        "peak_gb": peak_bytes(token) / 1e9,
        "cast_times": cast.peak_bytes / (gqa.cache_bytes / 2),
        "eight_gain": recorded("GQA", LONG) / recorded("GQA", LONG, eight_bit=True),
        "cast_slower": recorded("GQA", LONG, "cast", eight_bit=True) / recorded("GQA", LONG),
        "prefill_pflop": (flops * LONG + products) / 1e15,
        "prefill_s": (flops * LONG + products) / rate,
        "rate_tflops": rate / 1e12,
        "decode_gflop": (flops + 2 * 2 * LLAMA.layers * token.score_elements * token.head_dim)
        / 1e9,
        "decode_ms": 1e3 * step_seconds(1, LONG),
        "weights_ms": 1e3 * own / READING,
        "cache_ms": 1e3 * LLAMA.layers * recorded("GQA", LONG),
        "cache_predicted_ms": 1e3 * kept / READING,
        "users_fit": max_cached_tokens(LLAMA, CARD.memory_bytes) // LONG,
        "users_ms": 1e3 * step_seconds(max_cached_tokens(LLAMA, CARD.memory_bytes) // LONG, LONG),
        "card": CARD.name.split()[0],
    }


def _flash_parts(name: str, tokens: int) -> int:
    """In how many parts PyTorch's flash kernel cuts the keys: by the buffer of their outputs."""
    cell, _ = RECORD.find(name, tokens, "flash")
    held = traced(cell).at_peak["log-sums of the splits"]
    return held // (4 * cell.workload.batch * cell.workload.heads)


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    steps = {name: standard_steps(replace(w, kv_len=LONG)) for name, w in CACHES.items()}
    intensity = {
        name: (s[0].flops + s[-1].flops) / RECORD.find(name, LONG)[0].cache_bytes
        for name, s in steps.items()
    }
    long = [n for n in recorded_lengths(1) if n >= LONG / 4]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        equal = all(
            traced(cell).peak_bytes == found.call_peak
            for cell, found in RECORD.cells.items()
            if found.call_peak and cell.program != "kernel"
        )
    return {
        "a few hundred times": 300 < numbers()["wrong"] < 1000,
        "the intensity of heads of their own is 1, and of groups their size": (
            [intensity[name] for name in ("MHA", "GQA", "MQA")] == [1, 4, 32]
        ),
        "a latent cache has about 60": 55 < intensity["latent"] < 65,
        "below the balance point of the card": max(intensity.values())
        < known(CARD.peak_flops(matrix=True)) / CARD.bandwidth,
        "the largest caches take what is predicted, within 15 %": all(
            abs(over(name, LONG)) < 0.15 for name in ("MHA", "GQA")
        ),
        "each trace of a call is the allocator's peak": equal,
        "and each of our kernel its formula": all(
            kernel_bytes(cell) == found.call_peak
            for cell, found in RECORD.cells.items()
            if found.call_peak and cell.program == "kernel"
        ),
        "the run of standard attention peaks as by the formula": all(
            peak_bytes(cell.workload) == found.run_peak
            for cell, found in RECORD.cells.items()
            if found.run_peak
        ),
        "cut keys are faster where one head serves all": all(
            recorded("MQA", n, splits=1) > 3 * recorded("MQA", n) for n in long
        ),
        "8 bits save time in the kernel, and cost time where they are cast before": (
            recorded("GQA", LONG, eight_bit=True)
            < recorded("GQA", LONG)
            < recorded("GQA", LONG, "cast", eight_bit=True)
        ),
        "no card of the list holds ten users of 128k": max(
            max_cached_tokens(LLAMA, card.memory_bytes) // LONG
            for card in ACCELERATORS
            if card.memory_bytes > weight_bytes(LLAMA) and card.memory_bytes <= CARD.memory_bytes
        )
        < 10,
        "short caches take as long as launches": all(
            recorded("MQA", n) < 1.5 * recorded("MQA", SHORTEST) for n in LENGTHS[:2]
        ),
        "users share the weights and not the cache": all(
            isinstance(w, Workload) and w.k_bytes == 8 * replace(w, batch=1).k_bytes
            for w in [replace(CACHES["GQA"], batch=8, kv_len=EIGHT_K)]
        ),
    }
