"""Out-of-memory messages: what they say, which tensors they name, and what people reported."""

import json
import math
import random
import re
from dataclasses import replace

import pytest
import torch
from conftest import ROOT
from hypothesis import example, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from attnmem.__main__ import app
from attnmem.catalog import MODELS
from attnmem.lessons.messages import GROUPS, table_of_reports
from attnmem.messages import explain, parse
from attnmem.messages import shapes as kinds
from attnmem.messages.forms import METAL_ROUNDING, Range, size_range
from attnmem.messages.odds import odds
from attnmem.messages.reports import REPORTS, Report
from attnmem.messages.shapes import Known, Shape, families, images, shapes
from attnmem.prediction.allocator import printed_size, segment_size

MIB, GIB = 2**20, 2**30
TRIED = "CUDA out of memory. Tried to allocate "

# PyTorch 1.0, 1.4, 1.10, 2.1 ("capacty"), 2.2, 2.10; the same on other devices; other programs.
OLD = "(GPU 0; 15.78 GiB total capacity; 14.28 GiB already allocated; 620.69 MiB free; "
NEW = (
    "GPU 0 has a total capacity of 10.74 GiB of which 3.69 GiB is free. Including non-PyTorch "
    "memory, this process has 6.68 GiB memory in use. Of the allocated memory 6.10 GiB is allocated"
    " by PyTorch, and 396.58 MiB is reserved by PyTorch but unallocated."
)
FORMS = {
    TRIED + "786.00 MiB " + OLD + "25.84 MiB cached)": "CUDA",
    TRIED + "786.00 MiB " + OLD + "14.32 GiB reserved in total by PyTorch)": "CUDA",
    TRIED + "786.00 MiB. " + NEW: "CUDA",
    TRIED + "786.00 MiB. " + NEW.replace("capacity", "capacty"): "CUDA",
    "HIP out of memory. Tried to allocate 786.00 MiB. " + NEW: "HIP",
    "XPU out of memory. Tried to allocate 786.00 MiB. " + NEW: "XPU",
    "larger than 4GB! Tried to allocate 786.00 MiB (GPU  0; 15.56 GiB total capacity": "XPU",
    "Tried to allocate 786.00 MiB": "GPU",
}


@pytest.mark.parametrize("text", FORMS)
def test_a_size_that_is_asked_of_the_driver_stands_for_tensors_of_two_mib(text):
    message = parse(f"Traceback …\n  File a.py\n{text}\nSee documentation for Memory Management")
    assert message.backend == FORMS[text]
    assert message.tensor == Range(784 * MIB + 1, 786 * MIB)
    assert not message.shared
    assert bool(message.capacity) == ("total capac" in text)


def test_what_else_a_message_says():
    old = parse(TRIED + "786.00 MiB " + OLD + "14.32 GiB reserved in total by PyTorch)")
    assert 14.28 * GIB in old.allocated
    assert 14.32 * GIB in old.reserved
    assert 620.69 * MIB in old.free
    assert 15.78 * GIB in old.capacity
    first = parse(TRIED + "786.00 MiB " + OLD + "25.84 MiB cached)")
    assert first.unused == size_range("25.84", "MiB")
    new = parse(TRIED + "2.00 GiB. " + NEW)
    assert new.unused == size_range("396.58", "MiB")
    assert 6.10 * GIB + 396.58 * MIB in new.reserved
    assert 3.69 * GIB in new.free
    none = parse(
        TRIED + "1.70 GiB. GPU 0 has a total capacty of 6.00 GiB of which 0 bytes is free."
    )
    assert none.free == Range(0, 0)


@pytest.mark.parametrize(
    ("text", "backend", "size"),
    [
        (
            "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate "
            "memory: you tried to allocate 757873484280 bytes. Error code 12",
            "CPU",
            757873484280,
        ),
        (
            "DefaultCPUAllocator: not enough memory: you tried to allocate 66846720 bytes.",
            "CPU",
            66846720,
        ),
        (
            "OOM when allocating tensor with shape[32,4,4096,4096] and type float on",
            "TensorFlow",
            2**33,
        ),
        ("OOM when allocating tensor with shape[8,2] and type half on", "TensorFlow", 32),
        (
            "Resource exhausted: Out of memory while trying to allocate 12582912 bytes.",
            "XLA",
            12582912,
        ),
    ],
)
def test_some_print_a_tensor_to_the_byte(text, backend, size):
    message = parse(text)
    assert (message.backend, message.tensor) == (backend, Range(size, size))


