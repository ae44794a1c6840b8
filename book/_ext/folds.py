"""What a folded cell is called: a table's input before the exercises, a solution in them."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.locale import _

CALLED = {"input": _("Code"), "all": _("Solution")}


def name_folds(app: Sphinx, document: nodes.document) -> None:
    """Put what a fold is called into the page that has just been read."""
    for cell in document.findall(nodes.container):
        if cell.get("hide_mode") in CALLED:
            cell["prompt_show"] = cell["prompt_hide"] = CALLED[cell["hide_mode"]]


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("doctree-read", name_folds)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
