"""The source of a page in another language: each text in it replaced by what is looked up for it.

The texts are those that Sphinx collects into a page's catalogue, found in the source alone, by the
parser that Sphinx reads it with.
"""

import gettext
import re
from collections.abc import Callable

from markdown_it.renderer import RendererHTML
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser
from sphinx.application import Sphinx

PARSER = create_md_parser(MdParserConfig(enable_extensions={"dollarmath"}), RendererHTML)
DIRECTIVE = re.compile(r"\{([a-z:-]+)\} *(.*)")
# These have a title as their argument; other directives have a label or a path there.
TITLED = ("admonition", "margin")
# What stands in these is no text of the page.
CLOSED = ("code-cell", "eval-rst", "literalinclude", "toctree")
OPTION = re.compile(r"(:([\w-]+): ?)(.*)")
ENTRY = re.compile(r"(.+)\n((?: {4}.+(?:\n|\Z))+)")

LookUp = Callable[[str], str]


def catalogue(app: Sphinx, name: str) -> LookUp:
    """What the edition's catalogue of that name says for a text; the text, where it has nothing."""
    folder, languages = app.config.locale_dirs[0], [app.config.language]
    found = gettext.translation(name, folder, languages, fallback=True)
    return lambda text: found.gettext(text) if text else text  # of nothing it tells its own head


def translated(source: str, look_up: LookUp) -> str:
    """The source with the texts that are found, each on one line; everything else as it is."""
    lines: list[str | None] = [*source.split("\n")]
    done = dict.fromkeys(range(len(lines)), 0)  # of each line: several texts may stand in a table's
    for token in PARSER.parse(source):
        if token.type == "inline" and token.content:
            (start, _), (first, *rest) = token.map, token.content.split("\n")
            text = " ".join([first, *(line.strip() for line in rest)])
            said = look_up(text)
            place = lines[start].index(first, done[start])
            if said == text:
                done[start] = place + len(first)
                continue
            lines[start] = lines[start][:place] + said + lines[start][place + len(first) :]
            lines[start + 1 : start + 1 + len(rest)] = [None] * len(rest)
            done[start] = place + len(said)
        elif token.type == "fence" and (found := DIRECTIVE.fullmatch(token.info.strip())):
            start, end = token.map
            _directive(lines, start, end - 1, found, look_up)
    return "\n".join(line for line in lines if line is not None)


def _directive(
    lines: list[str | None], start: int, end: int, found: re.Match[str], look_up: LookUp
) -> None:
    """Look up what a directive says: its title, its options, its content."""
    kind, argument = found.groups()
    if argument and kind in TITLED:
        lines[start] = lines[start].replace(argument, look_up(argument))
    body = start + 1
    while body < end and (option := OPTION.fullmatch(lines[body])):
        if option[2] in ("alt", "caption"):
            lines[body] = option[1] + look_up(option[3])
        body += 1
    inside = "\n".join(lines[body:end])
    if kind == "glossary":  # its entries are terms, each with an indented paragraph
        for term, paragraph in ENTRY.findall(inside):
            look_up(term)
            look_up(" ".join(line.strip() for line in paragraph.splitlines()))
    elif kind not in CLOSED and inside:
        lines[body:end] = [translated(inside, look_up), *[None] * (end - body - 1)]
