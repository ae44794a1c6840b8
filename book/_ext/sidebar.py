"""The sidebar: what a page stands among, and not every module of the package on every page."""

from typing import Any

from sphinx.application import Sphinx


def collapse(app: Sphinx, name: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Leave out what other pages list: the theme asks for all, which takes longer than the rest."""
    if toctree := context.get("toctree"):
        context["toctree"] = lambda **options: toctree(**options | {"collapse": True})


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("html-page-context", collapse, priority=400)  # the theme's comes at 500
    return {"parallel_read_safe": True, "parallel_write_safe": True}
