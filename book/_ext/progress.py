"""What a build prints: each page as it runs, with its time. Warnings and failures are Sphinx's."""

import logging
import time

from docutils import nodes
from jupyter_client.manager import KernelManager
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.application import Sphinx

STARTED = time.time()

# Kernels complain of what is not encrypted. Ours can be, and then they have nothing to say.
KernelManager.transport_encryption.default_value = "auto"

# The theme's colours of code (a11y_pygments) print what every library logs for its own information.
logging.getLogger("traitlets").setLevel(logging.WARNING)


def show(app: Sphinx, document: nodes.document) -> None:
    """Print the page that has just been read, if its cells were run for it."""
    ran = NbMetadataCollector.get_exec_data(app.env, app.env.docname)
    if ran and ran["mtime"] > STARTED:
        result = f"{ran['runtime']:5.1f} s" if ran["succeeded"] else " failed"
        print(f"{result}  {app.env.docname}", flush=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("doctree-read", show)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
