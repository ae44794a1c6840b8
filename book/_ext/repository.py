"""The role ``repository``: its text, as a link to the repository if that has a public address.

A workflow on GitHub knows the address; a clone knows where it came from. A path on a disk, or a
host that only some reach, is nobody's address, and what signs in to it is not printed.
"""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole

# https://name:token@host:443/owner/project.git, ssh://git@host/…, or git@host:owner/project.git
REMOTE = re.compile(
    r"(?:(?:https?|ssh)://(?:[^/@]*@)?(?P<host>[\w.-]+)(?::\d+)?/|[\w.-]+@(?P<short>[\w.-]+):)"
    r"(?P<path>[\w.~/-]+?)(?:\.git)?/?"
)
PUBLIC = re.compile(r"(?:[\w-]+\.)+(?!(?:local|localdomain|internal|lan|home|test)$)[a-z]{2,}")


def public(remote: str) -> str | None:
    """The web page of a remote, or ``None`` if it is on a disk or on no public host."""
    found = REMOTE.fullmatch(remote)
    host = found and (found["host"] or found["short"])
    return f"https://{host}/{found['path']}" if host and PUBLIC.fullmatch(host) else None


def address(folder: Path, environ: Mapping[str, str] = os.environ) -> str | None:
    """Where the clone in ``folder`` comes from, on the web; ``None`` where that is nowhere."""
    if {"GITHUB_SERVER_URL", "GITHUB_REPOSITORY"} <= environ.keys():
        return public(f"{environ['GITHUB_SERVER_URL']}/{environ['GITHUB_REPOSITORY']}")
    if not (folder / ".git").exists():  # a folder within another clone is not its own
        return None
    git = ["git", "-C", str(folder), "config", "--get", "remote.origin.url"]
    try:
        return public(subprocess.run(git, capture_output=True, text=True).stdout.strip())
    except FileNotFoundError:  # no git: the sources came in an archive
        return None


class Repository(SphinxRole):
    """A link, or the text alone."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """One node."""
        if uri := self.config.repository:
            return [nodes.reference("", self.text, refuri=uri, internal=False)], []
        return [nodes.Text(self.text)], []


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_config_value("repository", address(Path(app.confdir)), "env", (str, type(None)))
    app.add_role("repository", Repository())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
