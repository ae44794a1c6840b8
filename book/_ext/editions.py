"""The same page, and the same section, in the other language.

Pages and headings have the same addresses in all editions, so a link needs nothing but a folder.
"""

import re
import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

FOLDERS = {"en": "en", "zh_CN": "zh"}
NAMES = {"en": "English", "zh_CN": "简体中文"}
HEADING = re.compile(r'<a class="headerlink" href="(#[^"]+)"[^>]*>[^<]*</a>(?=</h\d>)')


def link(app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Give a page its addresses in all editions, and each heading a link into the other ones."""
    own = app.config.language
    context["editions"] = [
        {
            "language": language.replace("_", "-"),
            "name": NAMES[language],
            "own": language == own,
            "page": f"{'../' * (name.count('/') + 1)}{FOLDERS[language]}/{name}.html",
        }
        for language in app.config.editions
    ]
    others = [edition for edition in context["editions"] if not edition["own"]]

    def with_others(found: re.Match[str]) -> str:
        links = "".join(
            f'<a class="headerlink other-language" href="{other["page"]}{found[1]}"'
            f' lang="{other["language"]}" hreflang="{other["language"]}">{other["name"]}</a>'
            for other in others
        )
        return found[0] + links

    if "body" in context:
        context["body"] = HEADING.sub(with_others, context["body"])


def share(app: Sphinx) -> None:
    """Draw formulas with the scripts of the first edition: they are 24 MB."""
    first, *others = app.config.editions
    if app.config.language in others:
        app.config.mathjax_path = f"../../{FOLDERS[first]}/_static/{app.config.mathjax_path}"


def remove(app: Sphinx, failed: Exception | None) -> None:
    """Remove the copy that their extension has made."""
    if app.config.mathjax_path.startswith("../"):
        shutil.rmtree(Path(app.outdir, "_static", "mathjax"), ignore_errors=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_config_value("editions", [*FOLDERS], "html", list)
    app.connect("html-page-context", link)
    app.connect("builder-inited", share)
    app.connect("build-finished", remove, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
