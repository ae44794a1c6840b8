"""Each chapter as a notebook and as a script, and all exercises as a notebook to fill in.

They are written beside the pages when the book is built. Their text is the page's: numbers are put
in, figures attached, references named, since a notebook can't look them up.
"""

import base64
import re
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from docutils import nodes
from listings import plain
from margins import minutes
from myst_nb.core.variables import format_plain_text
from myst_nb.ext.glue.crossref import read_glue_cache
from sphinx.application import Sphinx
from sphinx.directives.code import LiteralIncludeReader
from sphinx.locale import _
from translated import catalogue, translated

DOLLARS = re.compile(r"^\$\$(.*?)\$\$ \(([\w-]+)\)$", re.M | re.S)
ROLE = re.compile(r"\{([a-z:]+)\}`(?:([^`<]*?) ?<)?([^`<>]+)>?`")
WITHIN = re.compile(r"\[([^\]]+)\]\(#[\w-]+\)")  # a link within the book
FENCE = re.compile(r"^(`{3,})\{([a-z:-]+)\}(.*?)\n(.*?)^\1$", re.M | re.S)
OPTIONS = re.compile(r"(?::[\w-]+:.*\n)*")
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.S)
TARGET = re.compile(r"^\([\w-]+\)=\n", re.M)
EXERCISES = re.compile(r"^## Exercises\n(.*?)(?=^## |\Z)", re.M | re.S)
NEEDS = _(
    "This file is made from a page of the book. Its cells need the package `attnmem`, and what "
    "that installs. Exercises end in a `check`."
)
FILL_IN = _(
    "All exercises of the book, to fill in. Put your answers in place of the dots. "
    "Solutions are in the chapters."
)


class Page:
    """One page of the book, and what its cells have glued."""

    def __init__(self, app: Sphinx, name: str) -> None:
        self.env = app.env
        self.name = name
        self.path = Path(app.env.doc2path(name))
        self.source = FRONT_MATTER.sub("", self.path.read_text())
        self.look_up = catalogue(app, name)
        folder = app.env.mystnb_config.output_folder  # type: ignore[attr-defined]
        glued = read_glue_cache(folder, name)
        self.glued = {key: output["data"] for key, output in glued.items()}

    def notebook(self, source: str, *, solved: bool) -> nbformat.NotebookNode:
        """The cells of a part of the page that a reader sees, with text that stands alone.

        Without solutions, and what is said after them, unless ``solved``.
        """
        made = jupytext.reads(source, fmt="md:myst")
        hidden = {"remove-cell"} if solved else {"remove-cell", "hide-cell"}
        cells = [c for c in made.cells if not hidden & {*c.metadata.get("tags", ())}]
        for number, cell in enumerate(cells):
            cell.id = f"{self.name}-{number}"
            if cell.cell_type == "markdown":
                cell.source = translated(cell.source, self.look_up)
                self._resolve(cell, solved)
            elif {"hide-cell", "hide-input"} & {*cell.metadata.pop("tags", ())}:
                cell.metadata["jupyter"] = {"source_hidden": True}  # folded here, too
        return nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_markdown_cell(str(NEEDS), id=f"{self.name}-needs"), *cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        )

    def _resolve(self, cell: nbformat.NotebookNode, solved: bool) -> None:
        """Put in what a page looks up: roles, directives, numbers of equations."""
        attachments: dict[str, Any] = {}

        def fence(found: re.Match[str]) -> str:
            _fence, kind, argument, body = found.groups()
            head = OPTIONS.match(body)[0]
            options = dict(re.findall(r"^:([\w-]+): ?(.*)$", head, re.M))
            text = FENCE.sub(fence, body[len(head) :]).strip()  # with what stands in it
            argument = argument.strip()
            if kind == "glue:figure":
                svg = self.glued[argument]["image/svg+xml"]
                encoded = base64.b64encode("".join(svg).encode()).decode()
                attachments[f"{argument}.svg"] = {"image/svg+xml": encoded}
                label = self._number("figure", options["name"])
                image = f"![{options['alt']}](attachment:{argument}.svg)"
                return f"{image}\n\n**{label}.** {text}"
            if kind == "glue":  # a table that is folded
                return "".join(self.glued[argument]["text/html"])
            if kind == "table-caption":
                return f"**{self._number('table', argument)}.** {text}"
            if kind == "literalinclude":
                given: dict[str, Any] = {name: v.strip('"') for name, v in options.items()}
                if "dedent" in given:
                    given["dedent"] = int(given["dedent"])
                reader = LiteralIncludeReader(
                    str(self.path.parent / argument), given, self.env.config
                )
                return f"```python\n{plain(reader.read()[0])}```\n\n{options.get('caption', '')}"
            if kind == "container":
                return text
            if kind == "explainer":
                return ""  # which a notebook's own cells do
            if kind == "margin" or "collapsible" in options:
                inside = f"<summary>{argument}</summary>\n\n{text}\n\n"
                return (
                    ""
                    if "afterwards" in options.get("class", "") and not solved
                    else (f"<details>{inside}</details>")
                )
            title = f"**{argument}**\n\n" if argument else ""
            return re.sub(r"^", "> ", title + text, flags=re.M)

        text = WITHIN.sub(r"\1", TARGET.sub("", FENCE.sub(fence, cell.source)))
        text = DOLLARS.sub(lambda m: f"$${m[1]}\\tag{{{self._equation(m[2])}}}$$", text)
        cell.source = ROLE.sub(self._role, text).strip()
        if attachments:
            cell.attachments = attachments

    def _role(self, found: re.Match[str]) -> str:
        kind, title, target = found.groups()
        if kind == "glue:text":
            key, _colon, form = target.partition(":")
            return format_plain_text("".join(self.glued[key]["text/plain"]), form)
        if kind == "eq":
            return f"({self._equation(target)})"
        if kind == "numref":
            figtype = "table" if target.startswith("tab") else "figure"
            return self._number(figtype, target)
        if kind.startswith("cite"):
            return f"[{target}]"
        if kind == "minutes":
            return _("%d minutes") % minutes(self.source)
        if title:
            return title
        if kind == "doc":
            return f"*{self.env.titles[target].astext()}*"
        if kind == "ref":
            return f"*{self.env.domains.standard_domain.labels[target][2]}*"
        return target if kind == "term" else f"`{target.lstrip('~')}`"  # else: of the package

    def _number(self, figtype: str, label: str) -> str:
        document, node_id, _title = self.env.domains.standard_domain.labels.get(
            label, (*self.env.domains.standard_domain.anonlabels[label], "")
        )
        number = self.env.toc_fignumbers[document][figtype][node_id]
        return self.env.config.numfig_format[figtype] % ".".join(map(str, number))

    def _equation(self, label: str) -> str:
        document, _number = self.env.domains["math"].equations[label]
        numbers = self.env.toc_fignumbers[document]["displaymath"]
        return ".".join(map(str, numbers[nodes.make_id(f"equation-{label}")]))


