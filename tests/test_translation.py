"""The Chinese edition is never out of step with the English pages, and says what they say."""

import functools
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import answers
import pytest
from babel.messages.catalog import Catalog
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po
from conftest import PAGES, ROOT
from translated import PARSER, translated

from attnmem.exercises import check, judge

CHINESE = ROOT / "book" / "locale" / "zh_CN"
TERMS = tomllib.loads((CHINESE / "terms.toml").read_text())["always"]
ROLE = re.compile(r"\{([a-z:]+)\}`(?:([^`<]*?) ?<([^`<>]+)>|([^`]+))`")
FORMULA = re.compile(r"\$[^$]+\$")
CODE = re.compile(r"(`+).*?\1")
ADDRESS = re.compile(
    r'\b\w+(?:/\w+)+\.py\b|(?<=\]\()[^)]+(?=\))|(?<=href=")[^"]+(?=")|https?://[\w./#?=&%+~-]+'
)
TAG = re.compile(r"<[^>]*>")
# A formula of words is translated with them.
WORDS = re.compile(r"\\text\{[^}]*\}")


@functools.cache
def catalogue(name: str) -> Catalog:
    """What the edition says for the texts of a page."""
    with (CHINESE / "LC_MESSAGES" / f"{name}.po").open("rb") as file:
        return read_po(file)


@functools.cache
def texts(page: Path) -> tuple[str, ...]:
    """What Sphinx would collect from a page, once each."""
    found: dict[str, None] = {}

    def note(text: str) -> str:
        found[text] = None
        return text

    translated(page.read_text(), note)
    return tuple(found)


def pairs() -> Iterator[tuple[str, str, str]]:
    """Of every catalogue: its name, a text, and what the edition says."""
    for path in sorted((CHINESE / "LC_MESSAGES").glob("*.po")):
        for message in catalogue(path.stem):
            if message.id and message.string:
                yield path.stem, str(message.id), str(message.string)


def prose(text: str) -> str:
    """The words that a reader reads, without formulas, code and addresses."""
    shown = ROLE.sub(lambda m: m[2] or (m[4] if m[1] == "term" else ""), text)
    return TAG.sub("", ADDRESS.sub("", FORMULA.sub("", CODE.sub("", shown))))


def kept(text: str) -> Counter[tuple[str, str]]:
    """What a translation must have too: roles but for what they show, formulas, code, addresses."""
    found = Counter(("role " + kind, a or b) for kind, _, a, b in ROLE.findall(text))
    rest = ROLE.sub("", text)
    for kind, pattern in (("code", CODE), ("formula", FORMULA), ("address", ADDRESS)):
        found.update((kind, WORDS.sub("", part[0])) for part in pattern.finditer(rest))
        rest = pattern.sub("", rest)
    return found


def behind(name: str, of_page: tuple[str, ...]) -> list[str]:
    """The texts of a page that have no translation, or one of an older text."""
    said = {m.id: m for m in catalogue(name)}
    found = [(text, said.get(text)) for text in of_page if re.search("[A-Za-z]{2}", prose(text))]
    return [text for text, message in found if not message or not message.string or message.fuzzy]


def stray(text: str) -> list[str]:
    """What in a translation is no part of one paragraph, or a mark that marks nothing."""
    tokens = PARSER.parse(text)
    kinds = [token.type for token in tokens]
    if kinds != ["paragraph_open", "inline", "paragraph_close"]:
        return kinds
    return [
        t.content for t in tokens[1].children if t.type == "text" and re.search(r"[*$`]", t.content)
    ]


