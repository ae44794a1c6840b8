"""Listings of the package, as a reader wants them: without what is meant for the reference."""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

SECTION = re.compile(
    r"(?:\s*\n *| )(?:Taught|Shown|Used) in\s+(?::[a-z]+:`[^`]+`,?\s*(?:and\s+)?)+\.(?=\s|\"{3})"
)
ROLE = re.compile(r":[a-z:]+:`~?(?:[\w.]+\.)?([\w/-]+)`")


def plain(code: str) -> str:
    """Code whose docstrings name no section, and other names as they are typed."""
    return ROLE.sub(r"``\1``", SECTION.sub("", code))


class Plain(SphinxTransform):
    """Makes the listings of a page plain."""

    default_priority = 400

    def apply(self, **_: Any) -> None:
        """Change what ``literalinclude`` has taken from the package."""
        for block in self.document.findall(nodes.literal_block):
            if "source" in block and str(block["source"]).endswith(".py"):
                block.rawsource = plain(block.rawsource)
                block.children = [nodes.Text(plain(block.astext()))]
                block.children[0].parent = block


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_transform(Plain)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