def write(app: Sphinx, failed: Exception | None) -> None:
    """Write the notebooks and scripts of a finished build."""
    if failed or app.builder.format != "html":
        return
    exercises = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell(f"# {_('Exercises')}\n\n{FILL_IN}", id="fill-in"),
            nbformat.v4.new_code_cell("import torch", id="imports"),
        ]
    )
    for name in downloads(app):
        page = Page(app, name)
        notebook = page.notebook(page.source, solved=True)
        target = Path(app.outdir, name)
        nbformat.write(notebook, target.with_suffix(".ipynb"))
        jupytext.write(notebook, target.with_suffix(".py"), fmt="py:percent")
        for section in EXERCISES.findall(page.source):
            title = app.env.titles[name].astext()
            part = page.notebook(f"# {title}\n{section}", solved=False)
            exercises.cells += part.cells[1:]
            exercises.metadata = part.metadata
    nbformat.write(exercises, Path(app.outdir, "exercises.ipynb"))


def downloads(app: Sphinx) -> list[str]:
    """The pages that have cells which a reader sees, in the order of the book."""
    seen = re.compile(r"^```\{code-cell\} python3\n(?!:tags: \[remove-cell\])", re.M)
    names = app.env.toctree_includes.get(app.config.root_doc, [])
    return [name for name in names if seen.search(Path(app.env.doc2path(name)).read_text())]


def link(app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Name the files under the title of a page."""
    if doctree and name in downloads(app):
        files = f'href="{name}.ipynb" download', f'href="{name}.py" download'
        said = _("This page as a <a %s>notebook</a> or as a <a %s>script</a>") % files
        line = f'</h1>\n<p class="downloads">{said}</p>'
        context["body"] = context["body"].replace("</h1>", line, 1)


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("html-page-context", link)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
