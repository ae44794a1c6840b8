"""The book's tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tabulate import tabulate


@dataclass(frozen=True)
class Table:
    """Rows, each column name -> text, as HTML in a notebook and as aligned text elsewhere.

    Columns come in the order of the first row; one of numbers is aligned at the right.

    >>> Table([{"N": 512, "share": "50 %"}, {"N": 1024, "share": "100 %"}])
       N    share
    ----  -------
     512     50 %
    1024    100 %

    Used in :ref:`memory-share`.
    """

    rows: Sequence[Mapping[str, object]]

    def __repr__(self) -> str:
        return self._text("simple")

    def _repr_html_(self) -> str:
        return self._text("html")

    def _text(self, style: str) -> str:
        columns = zip(*(row.values() for row in self.rows), strict=True)
        align = ["right" if _numeric(column) else "left" for column in columns]
        return tabulate(
            self.rows,
            headers="keys",
            tablefmt=style,
            colalign=align,
            disable_numparse=True,
        )


def _numeric(column: Sequence[object]) -> bool:
    text = [str(cell) for cell in column]
    numbers = any(cell.lstrip("+−-")[:1].isdigit() for cell in text)
    return numbers and max(map(len, text)) < 30  # else it is prose that begins with a number
