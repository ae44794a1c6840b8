"""Numbers in prose are glued from a cell, or there is a reason why not."""

import re

import pytest
from conftest import PAGES

UNIT = (
    r"(?:[kKMGTP]i?B(?:/s)?|(?<=\s)B|bytes?|[kMGTP]?FLOPs?(?:/s|/B)?|[nµm]s|s|seconds?|minutes?|hours?"
    r"|%|per cent|times|[kMG]Hz)"
)
CODE = re.compile(r"(\{(code-cell|literalinclude|toctree|bibliography|eval-rst)\}.*|\w*)$")
NUMBER = re.compile(rf"(?<![\w.,^])\d[\d.,]*(?:\s|[\u00a0\u202f])?{UNIT}(?![\w/])")

# (page, text) -> why it is typed.
ALLOWED = {
    ("training", "0.4 GB"): "what a problem assumes",
    ("setup", "1 kB"): "definition of a unit",
    ("setup", "1 MB"): "definition of a unit",
    ("setup", "1 GB"): "definition of a unit",
    ("setup", "1 MiB"): "definition of a unit",
    ("setup", "1 GiB"): "definition of a unit",
    ("notation", "1 kB"): "definition of a unit",
    ("notation", "1 MB"): "definition of a unit",
    ("notation", "1 GB"): "definition of a unit",
    ("notation", "1 KiB"): "definition of a unit",
    ("notation", "1 MiB"): "definition of a unit",
    ("notation", "1 GiB"): "definition of a unit",
    ("memory", "99 %"): "the question of an exercise",
    ("memory", "80 GiB"): "the name of a card",
    ("summary", "8 GiB"): "the question of an exercise",
    ("tiles", "55 per cent"): "the question of an exercise",
    ("published", "1 MB"): "the question of an exercise",
    ("published", "32 MB"): "the question of an exercise",
    ("published", "1.07 GB"): "the question of an exercise",
    ("measurement", "512 B"): "a rule of the allocator's source",
    ("measurement", "1 MiB"): "a rule of the allocator's source",
    ("measurement", "2 MiB"): "a rule of the allocator's source",
    ("measurement", "10 MiB"): "a rule of the allocator's source",
    ("measurement", "20 MiB"): "a rule of the allocator's source",
}


def prose(text: str) -> str:
    """What a page says in words: no code, no mathematics, nothing that is looked up."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.S)
    kept: list[str] = []
    fences: list[tuple[str, bool]] = []
    for line in text.splitlines():
        fence = re.match(r"`{3,}", line)
        if fence and fences and line == fences[-1][0]:
            fences.pop()
        elif fence and not any(is_code for _, is_code in fences):
            fences.append((fence[0], bool(CODE.fullmatch(line.lstrip("`")))))
            kept.append(line)  # an admonition has a title
        elif not any(is_code for _, is_code in fences):
            kept.append(line)
    text = re.sub(r"\{[\w:-]+\}`[^`]*`|(?<!`)`[^`]+`(?!`)", "", "\n".join(kept))
    text = re.sub(r"\$\$.*?\$\$|\$[^$]*\$", "", text, flags=re.S)
    return re.sub(r"\]\([^)]*\)", "]", text)


def typed_numbers(page: str, text: str) -> set[tuple[str, str]]:
    return {(page, " ".join(found.split())) for found in NUMBER.findall(prose(text))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_numbers_with_units_are_glued(page):
    assert typed_numbers(page.stem, page.read_text()) - set(ALLOWED) == set()


def test_every_exception_is_still_there():
    found = set().union(*(typed_numbers(page.stem, page.read_text()) for page in PAGES))
    assert set(ALLOWED) - found == set()


@pytest.mark.parametrize(
    "text",
    [
        "takes 12.5 MB.",
        "holds\n```{table-caption} tab\nof 512 B\n```\n and more.",
        "a 3 GB tensor",
        "by 34 %,",
        "7.7 times as fast",
        "in 12 µs",
    ],
)
def test_a_typed_number_is_found(text):
    assert len(typed_numbers("page", f"It {text}")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "takes {glue:text}`size`.",
        "takes $2$ bytes, `3 MB` of $4$ GB",
        "```{code-cell} python3\nprint('5 MB')\n```",
        "in 16 bit, with 12 heads",
        "Llama 3 8B has 8 heads",
    ],
)
def test_other_numbers_are_not(text):
    assert typed_numbers("page", text) == set()


def test_the_exceptions_have_reasons():
    assert all(len(reason) > 10 for reason in ALLOWED.values())


SENTENCE_ENDS = re.compile(
    r"(?<!\be\.g)(?<!\bi\.e)(?<!\bet al)(?<!\b[A-Z])[.!?][\"')*”’_]* (?=[A-Z\"“])"
)
SENTENCE_ENDED = re.compile(r"[.!?:;|][\"')*”’_$`]*$")


def lines_of_more_or_less(text: str) -> list[str]:
    """The lines of a page's prose that hold more than one sentence, or end within one."""
    lines = prose(text).splitlines()
    more = [
        line for line in lines if SENTENCE_ENDS.search(line) and not line.startswith(("|", ":"))
    ]
    goes_on = zip(lines, [*lines[1:], ""], strict=True)
    less = [
        a
        for a, b in goes_on
        if re.match(r"[a-z]", b) and re.match(r"[^:`]", a) and not SENTENCE_ENDED.search(a)
    ]
    return more + less


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_line_is_a_sentence(page):
    assert lines_of_more_or_less(page.read_text()) == []


@pytest.mark.parametrize("text", ["One. Two.", "It goes\non."])
def test_a_line_that_is_not_a_sentence_is_found(text):
    assert len(lines_of_more_or_less(text)) == 1
