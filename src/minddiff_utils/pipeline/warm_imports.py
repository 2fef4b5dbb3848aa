"""What the fork server of `warm_kernels` loads before any job is forked from it.

That takes ten seconds and more, in which a fork server does not see whether the run
that started it still lives. So it is watched from here, until all is loaded: a run that
was killed leaves nothing behind. After that the server looks by itself. `warm_kernels`
names this module to the fork server; nobody else imports it.
"""

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

__all__: list[str] = []

#: What the notebooks load, and nothing that computes.
_MODULES = (
    "ipykernel.kernelapp",
    "papermill",
    "matplotlib.backends.backend_pdf",
    "minddiff_utils.decoding.comparison",
    "minddiff_utils.studies.stage2_engines",
    "minddiff_utils.reporting.report_contents",
)
#: Seconds between two looks at who the parent is.
_INTERVAL = 0.2


@contextmanager
def _ended_with(parent: int) -> Iterator[None]:
    """End this process if it is no longer the child of `parent`, while inside."""
    loaded = threading.Event()

    def watch() -> None:
        while not loaded.wait(_INTERVAL):
            if os.getppid() != parent:
                os._exit(1)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        loaded.set()
        watcher.join()  # what is forked later is forked from one thread


# tqdm asks for a widget where it sees a notebook's libraries; none is needed here
warnings.filterwarnings("ignore", message="IProgress not found")
os.chdir(Path(__file__).anchor)  # outlives the folder of the run that started it
with _ended_with(os.getppid()):
    for _name in _MODULES:
        import_module(_name)
    from minddiff_utils.core.provenance import read_package

    read_package()  # every artefact is signed with a digest of code
