"""The source of a page in another language: each text in it replaced by what is looked up for it.

The texts are those that Sphinx collects into a page's catalogue, found in the source alone, by the
parser that Sphinx reads it with.
"""

import re
from collections.abc import Callable

from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser

PARSER = create_md_parser(MdParserConfig(enable_extensions={"dollarmath"}), RendererHTML)
DIRECTIVE = re.compile(r"\{([a-z:-]+)\} *(.*)")
# With a title as their argument; the other directives have a label or a path there.
TITLED = ("admonition", "margin")
# What stands in these is no text of the page.
CLOSED = ("code-cell", "eval-rst", "literalinclude", "toctree")
SAID_BY_OPTION = re.compile(r"(:(?:alt|caption): )(.*)")
OPTION = re.compile(r":[\w-]+:")

LookUp = Callable[[str], str]


def translated(source: str, look_up: LookUp) -> str:
    """The source with the texts that are found, each on one line; everything else as it is."""
    lines = source.split("\n")
    for token in PARSER.parse(source):
        if token.type == "inline" and token.content:
            _replace(lines, token, look_up)
        elif token.type == "fence" and (found := DIRECTIVE.fullmatch(token.info.strip())):
            _directive(lines, token, *found.groups(), look_up)
    return "\n".join(line for line in lines if line is not None)


def _replace(lines: list[str | None], token: Token, look_up: LookUp) -> None:
    """Put the text of a paragraph, a heading or a table's entry where it began."""
    first, *rest = token.content.split("\n")
    text = " ".join([first, *(line.strip() for line in rest)])
    if (said := look_up(text)) != text:
        start = token.map[0]
        lines[start] = lines[start].replace(first, said, 1)
        lines[start + 1 : start + 1 + len(rest)] = [None] * len(rest)


def _directive(
    lines: list[str | None], token: Token, kind: str, argument: str, look_up: LookUp
) -> None:
    """Look up what a directive says: its title, its options, its content."""
    start, end = token.map
    if argument and kind in TITLED:
        lines[start] = lines[start].replace(argument, look_up(argument))
    body = start + 1
    while body < end - 1 and OPTION.match(lines[body]):
        if found := SAID_BY_OPTION.fullmatch(lines[body]):
            lines[body] = found[1] + look_up(found[2])
        body += 1
    if kind == "glossary":
        _glossary(lines, body, end - 1, look_up)
    elif kind not in CLOSED:
        said = translated("\n".join(lines[body : end - 1]), look_up)
        lines[body : end - 1] = [said, *[None] * (end - body - 2)] if body < end - 1 else []


def _glossary(lines: list[str | None], start: int, end: int, look_up: LookUp) -> None:
    """Terms, each with an indented paragraph."""
    for entry in re.finditer(r"(.+)\n((?: {4}.+(?:\n|\Z))+)", "\n".join(lines[start:end])):
        look_up(entry[1])
        look_up(" ".join(line.strip() for line in entry[2].splitlines()))
