"""Cases of the explorer, drawn at random, and what a trace finds for them."""

import random
import warnings
from typing import Any

from attnmem.lessons.explorer import CARDS, FUSED, GROUPED, OFFERED, TILED
from attnmem.lessons.shared import known
from attnmem.prediction.allocator import cublas_workspace
from attnmem.prediction.choice import which_kernel
from attnmem.prediction.trace import max_seq_len, trace
from attnmem.roofline import attainable_seconds
from attnmem.workload import Workload

Case = dict[str, Any]

# Of one case, in the browser: everything as text, since JSON has no whole numbers of this size.
EVALUATE = """cases => cases.map(({program, training, card, memory, ...given}) => {
  const { run, refusedOn, sizesOf, longest, leastSeconds, CARDS } = window.explorer;
  const on = CARDS.find(({ name }) => name === card);
  const found = run(sizesOf(given), program, training);
  if (found.refused || refusedOn(on, given, program, training)) return null;
  const { requested, allocated, reserved, saved, flops, bytes, workspaces } = found;
  return {
    numbers: [requested, allocated, reserved, saved, flops, bytes, workspaces].map(String),
    alive: found.alive.map(({ name, bytes }) => [name, String(bytes)]),
    live: program === "tiled_attention" ? [] : found.timeline.map(({ live }) => String(live)),
    seconds: leastSeconds(found.steps, on),
    longest: memory ? longest(given, program, training, BigInt(memory)) : null,
  };
})"""


def draw(chance: random.Random, program: str = "") -> Case:
    """Any sizes that the page takes: small and odd ones, round ones, and the largest."""
    program = program or chance.choice([*OFFERED])
    tiled = program == TILED  # whose trace takes long: its events grow with N², too
    rows = (chance.randint(1, 300), 64 * chance.randint(1, 512), 2 ** chance.randint(0, 20))
    n = chance.choice((*rows, chance.randint(1, 100_000)))
    h = chance.choice((1, 2, 8, 12, 16, 32, 96, chance.randint(1, 128)))
    groups = [g for g in range(1, h + 1) if h % g == 0] if program in GROUPED else [h]
    dims = (64, 128, 8 * chance.randint(1, 40), chance.randint(1, 320), chance.randint(1, 1024))
    return {
        "program": program,
        "training": chance.random() < 0.5,
        "card": chance.choice(CARDS).name,
        "B": chance.choice((1, 2, 4, chance.randint(1, 256))),
        "H": h,
        "G": chance.choice((h, *groups)),
        "N": chance.randint(1, 700) if tiled else n,
        "d": chance.choice(dims),
        "dtype": chance.choice(("float16", "bfloat16", "float32")),
        "memory": 0,
    }


def workload(case: Case) -> Workload:
    """The sizes of a case."""
    groups = case["G"] if case["G"] != case["H"] else None
    sizes = {"batch": case["B"], "heads": case["H"], "seq_len": case["N"], "head_dim": case["d"]}
    return Workload(**sizes, dtype=case["dtype"], kv_heads=groups)


def expected(case: Case) -> dict[str, Any] | None:
    """What the page must find; ``None`` where the program, or the card, does not take the case."""
    w, program = workload(case), OFFERED[case["program"]]
    card = next(card for card in CARDS if card.name == case["card"])
    kernel = FUSED.get(case["program"])
    if kernel:
        choice = which_kernel(w, training=case["training"], capability=known(card.capability))
        if kernel not in choice.possible:
            return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            t = trace(program, w, case["training"])
        except RuntimeError:
            return None
        memory = case["memory"]
        longest = max_seq_len(program, w, memory, case["training"]) if memory else None
    steps = [step for step in t.steps if step.stage != "inputs"]
    numbers = (
        t.peak_bytes,
        t.peak_allocated_bytes,
        t.peak_reserved_bytes,
        t.saved_bytes,
        sum(step.flops for step in steps),
        sum(step.bytes_moved for step in steps),
        t.workspace_bytes() // cublas_workspace((9, 0)),
    )
    return {
        "numbers": [str(x) for x in numbers],
        "alive": [[name, str(size)] for name, size in t.at_peak.items()],
        "live": [str(event.live) for event in t.timeline] if case["program"] != TILED else [],
        "seconds": sum(attainable_seconds(step, card) for step in steps),
        "longest": longest,
    }
