"""What a cell prints is shown as it was printed, in however many pieces it came.

A kernel sends what is printed in pieces, which may end within a line, and MyST-NB strips each.
"""

from functools import partial

import nbclient
from jupyter_cache.executors import utils
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    utils.executenb = partial(nbclient.execute, coalesce_streams=True)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
