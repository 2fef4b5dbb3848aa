"""Warm kernels: they start at once, as what they are forked from has all libraries.

Loading torch and diffusers takes longer than many a notebook of the demo computes. So
the libraries are loaded once, by the fork server of `multiprocessing`; each job is a
process forked from it, and the job forks its kernel before it does anything else, while
it has one thread. The kernel waits for the arguments that jupyter_client would have
given to a new interpreter. What a notebook sees is the same: a process of its own, in
which nothing but imports has happened. Where forking is unsafe (anywhere but Linux), or
where no kernel is warm, the kernel is started the usual way. Either is the run's own
interpreter, whatever kernels are installed, and reads nobody's IPython settings.
Notebooks opened in JupyterLab know nothing of it.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping
from multiprocessing import forkserver, util
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from minddiff_utils.core.locks import end_with_parent
from minddiff_utils.core.surroundings import environment

__all__ = [
    "WarmKernelManager",
    "begin_job",
    "can_be_warm",
    "job_context",
]

_NAME = "minddiff_utils.pipeline.warm_kernels"
#: Loaded before any fork.
_IMPORTS = "minddiff_utils.pipeline.warm_imports"
#: Bytes that the address of a socket may have, less what `multiprocessing` adds to the
#: temporary folder; macOS has the shorter ones.
_LONGEST_FOLDER = (107 if sys.platform == "linux" else 103) - len(
    "/pymp-abcdefgh/listener-abcdefgh"
)

#: The warm kernel of this process, if any: it and the way to wake it.
_warm: list[tuple[BaseProcess, Connection]] = []


def can_be_warm() -> bool:
    """Return whether forking a process with these libraries loaded is safe here."""
    return sys.platform == "linux"


#: Jobs from which on loading the libraries once costs less than in each job.
_WORTH_IT = 3


def job_context(n_jobs: int) -> BaseContext:
    """Return the context of jobs: forked from loaded libraries, or started anew.

    The libraries are loaded under the variables of the moment (`surroundings.settled`).
    """
    folder = os.fsencode(tempfile.gettempdir())  # holds the fork server's socket
    if not can_be_warm() or n_jobs < _WORTH_IT or len(folder) > _LONGEST_FOLDER:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_IMPORTS])
    # one thread per library, so that no pool of threads is forked
    with environment({"OMP_NUM_THREADS": "1"}):
        forkserver.ensure_running()
    return context


def begin_job(variables: Mapping[str, str]) -> None:
    """Prepare a job's own process, first of all: fork its kernel, and set its end.

    `variables` are the run's; the fork server has those of its own start.
    The job ends when the run that started it does, and its kernel with it.
    """
    os.environ.update(variables)
    if can_be_warm():
        _fork_kernel()
    end_with_parent()


def _fork_kernel() -> None:
    """Fork the kernel, while this process has one thread."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    kernel = context.Process(target=_wait_and_serve, args=(here, there))
    kernel.start()
    there.close()
    _warm.append((kernel, here))
    # a job that ends without a notebook lets go of it, and does not wait for it
    util.Finalize(None, here.close, exitpriority=10)


def _wait_and_serve(here: Connection, there: Connection) -> None:
    here.close()
    try:
        argv, env, cwd = there.recv()
    except EOFError:  # the job ended without a notebook
        return
    there.close()
    os.setsid()  # as jupyter_client does, so that a signal reaches the kernel's own
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = list(argv)
    _serve(argv[1:])


def _serve(arguments: list[str]) -> None:
    """Be a kernel, until told to end."""
    from ipykernel.kernelapp import IPKernelApp

    class Kernel(IPKernelApp):
        """A kernel without configuration files and startup files, not even /etc's."""

        def load_config_file(self, *_: Any, **__: Any) -> None:
            pass

        def init_code(self) -> None:
            pass

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    Kernel.launch_instance(arguments)


class _Forked:
    """A forked kernel with the part of `subprocess.Popen` that provisioners use."""

    stdin = stdout = stderr = None

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        self.pid = process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("kernel", timeout or 0.0)
        return code

    def send_signal(self, signum: int) -> None:
        if self.pid is not None and self.poll() is None:
            os.kill(self.pid, signum)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _WarmProvisioner(LocalProvisioner):
    """Wakes the warm kernel, where the usual one would start a process."""

    async def launch_kernel(
        self, cmd: list[str], **kwargs: Any
    ) -> KernelConnectionInfo:
        """Hand `cmd` to the warm kernel, or start one the usual way."""
        if not _warm:
            return await super().launch_kernel(cmd, **kwargs)
        kernel, wake = _warm.pop()
        # the kernel ends when this job does; a new one would read it when it is loaded
        parent = f"--IPKernelApp.parent_handle={os.getpid()}"
        argv = [*cmd[cmd.index(_NAME) :], parent]
        env = dict(kwargs.get("env") or os.environ)
        try:
            wake.send((argv, env, str(kwargs.get("cwd") or Path.cwd())))
        except OSError:  # it was killed while it waited
            return await super().launch_kernel(cmd, **kwargs)
        finally:
            wake.close()
        self.process = cast(Any, _Forked(kernel))
        self.pid = self.pgid = kernel.pid
        return self.connection_info


class WarmKernelManager(AsyncKernelManager):
    """jupyter_client's manager, with a warm kernel where there is one."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """Return how to start the run's own interpreter, whatever is installed."""
        command = [sys.executable, "-P", "-m", _NAME, "-f", "{connection_file}"]
        return KernelSpec(argv=command, language="python", display_name="Python 3")

    async def _async_pre_start_kernel(
        self, **kw: Any
    ) -> tuple[list[str], dict[str, Any]]:
        self.kernel_id = self.kernel_id or str(uuid.uuid4())
        if self.provisioner is None:
            self.provisioner = _WarmProvisioner(
                kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self
            )
        begun: tuple[list[str], dict[str, Any]] = await super()._async_pre_start_kernel(
            **kw
        )
        return begun


if __name__ == "__main__":
    _serve(sys.argv[1:])
