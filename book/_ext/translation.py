"""The book in another language: what Sphinx does not find in a page, or would not find again.

A translation is parsed as a document of its own, so the values that a page glues are looked up for
it here. What the modules of this folder and the theme say is collected as the catalogue ``sphinx``.
"""

import re
from pathlib import Path

import answers
from babel.messages.extract import extract_from_dir
from docutils import nodes
from myst_nb.core.variables import format_plain_text
from myst_nb.ext.glue.crossref import read_glue_cache
from myst_nb.ext.glue.roles import PasteTextRole
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.builders.gettext import MsgOrigin
from sphinx.ext.autosummary import autosummary_table
from sphinx.locale import _
from sphinx.transforms import SphinxTransform
from sphinx.util.logging import getLogger

import attnmem

LOGGER = getLogger(__name__)
HERE = Path(__file__).parent
EXERCISES = Path(attnmem.__file__).parent / "exercises"
N_ = str  # marks a message that is looked up later

# What the theme says, and no catalogue of its own has.
OF_THE_THEME = (
    N_("Back to top"),
    N_("Home"),
    N_("Made with "),
    N_("Next"),
    N_("On this page"),
    N_("Please activate JavaScript to enable the search functionality."),
    N_("Previous"),
    N_('<a href="https://www.sphinx-doc.org/">Sphinx</a> and '),
)
# What glued values say in words: of a device and a day, of two devices, of a record.
WITHIN_VALUES = (
    N_("recorded by an older version of this code on %s"),
    N_("by an older version of this code on %s"),
    N_("recorded on %s"),
    N_("measured live on %s"),
    N_("on %s"),
    N_("%s, recorded"),
    N_("%s, measured live"),
)


def said(value: str) -> str:
    """A glued value, the words in it in the language of the edition."""
    for phrase in WITHIN_VALUES:
        before, after = phrase.split("%s")
        if value.startswith(before) and value.endswith(after):
            value = _(phrase) % value[len(before) : len(value) - len(after)]
            break
    return re.sub(r"(?<=\w) and (?=[A-Z])", str(_(" and ")), value)


class Glued(PasteTextRole):  # type: ignore[misc]
    """The role ``glue:text``, in a translation too."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The value, formatted."""
        if "nb_renderer" in self.document:
            found, messages = super().run()
        else:
            found, messages = self._looked_up(), []
        for node in found:
            node[:] = [nodes.Text(said(node.astext()))]
        return found, messages

    def _looked_up(self) -> list[nodes.Node]:
        env = self.document.settings.env
        key, _colon, form = self.text.partition(":")
        glued = read_glue_cache(env.mystnb_config.output_folder, env.docname)
        if key not in glued:
            LOGGER.warning("no cell glues %r", key, location=(env.docname, self.line))
            return []
        value = "".join(glued[key]["data"]["text/plain"])
        return [nodes.inline("", format_plain_text(value, form or "s"), classes=["pasted-text"])]


class Sourced(SphinxTransform):
    """Says of a table within a directive where it stands: nobody asks for what stands nowhere."""

    default_priority = 5  # before the translation

    def apply(self, **kwargs: object) -> None:
        """Say it of each entry."""
        for table in self.document.findall(nodes.table):
            for paragraph in table.findall(nodes.paragraph):
                if paragraph.source is None:
                    paragraph.source, paragraph.line = self.document["source"], table.line or 0


def set_aside(app: Sphinx, document: nodes.document) -> None:
    """Keep formulas and docstrings out of the catalogues.

    The translation of a displayed formula would take its place as text; docstrings are no Markdown.
    """
    whole = app.env.docname.startswith("reference/")
    for node in document.findall(nodes.Element):
        if whole or isinstance(node, nodes.math_block | addnodes.desc | autosummary_table):
            for part in node.findall(nodes.Element):
                part["translatable"] = False


def collect(app: Sphinx) -> None:
    """Make the catalogue ``sphinx`` of what is said outside the pages, and that of answers."""
    if app.builder.name == "gettext":
        catalogues = app.builder.catalogs  # type: ignore[attr-defined]
        for name, line, message, *_rest in extract_from_dir(HERE):
            catalogues["sphinx"].add(message, MsgOrigin(str(HERE / name), line))
        for message in answers.texts(EXERCISES):
            catalogues["exercises"].add(message, MsgOrigin("exercises", 0))


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_role_to_domain("glue", "text", Glued(), override=True)
    app.add_transform(Sourced)
    app.connect("builder-inited", collect)
    app.connect("doctree-read", set_aside)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
