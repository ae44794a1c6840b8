"""The explorer: what every program does at any sizes, as a page can evaluate it; common cases."""

import random
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache, partial
from itertools import groupby, product
from math import lcm
from multiprocessing import get_context
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnmem.catalog import ACCELERATORS, MODELS, accelerator, model
from attnmem.lessons.shared import known
from attnmem.lessons.table import Table
from attnmem.prediction.allocator import cublas_workspace
from attnmem.prediction.choice import which_kernel
from attnmem.prediction.conditions import all_hold
from attnmem.prediction.kernels.fused import MULTIPROCESSORS
from attnmem.prediction.listing import Draw, Piece, Work, draw, draw_groups, listing
from attnmem.prediction.loops import Turns, turns
from attnmem.prediction.symbolic import Polynomial
from attnmem.prediction.trace import max_seq_len, trace
from attnmem.programs import PROGRAMS, Program
from attnmem.tiles.attention import tiled_attention
from attnmem.workload import Workload, dtype_name


def fused(backend: SDPBackend, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """A kernel of PyTorch's, told that heads share keys where they do."""
    with sdpa_kernel(backend):
        shared = k.shape[1] != q.shape[1]
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=shared)


#: The programs of the page: the package's; two of PyTorch's kernels take shared keys if told so.
OFFERED: dict[str, Program] = {
    **{p.__name__: p for p in PROGRAMS},
    "math_sdpa": partial(fused, SDPBackend.MATH),
    "flash_sdpa": partial(fused, SDPBackend.FLASH_ATTENTION),
}

TILED = "tiled_attention"
OFFERED[TILED] = tiled_attention

#: Those whose heads may share keys. Elsewhere K and V must have all heads.
GROUPED = ("standard_attention", "causal_attention", "math_sdpa", "flash_sdpa")

#: The cards of the page: whose compute capability is known, from which follows what PyTorch keeps
#: for cuBLAS, and which kernels it takes.
CARDS = tuple(card for card in ACCELERATORS if card.capability)
#: The programs that are one kernel of PyTorch's, which a card may not take.
FUSED = {"flash_sdpa": "flash", "efficient_sdpa": "efficient", "cudnn_sdpa": "cudnn"}
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
WIDEST = 1024  # the largest head dimension of the page

#: Sums of what a kernel's backward pass cuts in parts have more terms to choose from than a listing
#: has samples by itself, where heads are as wide as here.
SAMPLES = 90


class _Places(dict[Any, int]):
    """Things, each once, and the place of each."""

    def __missing__(self, thing: Any) -> int:
        self[thing] = len(self)
        return self[thing]


class _Data:
    """The pieces of programs as numbers: places in tables of what they have in common."""

    def __init__(self) -> None:
        self.factors, self.sums, self.labels = _Places(), _Places(), _Places()
        self.tensors, self.steps, self.conditions = _Places(), _Places(), _Places()

    def sum(self, p: Polynomial) -> int:
        """A common denominator, then for each term its numerator and its factors."""
        below = lcm(*(c.denominator for c in p.terms.values()))
        terms = tuple(
            (int(c * below), *(self.factors[x] for x in m)) for m, c in sorted(p.terms.items())
        )
        return self.sums[(below, *terms)]

    def events(self, piece: Piece) -> Iterator[int]:
        """What happens, where a release says how many older tensors are alive."""
        live: list[int] = []
        made = 0
        for event in piece.events:
            if isinstance(event, int):
                place = live.index(event)
                live.pop(place)
                yield self.event(place)
            else:
                yield self.event(event)
                live.append(made)
                made += 1

    def event(self, event: tuple[str, Polynomial] | int) -> int:
        """A tensor that is allocated; or −1 − the place of the one that is freed."""
        if isinstance(event, int):
            return -1 - event
        label, size = event
        return self.tensors[(self.labels[label], self.sum(size))]

    def step(self, step: tuple[Work, int]) -> int:
        """A step, and the bytes of an element of a matrix product, 1 for those of Q; 0: none."""
        work, element = step
        sums = (work.flops, work.bytes_read, work.bytes_written, work.special)
        names = self.labels[work.name], self.labels[work.stage]
        return self.steps[(*names, element, *map(self.sum, sums))]

    def piece(self, piece: Piece, elements: tuple[int, ...]) -> dict[str, Any]:
        """A piece of a listing."""
        found: dict[str, Any] = {"if": [self.conditions[c] for c in piece.conditions]}
        if piece.refused:
            return found | {"refused": re.sub(r"\d+ heads for \d+", "fewer heads", piece.refused)}
        steps = [*zip(piece.steps, elements, strict=True)]
        return found | {
            "events": [*self.events(piece)],
            "steps": [self.step(step) for step in steps if step[0].stage != "inputs"],
            "saved": self.sum(piece.saved),
            "workspaces": piece.workspaces,
        }

    def turns(self, turns: Turns) -> dict[str, Any]:
        """The same of a program that goes over tiles: lists of turns in lists."""

        def all_of(items: list[Any], one: Callable[[Any], int]) -> list[Any]:
            return [all_of(x, one) if isinstance(x, list) else one(x) for x in items]

        steps = [x for x in turns.steps if isinstance(x, list) or x[0].stage != "inputs"]
        return {
            "if": [self.conditions[c] for c in turns.conditions],
            "events": all_of(turns.events, self.event),
            "steps": all_of(steps, self.step),
            "saved": self.sum(turns.saved),
            "workspaces": turns.workspaces,
        }


