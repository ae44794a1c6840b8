"""Search in Chinese: a run of Han characters is its overlapping pairs, here and in the browser.

A word of Chinese is not marked off, and a dictionary of words does not fit into a page; the pairs
of 缓存分配器 stand together only where it does. Latin words are found as in English.
"""

import re
from itertools import pairwise

from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

RUN = re.compile(r"[\u3400-\u9fff]+|[^\W\u3400-\u9fff]+")


class SearchHan(SearchEnglish):
    """The index: pairs, and single characters, which a query may be."""

    lang = "zh"
    js_splitter_code = r"""
const RUN = /[\u3400-\u9fff]+|(?:(?![\u3400-\u9fff])[\p{L}\p{N}_])+/gu;
const pairs = (run) => [...run].slice(1).map((character, i) => run[i] + character);
var splitQuery = (query) =>
  (query.match(RUN) ?? []).flatMap((run) => (/^[\u3400-\u9fff]{2}/.test(run) ? pairs(run) : [run]));
"""

    def split(self, input: str) -> list[str]:
        """The words of a text."""
        words = []
        for run in RUN.findall(input):
            words += [run] if run[0] < "\u3400" else [*run, *map("".join, pairwise(run))]
        return words


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_search_language(SearchHan)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