def misnamed(english: str, chinese: str) -> list[str]:
    """The terms of the list that the English has, and the Chinese does not."""
    words, said = prose(english), prose(chinese)
    return [
        term
        for term, names in TERMS.items()
        if re.search(rf"(?<![\w-]){term}s?(?![\w-])", words, re.I)
        and not any(name.lower() in said.lower() for name in names)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_text_of_a_page_is_translated(page):
    assert behind(page.stem, texts(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_translation_outlives_its_text(page):
    assert {m.id for m in catalogue(page.stem) if m.id} <= {*texts(page)}
    assert not catalogue(page.stem).obsolete


def test_the_interface_is_translated():
    assert [m.id for m in catalogue("sphinx") if m.id and (not m.string or m.fuzzy)] == []


def test_a_translation_keeps_roles_formulas_code_and_addresses():
    wrong = [
        (name, kept(a) - kept(b), kept(b) - kept(a)) for name, a, b in pairs() if kept(a) != kept(b)
    ]
    assert wrong == []


def test_a_translation_is_one_paragraph_without_stray_marks():
    wrong = [(name, b, stray(b)) for name, a, b in pairs() if stray(b) and not stray(a)]
    assert wrong == []


def test_a_term_is_named_as_the_list_names_it():
    wrong = [(name, terms, b) for name, a, b in pairs() if (terms := misnamed(a, b))]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("两个矩阵 $S$ 和 {glue:text}`a:.1f` GB。", []),
        ("1. 两个矩阵", ["ordered_list_open"]),
        ("# 两个矩阵", ["heading_open"]),
        ("**问题。**标准注意力", ["**问题。**标准注意力"]),
        ("一\n\n二", ["paragraph_open", "inline", "paragraph_close"]),
        ("$S 和 P", ["$S 和 P"]),
    ],
)
def test_what_is_no_paragraph_is_found(text, found):
    assert stray(text)[: len(found)] == found


@pytest.mark.parametrize(
    "chinese",
    [
        "{term}`词元 <tokens>`：$N$，`w.seq_len`，[见](#a)",
        "{term}`词元 <token>`：$M$，`w.seq_len`，[见](#a)",
        "{term}`词元 <token>`：$N$，`w.heads`，[见](#a)",
        "{term}`词元 <token>`：$N$，`w.seq_len`，[见](#b)",
        "{term}`词元 <token>`：$N$ $N$，`w.seq_len`，[见](#a)",
    ],
)
def test_what_is_not_kept_is_found(chinese):
    english = "{term}`token`s: $N$, `w.seq_len`, [see](#a)"
    assert kept(english) == kept("{term}`词元 <token>`：$N$，`w.seq_len`，[见](#a)")
    assert kept(english) != kept(chinese)


def test_a_text_that_changed_is_named():
    name, english, _ = next(pairs())
    page = ROOT / "book" / "en" / f"{name}.md"
    assert behind(name, (english, f"{english} It has grown.")) == [f"{english} It has grown."]
    assert english in texts(page)


def test_a_term_by_another_name_is_found():
    assert misnamed("Tokens and **segments**", "词元和段") == []
    assert misnamed("Tokens and **segments**", "令牌和段") == ["token"]
    assert misnamed("`token` and {doc}`attention`", "二者") == []


ANSWERS = ROOT / "attnmem" / "locale" / "zh_CN" / "LC_MESSAGES" / "exercises"


def test_what_check_says_is_in_its_catalogue():
    with ANSWERS.with_suffix(".po").open("rb") as file:
        found = {str(m.id): str(m.string) for m in read_po(file) if m.id}
    assert {*answers.texts(ROOT / "attnmem" / "exercises")} == {*found}
    with ANSWERS.with_suffix(".mo").open("rb") as file:
        compiled = {str(m.id): str(m.string) for m in read_mo(file) if m.id}
    assert compiled == {text: said for text, said in found.items() if said}
    values = re.compile(r"\{\d[^}]*\}")
    for text, said in compiled.items():
        assert sorted(values.findall(text)) == sorted(values.findall(said)), text


def test_check_answers_in_a_reader_s_language(monkeypatch, capsys):
    assert judge("memory-1", 4.2).message == "too small, by a factor of 1.023"
    assert judge("memory-1", 4.2, "zh_CN").message == "偏小，差 1.023 倍"
    monkeypatch.setenv("LANGUAGE", "zh_CN:en")
    check("memory-1", ...)
    check("memory-1", ..., language="en")
    said, spoken = capsys.readouterr().out.splitlines()
    assert said == "memory-1：还不对：还没有答案：请用你的答案替换省略号"
    assert spoken == "memory-1: not yet: no answer yet: put yours in place of the dots"


def test_the_chinese_readme_has_the_commands_of_the_english_one():
    blocks = re.compile(r"^```\w*\n(.*?)^```$", re.M | re.S)
    english, chinese = (
        [re.sub(r" *#.*", "", block) for block in blocks.findall((ROOT / name).read_text())]
        for name in ("README.md", "README.zh.md")
    )
    assert english == chinese
    table = re.compile(r"^\| `(nox .*?)` \|", re.M)
    commands = [table.findall((ROOT / name).read_text()) for name in ("README.md", "README.zh.md")]
    assert commands[0] == commands[1]