def test_forms_that_round_what_they_print():
    metal = parse(
        "MPS backend out of memory (MPS allocated: 4.06 GB, other allocations: 2.73 GB, max allowed"
        ": 6.77 GB). Tried to allocate 192.00 MB on private pool."
    )
    assert metal.backend == "MPS"
    assert metal.tensor.low == math.ceil(191.995 * MIB) - METAL_ROUNDING + 1
    assert 4.06 * GIB in metal.allocated
    assert 6.77 * GIB in metal.capacity
    invalid = parse("RuntimeError: Invalid buffer size: 2.25 GB")
    assert (invalid.backend, invalid.tensor) == ("MPS", size_range("2.25", "GB"))
    asynchronous = parse(
        "Allocation on device 0 would exceed allowed memory. (out of memory)\nCurrently allocated"
        "     : 9.43 GiB\nRequested               : 640.00 MiB\n"
        "Device limit            : 11.59 GiB\nFree (according to CUDA): 7.12 MiB"
    )
    assert asynchronous.tensor == size_range("640.00", "MiB")
    assert 7.12 * MIB in asynchronous.free
    assert 11.59 * GIB in asynchronous.capacity


@given(st.integers(1, 2**42))
def test_the_tensor_that_asked_is_always_in_the_range(size):
    message = parse(TRIED + printed_size(segment_size(size)))
    assert size in message.tensor
    assert message.shared == (size <= 10 * MIB - 512 or segment_size(size) == 20 * MIB)
    # PyTorch 1.0: 1 MiB for all that is small, else a multiple of 128 KiB
    first = MIB if size <= MIB else -(-size // 2**17) * 2**17
    assert size in parse(f"{TRIED}{printed_size(first)} {OLD}25.84 MiB cached)").tensor
    assert (
        size
        in parse(
            f"DefaultCPUAllocator: can't allocate memory: you tried to allocate {size} bytes."
        ).tensor
    )


@given(st.integers(0, 2**45))
def test_a_printed_size_stands_for_all_that_print_so(size):
    number, unit = printed_size(size).split()
    assert size in size_range(number, unit)


@pytest.mark.parametrize("text", ["", "RuntimeError: CUDA error: out of memory", "Killed"])
def test_a_text_without_a_size_is_refused_by_what_was_looked_for(text):
    with pytest.raises(ValueError, match=r"must say how much .* 'Tried to allocate 2.00 GiB'"):
        parse(text)


def test_an_unknown_type_is_named():
    with pytest.raises(ValueError, match=r"type must be .*'string'"):
        parse("OOM when allocating tensor with shape[8,2] and type string on")


# Which tensor


def scores(b: int, h: int, n: int, dtype: torch.dtype) -> int:
    return b * h * n * n * dtype.itemsize


@given(
    st.sampled_from(MODELS),
    st.integers(1, 64),
    st.floats(0, 1),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
)
def test_the_true_scores_are_among_the_candidates_if_their_sizes_are_given(
    model, batch, part, dtype
):
    n = max(1, round(part * model.context))
    size = scores(batch, model.heads, n, dtype)
    sizes = {"heads": model.heads, "seq_len": n, "batch": batch, "dtype": dtype}
    answer = explain(TRIED + printed_size(segment_size(size)), **sizes)
    factors = {"sequences": batch, "heads": model.heads, "tokens": n, "bytes": dtype.itemsize}
    (found,) = (s for s in answer.candidates if s.kind == kinds.SCORES)
    assert dict(found.factors) == factors
    assert found.bytes == size


@given(st.integers(1, 64), st.integers(1, 10**5), st.integers(2, 300_000))
@example(4, 1024, 50257)
@example(4, 4096, 50257)  # longer than the model that has these words can read
def test_the_true_logits_are_among_the_candidates_if_their_sizes_are_given(batch, n, words):
    size = batch * n * words * 4
    sizes = {"seq_len": n, "batch": batch, "vocabulary": words, "dtype": "float32"}
    answer = explain(TRIED + printed_size(segment_size(size)), **sizes)
    assert size in {s.bytes for s in answer.candidates if s.kind == kinds.LOGITS}


NOT_ATTENTION = {
    "a segment that all share": TRIED + "20.00 MiB",
    "a small segment": TRIED + "2.00 MiB",
    "GPT-2's words": TRIED + printed_size(segment_size(50257 * 768 * 4)),
    "Llama 3's words": TRIED + printed_size(segment_size(128256 * 4096 * 2)),
    "BERT's words": TRIED + printed_size(segment_size(30522 * 768 * 4)),
    "an odd number of bytes": "can't allocate memory: you tried to allocate 1234567891 bytes",
    "pictures": "not enough memory: you tried to allocate 66846720 bytes",
    "logits": TRIED + "786.00 MiB",
}
ROUND = ["256.00 MiB", "512.00 MiB", "1024.00 MiB", "2.00 GiB", "4.00 GiB", "8.00 GiB", "16.00 GiB"]


@pytest.mark.parametrize("text", NOT_ATTENTION.values(), ids=NOT_ATTENTION)
def test_what_is_not_attention_gets_no_answer_of_attention(text):
    answer = explain(text)
    assert not answer.attention
    assert not {"what-to-do-kernel", "what-to-do-lost"} & set(answer.cures)


@pytest.mark.parametrize("size", ROUND)
def test_a_size_that_many_shapes_have_says_so(size):
    answer = explain(TRIED + size)
    assert answer.candidates
    assert answer.sure == "by chance"
    assert "Says nothing" in str(answer)
    assert answer.cures == ()


def test_sizes_at_random_are_seldom_taken_for_attention():
    """They are nobody's tensors; a long list of shapes must not catch them."""
    draw = random.Random(0)
    sizes = [int(2 ** draw.uniform(24, 38)) for _ in range(400)]
    answers = [explain(TRIED + printed_size(segment_size(size))) for size in sizes]
    sure = [a for a in answers if a.attention and a.sure != "a guess"]
    assert len(sure) < 0.05 * len(answers)
    assert sum(a.attention for a in answers) < 0.15 * len(answers)


def test_what_is_known_narrows_the_answer():
    text = TRIED + "384.00 MiB"
    ways = [explain(text), explain(text, heads=12), explain(text, heads=12, seq_len=1024)]
    ways.append(explain(text, heads=12, seq_len=1024, batch=8))
    counts = [len(answer.candidates) for answer in ways]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 1
    assert ways[-1].sure == "likely"
    assert not explain(text, heads=13, seq_len=1000, batch=8).candidates


def test_a_length_is_asked_for_where_heads_and_batch_are_given():
    answer = explain(TRIED + "268.21 GiB", heads=1, batch=1, dtype="float32")
    assert any("268,320 to 268,325 tokens" in note for note in answer.notes)


def test_the_rest_of_the_message_is_read():
    more = "(GPU 0; 12.00 GiB total capacity; 2.37 GiB already allocated; 7.40 GiB free)"
    assert "more than the whole card" in str(explain(TRIED + "21.76 GiB " + more))
    free = "(GPU 0; 15.78 GiB total capacity; 5.17 GiB already allocated; 8.68 GiB free)"
    assert "More was free" in str(explain(TRIED + "394.00 MiB " + free))
    held = NEW.replace("396.58 MiB", "2.30 GiB")
    assert "what-to-do-fragmentation" in str(explain(TRIED + "1.70 GiB. " + held))
    assert explain(TRIED + "1.70 GiB. " + NEW.replace("3.69", "1.69")).notes == ()


@pytest.mark.parametrize(
    ("sizes", "name"),
    [
        ({"heads": 0}, "heads"),
        ({"seq_len": 2.5}, "seq_len"),
        ({"batch": True}, "batch"),
        ({"vocabulary": -1}, "vocabulary"),
        ({"dtype": "float15"}, "dtype"),
    ],
)
def test_a_wrong_size_is_named(sizes, name):
    with pytest.raises(ValueError, match=f"{name} must be .*{next(iter(sizes.values()))}"):
        explain(TRIED + "2.00 GiB", **sizes)


def test_a_full_card_is_not_called_fragmented():
    full = "10.76 GiB total capacity; 9.71 GiB already allocated; 9.83 GiB reserved in total"
    torn = full.replace("9.71", "5.71")
    said, held = (str(explain(f"{TRIED}20.00 MiB (GPU 0; {text})")) for text in (full, torn))
    assert "last drop" in " ".join(said.split())
    assert "fragmentation" not in said
    assert "fragmentation" in held


def test_every_cure_is_a_section_of_what_to_do():
    page = (ROOT / "book" / "en" / "what-to-do.md").read_text()
    all_kinds = (kinds.SCORES, kinds.MASK, kinds.LOGITS, kinds.MLP, kinds.TABLE)
    for label in {kind.cure for kind in all_kinds} | {"what-to-do-fragmentation"}:
        assert f"\n({label})=\n## " in page


def test_families_have_sources_and_sizes_that_belong_together():
    for family in (*families(), *images()):
        assert len(family.source) > 20
        assert family.width is None or family.width % family.heads == 0
    assert all(shape.bytes > 0 for shape in shapes(Known()))


def test_odds_are_probabilities_and_an_exact_hit_outweighs_a_wide_one():
    tried = shapes(Known())
    size = 4 * 1024 * 50257 * 4
    sums = [sum(odds(Range(size - width, size), tried).values()) for width in (0, MIB, 8 * MIB)]
    assert 1 > sums[0] > sums[1] > sums[2] > 0
    assert odds(Range(size, size), ()) == {}


# Reports

OPEN = {"keras-multi-head#1", "FramePack#369", "EasyEdit#563", "alphafold#185"}
OPEN |= {"comfy_controlnet_preprocessors#50", "ComfyUI#7164"}
OTHERS = dict.fromkeys(OPEN, "open") | {"pytorch-generative#22": "mistaken"}
OTHERS |= {"easydiffusion#977": "segment", "GenerativeGraph#5": "segment"}


def name(report: Report) -> str:
    return report.where.partition("/")[2]


@pytest.mark.parametrize("report", REPORTS, ids=name)
def test_a_report_is_recomputed(report):
    assert report.verdict == OTHERS.get(name(report), "fits")
    assert re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", report.where)
    assert bool(report.message) != bool(report.words)
    assert len(report.answer) > 20


@pytest.mark.parametrize("report", [r for r in REPORTS if r.verdict == "fits"], ids=name)
def test_another_tensor_would_not_fit(report):
    *rest, last = report.tensor
    if not report.at_least:
        assert replace(report, tensor=(*rest, last, 2)).verdict == "open"
    assert replace(report, tensor=(*rest, 1, 0)).verdict == "open"


@pytest.mark.parametrize("report", [r for r in REPORTS if r.given and r.message], ids=name)
def test_with_its_sizes_the_answer_is_the_report_s(report):
    answer = report.explained()
    assert answer.answered
    assert report.bytes in {shape.bytes for shape in answer.candidates}
    best: Shape = next(iter(answer.ways.values()))[0]
    assert best.kind == (kinds.LOGITS if report.kind == "logits" else kinds.SCORES)


def test_the_tables_have_each_report_once_with_its_address():
    tables = [table_of_reports(group) for group in GROUPS]
    assert sum(len(table.rows) for table in tables) == len(REPORTS)
    link = '<a href="https://github.com/karpathy/nanoGPT/issues/61">nanoGPT#61</a>'
    assert link in tables[0]._repr_html_()


# The shell


def ask(*arguments: str, text: str = ""):
    return CliRunner(env={"NO_COLOR": "1", "COLUMNS": "200"}).invoke(app, arguments, input=text)


def test_the_shell_explains_an_argument_and_standard_input():
    message = TRIED + "786.00 MiB"
    assert ask("explain", message).output == ask("explain", "-", text=message).output
    assert ask("explain", message).output == f"{explain(message)}\n"
    found = json.loads(ask("explain", message, "--json", "--batch", "4").output)
    assert found["cures"] == ["what-to-do-loss"]
    assert found["sure"] == "likely"


@pytest.mark.parametrize("line", [["explain", "hello"], ["explain", "-", "--dtype", "x"]])
def test_the_shell_answers_a_wrong_message_with_usage(line):
    done = ask(*line, text=TRIED + "2.00 GiB")
    assert done.exit_code == 2
    assert "Usage:" in done.output


def test_an_address_is_never_broken():
    answer = str(explain("Tried to allocate 786.00 MiB"))
    assert any(line.endswith("what-to-do.html#what-to-do-loss") for line in answer.splitlines())
    assert max(map(len, answer.splitlines())) <= 49


def test_nothing_was_asked_for():
    with pytest.raises(ValueError, match="1 byte or more, got 'Tried to allocate 0 bytes'"):
        explain("Tried to allocate 0 bytes")
