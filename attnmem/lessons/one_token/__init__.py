"""The page on writing one token at a time: what its text looks up, and what it says."""

import math
import warnings
from dataclasses import replace
from functools import cache
from typing import Any

from attnmem import figures
from attnmem.cache import max_cached_tokens, token_bytes, weight_bytes
from attnmem.catalog import ACCELERATORS, model
from attnmem.formulas import peak_bytes, standard_steps
from attnmem.lessons.one_token.times import (
    CARD,
    EIGHT_K,
    LATENT,
    LLAMA,
    LONG,
    READ,
    READING,
    RECORD,
    SHOWN,
    TABLE,
    beyond,
    excess,
    kernel_bytes,
    large,
    latent_ratios,
    over,
    predicted,
    recorded,
    recorded_lengths,
    step_seconds,
    table_of_caches,
    table_of_cards,
    table_of_eight_bits,
    table_of_memory,
    table_of_splits,
    table_of_times,
    table_of_users,
    times_figure,
    traced,
)
from attnmem.lessons.roofline.steps import H200
from attnmem.lessons.shared import at_most, known
from attnmem.lessons.tiles.runs import RECORD as TILES
from attnmem.lessons.tiles.runs import case_seconds
from attnmem.measurement.decode import CACHES, LENGTHS, SHORTEST
from attnmem.tiles import decode
from attnmem.workload import Workload

__all__ = [
    "claims",
    "numbers",
    "table_of_caches",
    "table_of_cards",
    "table_of_eight_bits",
    "table_of_memory",
    "table_of_splits",
    "table_of_times",
    "table_of_users",
]


