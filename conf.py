"""Sphinx's configuration of the book."""

import hashlib
import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path

import attnmem
from attnmem.measurement.device import provenance

PACKAGE = Path(attnmem.__file__).parent
SOURCES = (".py", ".json", ".gz", ".toml", ".txt")
sys.path.insert(0, str(Path(__file__).parent / "book" / "_ext"))
os.environ["LANGUAGE"] = "en"  # in which cells answer, for all editions
os.environ["TORCH_CUBLAS_WORKSPACE_CACHE"] = "1"  # from PyTorch 2.15 on: as the pages say


def execution_key() -> str:
    """What the outputs of the cells depend on besides the cells themselves.

    The package's sources and records, every installed version, the device and its driver. With
    another key, every page runs again.
    """
    here = provenance()
    versions = sorted(
        f"{found.name}=={found.version}" for found in importlib.metadata.distributions()
    )
    digest = hashlib.sha256()
    for path in sorted(p for p in PACKAGE.rglob("*") if p.suffix in SOURCES):
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + path.read_bytes())
    digest.update("\n".join([platform.python_version(), *versions]).encode())
    digest.update(f"{here.device} {here.memory_bytes} {here.driver}".encode())
    return digest.hexdigest()[:16]


project = "attnmem"
author = "the attnmem authors"
copyright = f"2026, {author}"
release = attnmem.__version__

extensions = [
    "myst_nb",
    "sphinx_copybutton",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",  # from one edition to the other
    "sphinxcontrib.bibtex",
    "captions",
    "editions",
    "explainer",
    "explorer",
    "folds",
    "han",
    "kernels",
    "labels",
    "listings",
    "margins",
    "notebooks",
    "progress",
    "repository",
    "scripts",
    "sidebar",
    "streams",
    "taught",
    "translation",
]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = "cache"
nb_execution_cache_path = str(Path(__file__).parent / "_build" / "executed" / execution_key())
nb_execution_timeout = 600
# A failing cell is a warning, and with -W the build fails at its end: all failures are shown.
nb_execution_show_tb = True
nb_merge_streams = True
# What the catalogues collect: the texts beside figures, and tables as a page shows them.
nb_mime_priority_overrides = [("gettext", "image/svg+xml", 0), ("gettext", "text/html", 1)]

# Other languages are catalogues of messages; neither lines nor days, so that changes are small.
locale_dirs = [str(Path(__file__).parent / "book" / "locale")]
gettext_location = False
gettext_uuid = False

numfig = True
math_numfig = True
bibtex_bibfiles = ["book/references.bib"]
bibtex_reference_style = "author_year"
bibtex_default_style = "plain"

autosummary_ignore_module_all = True
REFERENCE = Path(__file__).parent / "book" / "en" / "reference"
FILES = (path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py"))
MODULES = {".".join(path.parts).removesuffix(".__init__") for path in FILES}
if not {stub.stem for stub in REFERENCE.glob("*.rst")} <= MODULES:
    shutil.rmtree(REFERENCE)  # a module is no more, and pages of others still list it
autodoc_default_options = {"exclude-members": "set"}  # of matplotlib's figures
autodoc_preserve_defaults = True  # as they are written: no path of this machine
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
# Of other packages, whose own references are not reachable from a build without network.
nitpick_ignore_regex = [("py:.*", r"(?!attnmem).*|attnmem\..*\b(_Block|T)")]

copybutton_selector = "div.cell_input div.highlight pre"

templates_path = [str(Path(__file__).parent / "book" / "_templates")]

# nox -s linkcheck, which the build does not do: other people's servers are not ours to depend on.
linkcheck_timeout = 20
linkcheck_retries = 2
linkcheck_rate_limit_timeout = 60
linkcheck_anchors_ignore_for_url = [r"https://github\.com/.*"]  # a script adds them
linkcheck_ignore = [r"https://doi\.org/.*"]  # publishers answer a robot with "forbidden"

html_theme = "furo"
html_title = "attnmem"
html_favicon = "book/_static/favicon.svg"
html_static_path = ["book/_static"]
html_css_files = ["book.css"]
html_js_files = [("reach.js", {"defer": "defer"})]
# Formulas are read without stopping at each; the wide ones stop (reach.js).
mathjax3_config = {"options": {"menuOptions": {"settings": {"inTabOrder": False}}}}
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/languages.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#00568a",
        "color-brand-content": "#00568a",
    },
    "dark_css_variables": {
        "color-brand-primary": "#7cc4f4",
        "color-brand-content": "#7cc4f4",
    },
}
