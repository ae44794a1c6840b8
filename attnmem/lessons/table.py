"""Tables: rows of numbers, and how each column is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tabulate import tabulate


@dataclass(frozen=True)
class Table:
    """Rows, each column name -> value, as HTML in a notebook and as aligned text elsewhere.

    ``formats``: column name -> format of its numbers, as in ``format(value, ",.1f")``, or with text
    around it, as in ``"{:.2f} ms".format(value)``; without one a number is written as it is.
    ``None`` is a dash. Columns come in the order of the first row; one of numbers is aligned at the
    right.

    >>> Table([{"N": 512, "share": 0.5}, {"N": 1024, "share": None}], {"share": ".0%"})
       N    share
    ----  -------
     512      50%
    1024        –
    """

    rows: Sequence[Mapping[str, object]]
    formats: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self._text("simple")

    def _repr_html_(self) -> str:
        return self._text("html")

    def _text(self, style: str) -> str:
        columns = list(self.rows[0])
        numeric = {name: any(_is_number(row[name]) for row in self.rows) for name in columns}
        return tabulate(
            [[self._cell(name, row[name]) for name in columns] for row in self.rows],
            headers=columns,
            tablefmt=style,
            colalign=["right" if numeric[name] else "left" for name in columns],
            disable_numparse=True,
        )

    def _cell(self, name: str, value: object) -> str:
        if value is None:
            return "–"
        if not _is_number(value):
            return str(value)
        form = self.formats.get(name, "")
        text = form.format(value) if "{" in form else format(value, form)
        return text.replace("-", "−", 1) if text.startswith("-") else text


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