def wider(drawn: Draw, chance: random.Random) -> Workload:
    """Sizes at random, with heads among them that are as wide as the page takes."""
    w = drawn(chance)
    return replace(w, head_dim=8 * chance.randint(33, 128)) if chance.random() < 0.2 else w


def pieces(name: str, training: bool) -> list[Any]:
    """What :class:`_Data` takes of a program: its pieces, with element sizes; or its turns."""
    if name == TILED:
        return [turns(e, training, one=one) for e in (2, 4) for one in (True, False)]
    program = OFFERED[name]
    how = partial(wider, draw_groups if name in GROUPED else draw)
    found = listing(program, training, draw=how, samples=SAMPLES).pieces
    return [(piece, _element_sizes(program, piece, training, how)) for piece in found]


def _element_sizes(program: Program, piece: Piece, training: bool, how: Draw) -> tuple[int, ...]:
    if piece.refused:
        return ()
    chance = random.Random(0)
    seen: dict[int, tuple[int, ...]] = {}
    for _ in range(2000):  # one of 16 and one of 32 bit, if there are
        w = how(chance)
        if w.element_bytes not in seen and all_hold(piece.conditions, w):
            steps = trace(program, w, training).steps
            seen[w.element_bytes] = tuple(s.dtype.itemsize * s.matrix for s in steps)
        if len(seen) == 2:
            break
    if len(seen) == 1:
        return next(iter(seen.values()))
    return tuple(
        0 if not half else 1 if half == 2 and full == 4 else half
        for half, full in zip(seen[2], seen[4], strict=True)
    )


@cache
def refusals(capability: tuple[int, int]) -> list[tuple[str, str, bool, int, int, str]]:
    """Where a card has a reason not to take a kernel that an H100 has not, by PyTorch's own rules.

    Each: program, dtype, whether in training, the first and the last head dimension, and why.
    """
    found = []
    for program, dtype, training in product(FUSED, DTYPES, (False, True)):
        why = partial(_refusal, capability, FUSED[program], dtype, training)
        for reason, (first, *more) in groupby(range(1, WIDEST + 1), key=why):
            if reason:
                last = [first, *more][-1]
                found.append((program, dtype_name(dtype), training, first, last, reason))
    return found


def _refusal(
    capability: tuple[int, int], kernel: str, dtype: torch.dtype, training: bool, d: int
) -> str | None:
    """Why a card does not take a kernel, in words that are the same for each head dimension."""
    w = Workload(batch=1, heads=1, seq_len=64, head_dim=d, dtype=dtype)
    here = which_kernel(w, training=training, capability=capability)
    if kernel in here.possible:
        return None
    there = which_kernel(w, training=training, capability=(9, 0))
    new = (why for why in here.reasons[kernel] if why not in there.reasons[kernel])
    return next((why.replace(f"head_dim {d}", "head_dim") for why in new), None)


def data() -> dict[str, Any]:
    """All that the page knows: programs, cards, models. About two minutes of a processor's time."""
    jobs = [(name, on) for on in (True, False) for name in reversed(OFFERED)]  # the long ones first
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        found = dict(zip(jobs, pool.map(_pieces, jobs), strict=True))
    made = _Data()
    programs = {
        name: [
            [made.turns(x) if name == TILED else made.piece(*x) for x in found[name, on]]
            for on in (False, True)
        ]
        for name in OFFERED
    }
    return {
        "programs": programs,
        "grouped": GROUPED,
        "multiprocessors": MULTIPROCESSORS,
        **{name: [*places] for name, places in vars(made).items()},
        "cards": [
            [
                card.name,
                card.memory_bytes,
                cublas_workspace(known(card.capability)),
                card.bandwidth,
                card.peak_flops(matrix=True),
                card.peak_flops(matrix=False),
                card.special_rate,
                refusals(known(card.capability)),
            ]
            for card in CARDS
        ],
        "models": [
            [m.name, m.layers, m.heads, m.kv_heads, m.head_dim, m.context]
            for m in MODELS
            if not m.latent_dim
        ],
    }


def _pieces(job: tuple[str, bool]) -> list[Any]:
    torch.set_num_threads(1)
    return pieces(*job)


def common() -> Table:
    """Cases that many ask for, for a browser that runs no script."""
    card = accelerator("RTX 4090")
    rows = []
    for name, lengths in (("GPT-2 medium", (1024,)), ("Llama 3 8B", (8192, 32768))):
        found = model(name)
        for length in lengths:
            w = replace(found.workload(length), kv_heads=found.kv_heads)
            for program in ("standard_attention", "flash_sdpa"):
                for training in (False, True):
                    t = trace(OFFERED[program], w, training)
                    longest = max_seq_len(OFFERED[program], w, card.memory_bytes, training)
                    mode = "training" if training else "inference"
                    rows.append((name, length, f"`{program}`", mode, t.peak_bytes / 1e9, longest))
    columns = {
        "one layer of": "",
        "tokens": ",",
        "program": "",
        "mode": "",
        "peak": "{:,.2f} GB",
        f"longest on an {card.name}": ",",
    }
    return Table(columns, rows)
