"""A worker of a pool ends with the process that made the pool, whatever it is at."""

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from minddiff_utils.core import surroundings

_POOL = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from minddiff_utils.core.locks import end_with_parent
if __name__ == "__main__":
    pool = ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=end_with_parent
    )
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 60)
    time.sleep(60)
"""


def test_a_worker_ends_with_the_process_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "pool.py"
    script.write_text(_POOL, encoding="utf-8")
    command = [sys.executable, script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        time.sleep(0.5)  # it sleeps for a minute now
        parent.kill()
    _, alive = psutil.wait_procs([worker], timeout=10)
    assert not alive


@pytest.mark.parametrize(("system", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_is_in_bytes_on_every_system(
    monkeypatch: pytest.MonkeyPatch, system: str, unit: int
) -> None:
    usage = SimpleNamespace(ru_maxrss=5000)
    monkeypatch.setattr(surroundings.resource, "getrusage", lambda _: usage)
    monkeypatch.setattr(surroundings.sys, "platform", system)
    assert surroundings.peak_bytes() == 5000 * unit
