"""The directive ``explorer``: a form in whose place a browser computes what programs allocate.

The parts of ``book/explorer`` and what :func:`attnmem.lessons.explorer.data` finds are put into the
page itself, so that it works opened as a file, where browsers load no modules. Finding it takes
minutes, so it is kept under a digest of what it follows from: that of this copy's code in
``book/explorer/kept``, and what a change makes of it under ``_build/explorer``. The role
``explore`` is a link that opens a case: ``{explore}`the case <program=one_liner&N=8192>` ``.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from docutils import nodes
from inlined import Inlined, as_json
from sphinx.application import Sphinx
from sphinx.locale import _
from sphinx.util.docutils import ReferenceRole, SphinxDirective

import attnmem
from attnmem.lessons import explorer
from attnmem.measurement.digest import digest

PACKAGE = Path(attnmem.__file__).parent
FORM = Inlined(
    "explorer",
    ("allocator.js", "model.js", "words.js", "pictures.js", "answer.js", "page.js"),
)

WITHOUT = _("The form is a script, and scripts are off. These are common cases.")


def sources() -> Iterator[Path]:
    """The files of the package that decide what a trace finds, and what the page has of cards."""
    for room in ("prediction", "catalog", "tiles"):
        yield from (
            p for p in sorted((PACKAGE / room).rglob("*")) if p.suffix in (".py", ".toml", ".txt")
        )
    for name in ("programs.py", "timeline.py", "workload.py", "lessons/explorer.py"):
        yield PACKAGE / name


def name() -> str:
    """Of the file in which is kept what this code finds, with this release of PyTorch."""
    paths = list(sources())
    code = digest(path for path in paths if path.suffix == ".py")
    key = hashlib.sha256((code + torch.__version__.partition("+")[0]).encode())
    for path in paths:
        if path.suffix != ".py":
            key.update(path.read_bytes())
    return f"{key.hexdigest()[:16]}.json"


def found(folder: Path) -> dict[str, Any]:
    """The data and the table of common cases; made in ``folder`` if they are not there."""
    kept = FORM.folder / "kept" / name()
    if not kept.exists():
        kept = folder / kept.name
    if not kept.exists():
        made = {"data": explorer.data(), "common": explorer.common()._repr_html_()}
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(made, ensure_ascii=False, separators=(",", ":")), "utf-8")
    return json.loads(kept.read_text("utf-8"))


def html(data: dict[str, Any], common: str) -> str:
    """The form, and what it needs."""
    without = f'<p>{WITHOUT}</p><div class="cell_output">{common}</div>'
    return FORM.html(as_json(data), without)


class Explorer(SphinxDirective):
    """Has neither arguments nor content."""

    def run(self) -> list[nodes.Node]:
        """The page's own HTML."""
        for path in (*sources(), *FORM.parts()):
            self.env.note_dependency(str(path))
        made = found(Path(self.env.app.confdir, "_build", "explorer"))
        return [nodes.raw("", html(made["data"], made["common"]), format="html")]


class Explore(ReferenceRole):
    """A link to the page with a case set: what follows # in its address."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """One node."""
        page = self.env.app.builder.get_relative_uri(self.env.docname, "explorer")
        return [nodes.reference("", self.title, refuri=f"{page}#{self.target}", internal=True)], []


def style(app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """The page has a style sheet of its own."""
    if name == "explorer":
        app.add_css_file("explorer.css")


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_directive("explorer", Explorer)
    app.add_role("explore", Explore())
    app.connect("html-page-context", style)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
