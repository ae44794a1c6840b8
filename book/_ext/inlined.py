"""A form and its script, put into a page itself: opened as a file, a browser loads no modules."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BOOK = Path(__file__).parent.parent
NUMBERS = BOOK / "inlined" / "numbers.js"  # with which each script begins


def as_json(data: Any) -> str:
    """Data as JSON that may stand in a page."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


@dataclass(frozen=True)
class Inlined:
    """The folder of that name in ``book``: a form of that name, and the parts of one module."""

    name: str
    scripts: tuple[str, ...]  # in this order

    @property
    def folder(self) -> Path:
        """Where the parts are."""
        return BOOK / self.name

    def parts(self) -> list[Path]:
        """All files that the page is made of."""
        return [NUMBERS, *self.folder.glob("*.*")]

    def module(self) -> str:
        """The script."""
        paths = NUMBERS, *(self.folder / name for name in self.scripts)
        return "\n".join(path.read_text("utf-8") for path in paths)

    def html(self, data: str, without: str) -> str:
        """The form, what stands in its place without scripts, the data and the module."""
        return "\n".join(
            (
                (self.folder / f"{self.name}.html").read_text("utf-8"),
                f"<noscript>{without}</noscript>",
                f'<script type="application/json" id="{self.name}-data">{data}</script>',
                f'<script type="module">\n{self.module()}</script>',
            )
        )
