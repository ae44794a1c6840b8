"""Kernels for pages: each is a fork of one process that has imported what all of them import.

Otherwise each would take some five seconds for that, before its first cell.
"""

import functools
import gc
import multiprocessing
import os
import sys
from importlib.metadata import EntryPoint
from multiprocessing.context import ForkServerProcess
from typing import Any

import cpuinfo
import torch
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from sphinx.application import Sphinx

# Of other packages alone: the book's own is read when a page imports it.
IMPORTED = ["ipykernel.kernelapp", "matplotlib.figure", "myst_nb", "sphinx.cmd.build"]
IMPORTED += ["torch", "torch._dynamo"]


machine = functools.cache(cpuinfo.get_cpu_info)  # a process of its own finds out, in a second


class Fork(ForkServerProcess):
    """A kernel's process, with the names that :class:`subprocess.Popen` has for it."""

    stdin = stdout = stderr = None  # those of the build

    def poll(self) -> int | None:
        """The exit code, or ``None`` as long as it runs."""
        return self.exitcode

    def wait(self) -> int | None:
        """The exit code, when it has ended."""
        self.join()
        return self.exitcode


class Forked(LocalProvisioner):
    """Starts a kernel as a fork."""

    process: Any = None

    async def launch_kernel(self, cmd: list[str], **options: Any) -> KernelConnectionInfo:
        """Serve what the command ``python -m ipykernel_launcher …`` would serve."""
        self.cwd = options["cwd"]
        self.process = Fork(target=serve, args=(cmd[3:], self.cwd, options["env"], machine()))
        self.process.start()
        self.pid = self.pgid = self.process.pid
        return self.connection_info


def serve(arguments: list[str], folder: str, environ: dict[str, str], here: dict[str, Any]) -> None:
    """Be a kernel, which need not look at the processor, ``here``, again."""
    from ipykernel.kernelapp import IPKernelApp

    os.setsid()  # it is stopped with the processes that it starts
    os.chdir(folder)
    os.environ |= environ
    cpuinfo.get_cpu_info = lambda: here
    gc.freeze()  # a measurement collects garbage: it need not look at all that is imported
    parent = f"--IPKernelApp.parent_handle={os.getppid()}"
    IPKernelApp.launch_instance([*arguments, parent])


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    # Elsewhere there is no fork, or libraries that may not survive it, such as a GPU's.
    if sys.platform == "linux" and not torch.cuda.is_available():
        multiprocessing.set_forkserver_preload(IMPORTED)
        factory = KernelProvisionerFactory
        factory.provisioners["fork"] = EntryPoint("fork", "kernels:Forked", factory.GROUP_NAME)
        os.environ[factory.default_provisioner_name_env] = "fork"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
