"""Tables: rows of numbers, and how each column is written."""

import re
from collections.abc import Iterable, Mapping, Sequence

from tabulate import tabulate

LINK = r"\[([^\]]+)\]\(((?:[\w-]+\.html)?#[\w-]+|https://[^)\s]+)\)"


class Table:
    """Rows, in the order of their columns, as HTML in a notebook and as aligned text elsewhere.

    ``columns``: name -> format of its numbers, as in ``format(value, ",.1f")``, or with text
    around it, as in ``"{:.2f} ms".format(value)``; ``""`` for text, and for numbers as they are.
    ``None`` is a dash. A column with a number is aligned at the right. Text may have code between
    backticks, and be a link: ``[text](#label)``, ``[text](page.html#label)``, ``[text](https://…)``.

    >>> Table({"N": "", "share": ".0%"}, [(512, 0.5), (1024, None)])
       N    share
    ----  -------
     512      50%
    1024        –
    """

    def __init__(self, columns: Mapping[str, str], rows: Iterable[Sequence[object]]) -> None:
        self.columns = columns
        self.rows = [dict(zip(columns, row, strict=True)) for row in rows]

    def __repr__(self) -> str:
        return re.sub(LINK, r"\1", self._text("simple"))

    def _repr_html_(self) -> str:
        text = re.sub(r"`([^`]+)`", _code, self._text("html"))
        return re.sub(LINK, r'<a href="\2">\1</a>', text)

    def _text(self, style: str) -> str:
        numeric = {name for row in self.rows for name in row if isinstance(row[name], int | float)}
        return tabulate(
            [[_cell(row[name], form) for name, form in self.columns.items()] for row in self.rows],
            headers=list(self.columns),
            tablefmt=style,
            colalign=["right" if name in numeric else "left" for name in self.columns],
            disable_numparse=True,
        )


def _code(found: re.Match[str]) -> str:
    """What stands between backticks, which may break where a name has a joint."""
    return f"<code>{re.sub(r'(?<=[._=(])(?=[a-z])', '<wbr>', found[1], flags=re.I)}</code>"


def _cell(value: object, form: str) -> str:
    if value is None:
        return "–"
    if not isinstance(value, int | float):
        return str(value)
    text = form.format(value) if "{" in form else format(value, form)
    return text.replace("-", "−", 1) if text.startswith("-") else text