@cache  # it draws, and claims ask for one number after the other
def numbers() -> dict[str, Any]:
    """What the text looks up."""
    made_by = " by an older version of this code" if RECORD.stale else ""
    peak = known(CARD.peak_flops(matrix=True))
    own, read, kept = weight_bytes(LLAMA), 2 * READ, LONG * token_bytes(LLAMA)
    prefill = LLAMA.workload()
    products = 2 * prefill.score_elements * prefill.head_dim * LLAMA.layers  # half is masked
    # Two for each weight of the blocks and each token; logits are wanted of the last token alone.
    weights_flops = 2 * (READ - TABLE) * LONG + 2 * TABLE
    rate, other_rate = (known(r.ceilings).matmul["bfloat16"] for r in (TILES, H200))
    floor = recorded("GQA", SHORTEST)
    eager = known(RECORD.find("GQA", SHORTEST)[1].eager).seconds
    token = replace(CACHES["GQA"], kv_len=LONG)
    flops = 2 * READ + 4 * LLAMA.layers * token.score_elements * token.head_dim
    users = max_cached_tokens(LLAMA, CARD.memory_bytes) // LONG
    flash = traced(RECORD.find("GQA", LONG, "flash")[0])
    return {
        "origin": f"recorded{made_by} on {RECORD.provenance}",
        "made": f"{CARD.name.split()[0]}, recorded",
        "growth": figures.cache_growth([model(n) for n in SHOWN], [10**i for i in range(3, 8)]),
        "pages": figures.pages((700, 300, 1000), 2048, 128),
        "times": times_figure(),
        "step": figures.step_bytes(read, EIGHT_K * token_bytes(LLAMA), [2**i for i in range(9)]),
        "gflop": flops / 1e9,
        "tflops": peak / 1e12,
        "naive": peak / flops,
        "weights_gb": own / 1e9,
        "read_gb": read / 1e9,
        "table_gb": 2 * TABLE / 1e9,
        "cache_gb": kept / 1e9,
        "reading_tb": READING / 1e12,
        "real": 1 / step_seconds(1, LONG),
        "wrong": peak / flops * step_seconds(1, LONG),
        "llama_layers": LLAMA.layers,
        "llama_n": LONG,
        "token_kib": token_bytes(LLAMA) / 1024,
        "longer": LLAMA.context / model("Llama 3 8B").context,
        "gib_tokens": 2**30 // token_bytes(LLAMA),
        "even": own // token_bytes(LLAMA),
        "latent_numbers": LATENT.kept_numbers,
        "latent_unkept": 2 * LATENT.heads * LATENT.head_dim,
        "latent_less": 2 * LATENT.heads * LATENT.head_dim / LATENT.kept_numbers,
        "large_over": at_most(max(map(abs, large()))),
        "beyond": at_most(beyond()),
        "sheet_tb": CARD.bandwidth / 1e12,
        "gqa_over": over("GQA", LONG),
        "mha_over": over("MHA", LONG),
        "mqa_excess": 1e6 * excess("MQA", LONG),
        "short_excess": 1e6 * excess("MQA", LONG // 16),
        "short_parts": parts_of(LONG // 16),
        "most_excess": 1e6 * excess("MQA", LONG // 4),
        "mqa_bytes_us": 1e6 * predicted(RECORD.find("MQA", LONG)[0]),
        "most_parts": parts_of(LONG),
        "latent_least": min(r for n, r in latent_ratios().items() if n >= EIGHT_K),
        "latent_most": max(r for n, r in latent_ratios().items() if n >= EIGHT_K),
        "floor_us": 1e6 * floor,
        "shortest": SHORTEST,
        "eager_us": 1e6 * eager,
        "even_users": read / (EIGHT_K * token_bytes(LLAMA)),
        "one_mqa": recorded("MQA", LONG, splits=1) / recorded("MQA", LONG),
        "multiprocessors": known(CARD.multiprocessors),
        "flash_parts": flash.at_peak["log-sums of the splits"] // (4 * token.heads),
        "s_share": 2 * token.score_bytes / peak_bytes(token),
        "peak_gb": peak_bytes(token) / 1e9,
        "eight_many": recorded("GQA", LONG, users=32)
        / recorded("GQA", LONG, users=32, eight_bit=True),
        "eight_gain": recorded("GQA", LONG) / recorded("GQA", LONG, eight_bit=True),
        "cast_slower": recorded("GQA", LONG, "cast", eight_bit=True) / recorded("GQA", LONG),
        "prefill_weights_pflop": weights_flops / 1e15,
        "prefill_attention_pflop": products / 1e15,
        "prefill_weights_s": weights_flops / rate,
        "prefill_attention_s": LLAMA.layers * case_seconds("cudnn"),
        "attention_tflops": products / LLAMA.layers / case_seconds("cudnn") / 1e12,
        "rate_tflops": rate / 1e12,
        "other_tflops": other_rate / 1e12,
        "other_date": H200.provenance.date,
        "decode_ms": 1e3 * step_seconds(1, LONG),
        "weights_ms": 1e3 * read / READING,
        "cache_ms": 1e3 * LLAMA.layers * recorded("GQA", LONG),
        "cache_predicted_ms": 1e3 * kept / READING,
        "users_fit": users,
        "users_ms": 1e3 * step_seconds(users, LONG),
        "users_share": users * kept / (read + users * kept),
        "latent_intensity": _intensities()["latent"],
    }


def parts_of(tokens: int) -> int:
    """In how many parts our kernel cuts the keys of one head, for one user."""
    return decode.cut(tokens, 1, None, known(CARD.multiprocessors))[1]


def _intensities() -> dict[str, float]:
    """FLOPs of the products for each byte of the cache."""
    steps = {name: standard_steps(replace(w, kv_len=LONG)) for name, w in CACHES.items()}
    return {
        name: (s[0].flops + s[-1].flops) / RECORD.find(name, LONG)[0].cache_bytes
        for name, s in steps.items()
    }


def claims() -> dict[str, bool]:
    """What the text says of its numbers."""
    intensity = _intensities()
    balance = known(CARD.peak_flops(matrix=True)) / CARD.bandwidth
    long = [n for n in recorded_lengths(1) if n >= LONG / 4]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        equal = all(
            traced(cell).peak_bytes == found.call_peak
            for cell, found in RECORD.cells.items()
            if found.call_peak and cell.program != "kernel"
        )
    return {
        "some ninety times": 80 < numbers()["wrong"] < 100,
        "Llama 3.1 8B is Llama 3 8B but for its context": replace(
            model("Llama 3 8B"),
            **{x: getattr(LLAMA, x) for x in ("name", "context", "mlp_width", "source")},
        )
        == LLAMA,
        "a GiB is a whole number of its tokens": 2**30 % token_bytes(LLAMA) == 0,
        "the intensity of heads of their own is 1, and of groups their size": (
            [intensity[name] for name in ("MHA", "GQA", "MQA")] == [1, 4, 32]
        ),
        "a latent cache has about 60": 55 < intensity["latent"] < 65,
        "below the balance point of the card": max(intensity.values()) < balance,
        "and with 128 heads above it": intensity["latent"] * 128 / CACHES["latent"].heads > balance,
        "a gigabyte of MHA or GQA takes what is predicted, within the share that is printed": (
            len(large()) > 8
            and max(map(abs, large())) <= float(f"{numbers()['large_over']:.2f}") < 0.15
        ),
        "some are faster than predicted, by no more than is printed, none than the data sheet": (
            0.03 < beyond() <= float(f"{numbers()['beyond']:.2f}")
            and READING / (1 - beyond()) < CARD.bandwidth
        ),
        "one user's GQA does not": 0.15 < over("GQA", LONG) < 0.3,
        "with four times the parts MQA takes four times as much beyond its bytes, to 5 per cent": (
            parts_of(LONG // 4) == 4 * parts_of(LONG // 16)
            and abs(excess("MQA", LONG // 4) / excess("MQA", LONG // 16) / 4 - 1) < 0.05
        ),
        "with as many parts and four times the tokens it takes a third more": (
            parts_of(LONG // 4) == parts_of(LONG)
            and 1.3 < excess("MQA", LONG) / excess("MQA", LONG // 4) < 1.37
        ),
        "standard attention is faster on a latent cache than our kernel, from 4096 tokens on": all(
            ratio > 1 for n, ratio in latent_ratios().items() if n >= 4096
        ),
        "from 14 users of 8192 tokens on a step reads more cache than weights": (
            math.ceil(numbers()["even_users"]) == 14
        ),
        "the two records of products differ by less than a tenth": (
            1 < numbers()["rate_tflops"] / numbers()["other_tflops"] < 1.1
        ),
        "flash and our kernel are within a tenth where the cache is large": all(
            abs(recorded(c, LONG) / recorded(c, LONG, "flash") - 1) < 0.1 for c in ("MHA", "GQA")
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
            recorded(c, LENGTHS[0]) < 1.5 * recorded(c, SHORTEST) for c in ("GQA", "MQA", "latent")
        ),
        "a user of many costs a fourth with GQA of what it costs with MHA": (
            3.5 < recorded("MHA", EIGHT_K, users=32) / recorded("GQA", EIGHT_K, users=32) < 4.5
        ),
        "users share the weights and not the cache": all(
            isinstance(w, Workload) and w.k_bytes == 8 * replace(w, batch=1).k_bytes
            for w in [replace(CACHES["GQA"], batch=8, kv_len=EIGHT_K)]
        ),
    }
