"""What a page's own form and script say, in the language of the edition.

A script says what stands in its literals of several words, or of one that begins like a sentence;
a value in a template, ``${…}``, is ``{0}``, ``{1}``, … in its message, in whatever order. Tables of
the form are looked up as all tables are (``labels.py``). Of a page's data, sentences and names of
kinds are said.
"""

import json
import re
from collections.abc import Callable

from docutils import nodes
from inlined import as_json
from sphinx.application import Sphinx
from sphinx.builders.gettext import MsgOrigin
from sphinx.locale import _

PART = re.compile(
    r'<script type="module">(?P<script>.*?)</script>'
    r'|<script type="application/json" id="explainer-data">(?P<data>.*?)</script>'
    r"|<noscript>.*?</noscript>|<script\b.*?</script>"
    r"|(?P<form>(?:(?!<script|<noscript).)+)",
    re.S,
)
SHOWN = re.compile(
    r"(?P<entry><t[hd]\b[^>]*>[^<]*)|(?<=>)[^<>\n]*[A-Za-z]{3}[^<>\n]*(?=<)"
    r'|(?<=aria-label=")[^"]+|(?<=placeholder=")[^"]+'
)
VALUE = r"\$\{(?:[^{}]|\{[^{}]*\})*\}"
LITERAL = re.compile(
    r"/\*.*?\*/"  # a comment
    rf'|"(?P<string>(?:[^"\\\n]|\\.)*)"|`(?P<template>(?:{VALUE}|[^`\\]|\\.)*)`',
    re.S,
)
SAID = re.compile(r"[A-Z][a-z]{3,}|.*\s.*", re.S)
WORD = re.compile(r"(?<![\w#.\[-])[A-Za-z]?[a-z]{2,}(?![\w(.\[-])")
NO_TEXT = {"Enter", "Escape", "(N mod 128)"}  # keys, and a formula
NO_TEXT |= {"one of several", "a guess", "by chance", "too many"}  # names of sentences

LookUp = Callable[[str], str]


def in_page(source: str, look_up: LookUp) -> str:
    """HTML with its form and its script in another language."""

    def replace(found: re.Match[str]) -> str:
        if found["script"]:
            return found[0].replace(found["script"], in_script(found["script"], look_up))
        if found["data"]:
            return found[0].replace(found["data"], in_data(found["data"], look_up))
        return in_form(found["form"], look_up) if found["form"] else found[0]

    return PART.sub(replace, source)


def in_form(source: str, look_up: LookUp) -> str:
    """What is shown, and what is read aloud."""

    def replace(found: re.Match[str]) -> str:
        words = found[0].strip()
        if found["entry"] or not WORD.search(words):
            return found[0]
        return found[0].replace(words, look_up(words))

    return SHOWN.sub(replace, source)


def in_script(source: str, look_up: LookUp) -> str:
    """What a script puts into the page."""

    def replace(found: re.Match[str]) -> str:
        text = literal = found["template"] or found["string"] or ""
        values = re.findall(VALUE, literal) if found["template"] else []
        for number, value in enumerate(values):
            text = text.replace(value, f"{{{number}}}", 1)
        words = re.sub(r"\{\d\}", "", text)
        if not (SAID.fullmatch(words) and WORD.search(words)) or words in NO_TEXT:
            return found[0]
        if (said := look_up(text)) == text:
            return found[0]
        for number, value in enumerate(values):
            said = said.replace(f"{{{number}}}", value)
        return f"`{said}`" if found["template"] else f'"{said}"'

    return LITERAL.sub(replace, source)


def in_data(source: str, look_up: LookUp) -> str:
    """JSON with what a script says from it."""
    data = json.loads(source)
    said = {name: look_up(text) for name, text in data["sentences"].items()}
    kinds = [kind | {"name": look_up(kind["name"])} for kind in data["kinds"]]
    return as_json(data | {"sentences": said, "kinds": kinds})


def speak(app: Sphinx, document: nodes.document, page: str) -> None:
    """Put a page's form and script into the language of the edition; or collect what they say."""

    def look_up(text: str) -> str:
        if app.builder.name == "gettext":
            catalogue = app.builder.catalogs["sphinx"]  # type: ignore[attr-defined]
            catalogue.add(text, MsgOrigin(page, 0))
        return str(_(text))

    for node in document.findall(nodes.raw):
        if '<script type="module">' in node.astext():
            node[:] = [nodes.Text(in_page(node.astext(), look_up))]


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("doctree-resolved", speak)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
