"""The same page, and the same section, in the other language.

Pages and headings have the same addresses in all editions, so a link needs nothing but a folder.
"""

import re
import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

FOLDERS = {"en": "en", "zh_CN": "zh"}
NAMES = {"en": "English", "zh_CN": "简体中文"}
REFERENCE = "reference/"
STUBS = re.compile(r"^ *:(?:toctree: reference|recursive:)\n", re.M)
HEADING = re.compile(r'<a class="headerlink" href="(#[^"]+)"[^>]*>[^<]*</a>(?=</h\d>)')


def link(app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Give a page its addresses in all editions, and each heading a link into the other ones."""
    own, once = app.config.language, name.startswith(REFERENCE) or name == "py-modindex"
    context["editions"] = [
        {
            "language": language.replace("_", "-"),
            "name": NAMES[language],
            "own": language == own,
            "page": f"{'../' * (name.count('/') + 1)}{FOLDERS[language]}/"
            f"{'api' if once and language != own else name}.html",
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

    if "body" in context and not once:
        context["body"] = HEADING.sub(with_others, context["body"])


def share(app: Sphinx, config: Config) -> None:
    """Take from the first edition what has no language: 24 MB of scripts, and the reference.

    Docstrings are English, so the pages of the package's modules are made once.
    """
    first, *others = config.editions
    if config.language in others:
        there = f"../{FOLDERS[first]}/"
        config.mathjax_path = f"../{there}_static/{config.mathjax_path}"
        config.exclude_patterns += [f"{REFERENCE}*"]
        config.autosummary_generate = False
        inventory = Path(app.outdir, there, "objects.inv")
        config.intersphinx_mapping |= {first: (there, str(inventory.resolve()))}


def without_stubs(app: Sphinx, name: str, source: list[str]) -> None:
    """Let a list of modules lead to the other edition's pages."""
    if not app.config.autosummary_generate:
        source[0] = STUBS.sub("", source[0])


def remove(app: Sphinx, failed: Exception | None) -> None:
    """Remove the copy that their extension has made."""
    if app.config.mathjax_path.startswith("../"):
        shutil.rmtree(Path(app.outdir, "_static", "mathjax"), ignore_errors=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_config_value("editions", [*FOLDERS], "html", list)
    app.connect("html-page-context", link)
    app.connect("config-inited", share)
    app.connect("source-read", without_stubs)
    app.connect("build-finished", remove, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
