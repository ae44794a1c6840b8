"""The reference says where the book teaches a name: in the sections whose text links to it."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.locale import _

SECTION = re.compile(r"^(?:\((?P<label>[\w-]+)\)=\n)?#{1,3} .*$", re.M)
LINK = re.compile(r"\{py:\w+\}`(?:[^`<]*<)?~?(attnmem[\w.]*)>?`")

TAUGHT_IN: dict[str, dict[str, Path]] = defaultdict(dict)  # name -> section -> its page


def find_links(app: Sphinx) -> None:
    """Read in the pages' sources which section links to which name."""
    TAUGHT_IN.clear()
    for path in sorted(Path(app.srcdir).glob("*.md")):
        text = path.read_text()
        starts = list(SECTION.finditer(text))
        ends = [start.start() for start in starts[1:]] + [len(text)]
        for start, end in zip(starts, ends, strict=True):
            where = f":ref:`{start['label']}`" if start["label"] else f":doc:`/{path.stem}`"
            for name in LINK.findall(text[start.end() : end]):
                TAUGHT_IN[name][where] = path


def add_links(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Append to a docstring the sections that teach it."""
    if places := TAUGHT_IN.get(name):
        lines += ["", _("Taught in %s.") % ", ".join(places), ""]
        for path in places.values():
            app.env.note_dependency(str(path))


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("builder-inited", find_links)
    app.connect("autodoc-process-docstring", add_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
