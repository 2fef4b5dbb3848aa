"""Faults on purpose: kills, a full disk, flipped bytes. A run must outlive them all.

    python -m tests.faults --kills 50 --folder FOLDER

runs the profile smoke undisturbed, then again while it is killed (SIGKILL) at random
moments, each time started anew by the same command; then with a byte flipped in every
kind of artefact; then on a disk that fills up. In the end all files must be those of
the undisturbed run, to the byte, and nothing half-written may be left; a batch of
images that was done is never lost or made again. It needs Linux,
takes most of an hour on two cores, and writes what it saw to FOLDER/faults.json. The
tests use the same functions for a short form.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import psutil

from minddiff_utils.core import store
from minddiff_utils.core.provenance import digest_file

REPOSITORY = Path(__file__).resolve().parents[1]
RUN = [sys.executable, "-m", "minddiff_utils.pipeline.cli", "run", "--profile", "smoke"]
#: Folders of copies and records, which hold times, and of memory.
_NOT_RESULTS = ("notebooks", "batches", "checkpoints")
#: A page and a table that hold seconds.
_WITH_TIMES = ("report.html", "seconds.csv", "seconds.md", "seconds.tex")


def prepare(root: Path) -> None:
    """Give an empty root the shipped models."""
    models = root / "data" / "models"
    models.parent.mkdir(parents=True, exist_ok=True)
    if not models.exists():
        models.symlink_to(REPOSITORY / "data" / "models")


def start(root: Path, *more: str) -> subprocess.Popen[str]:
    """Start smoke in `root`, as a user would, in a process group of its own."""
    prepare(root)
    return subprocess.Popen(
        [*RUN, *more],
        env=os.environ | {"MINDDIFF_ROOT": str(root), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def results(root: Path) -> dict[str, bytes]:
    """Return every result of a run by name; manifests and records hold times."""
    found = {}
    for folder in (root / "figures" / "smoke", root / "data" / "smoke"):
        for path in folder.rglob("*"):
            name = path.relative_to(root)
            if not path.is_file() or set(name.parts) & set(_NOT_RESULTS):
                continue
            told = path.name.endswith(".manifest.json") or path.name in _WITH_TIMES
            if not told and not path.name.endswith("lock"):
                found[name.as_posix()] = path.read_bytes()
    return found


def batches(root: Path) -> dict[str, tuple[str, int]]:
    """Return digest and time of writing of each batch of images that is done, by name.

    A name begins with the notebook whose images they are.
    """
    found = {}
    for path in (root / "data" / "smoke" / "derived").glob("*/checkpoints/*.h5"):
        if not store.is_intact(path):
            continue
        with h5py.File(path, locking=False) as file:
            notebook = "04" if "losses" in file else "03"
        time_ns = path.stat().st_mtime_ns
        found[f"{notebook} {path.name}"] = (digest_file(path), time_ns)
    return found


def lost(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Return the batches that were done and are gone, or were made again."""
    return sorted(name for name in before if after.get(name) != before[name])


def leftovers(root: Path) -> list[str]:
    """Return what a finished run must not leave: parts, states, journals."""
    found = [
        *root.rglob("*.part"),
        *root.rglob("*.old"),
        *root.rglob(".*.journal"),
        *(p for p in root.rglob("unfinished/*") if p.is_file()),
    ]
    return sorted(path.relative_to(root).as_posix() for path in found)


def differences(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> list[str]:
    """Return the names of results that are missing, new or other."""
    names = found.keys() | expected.keys()
    return sorted(n for n in names if found.get(n) != expected.get(n))


# --- kills ----------------------------------------------------------------------------


@dataclass
class Kills:
    """What was killed, and what the run said of it."""

    victims: Counter[str] = field(default_factory=Counter)
    in_notebook: Counter[str] = field(default_factory=Counter)
    said: list[str] = field(default_factory=list)
    went_on: int = 0  # a kernel that only stood by was killed: the run takes another
    survivors: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    lost_batches: list[str] = field(default_factory=list)

    def report(self) -> dict[str, object]:
        """Return the log in what JSON can hold (`asdict` spoils a Counter)."""
        return {
            "kills": self.victims.total(),
            "victims": dict(self.victims),
            "in_notebook": dict(self.in_notebook),
            "sentences": sorted({_without_names(line) for line in self.said}),
            "went_on": self.went_on,
            "survivors": self.survivors,
            "tracebacks": self.tracebacks,
            "lost_batches": self.lost_batches,
        }


def kill_once(
    root: Path, rng: np.random.Generator, longest: float, log: Kills, *more: str
) -> bool:
    """Start a run and kill a random process of it; return False if it had ended.

    The victim is the run itself in half of all cases, otherwise a job or its kernel.
    `more` are further words of the run's command.
    """
    process = start(root, *more)
    deadline = time.monotonic() + rng.uniform(0.5, longest)
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return False
        time.sleep(0.05)
    before = _tree(process.pid)
    family = _family(process.pid)
    whole = rng.random() < 0.5 or not family
    victim = psutil.Process(process.pid) if whole else rng.choice(np.array(family))
    log.victims["run" if whole else "job or kernel"] += 1
    victim.send_signal(signal.SIGKILL)
    longest_end = 60 if whole else 900  # one that goes on has its work to do
    try:
        said, _ = process.communicate(timeout=longest_end)
    except subprocess.TimeoutExpired:
        living = _tree(process.pid, *(p.pid for p in family))
        seconds = f"{longest_end} s after {victim.pid}"
        log.survivors.append(f"{seconds} of {before} was killed: {living}")
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
    lines = said.strip().splitlines()
    running = [line.split(":")[0] for line in lines if line.endswith(": queued")]
    log.in_notebook[running[-1] if running else "before the first notebook"] += 1
    if process.returncode == 0:
        log.went_on += 1
    elif not whole:
        log.said.append(lines[-1] if lines else "")
    if "Traceback" in said:
        log.tracebacks.append(said[-2000:])
    log.survivors += _still_there(family)
    return True


def _family(pid: int) -> list[psutil.Process]:
    """Return jobs and kernels, not the servers below the run that fork them."""
    try:
        servers = psutil.Process(pid).children()
        return [p for server in servers for p in server.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _tree(*pids: int) -> list[str]:
    """Return each process and those below it: number, parent, command."""
    found = {}
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            for p in [process, *process.children(recursive=True)]:
                found[p.pid] = f"{p.pid} < {p.ppid()} {' '.join(p.cmdline())[-80:]}"
    return list(found.values())


def _still_there(family: list[psutil.Process]) -> list[str]:
    """Return processes that outlive their run by more than ten seconds."""
    _, alive = psutil.wait_procs(family, timeout=10)
    names = []
    for process in alive:
        try:
            names.append(" ".join(process.cmdline())[:200])
            process.kill()
        except psutil.NoSuchProcess:
            continue
    return names


def run_through(root: Path, *more: str) -> tuple[str, float]:
    """Run smoke to its end; return what it said and its seconds."""
    began = time.monotonic()
    process = start(root, *more)
    said, _ = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(said)
    return said, time.monotonic() - began


# --- flipped bytes --------------------------------------------------------------------


def flip(path: Path, rng: np.random.Generator) -> None:
    """Flip a bit of a random byte and put the file's time back, as a bad disk would."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[int(rng.integers(len(content)))] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def one_of_each_kind(root: Path) -> Iterator[Path]:
    """Give one artefact per folder and suffix of a finished run."""
    seen = set()
    for name in sorted(results(root)):
        path = root / name
        kind = (path.parent, path.suffix)
        if kind not in seen and path.with_name(f"{path.name}.manifest.json").is_file():
            seen.add(kind)
            yield path


# --- a full disk ----------------------------------------------------------------------


def can_mount() -> bool:
    """Return whether this user may mount a small disk of memory for a process."""
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def on_small_disk(
    root: Path, megabytes: int, script: str
) -> subprocess.CompletedProcess:
    """Run a shell script with `root` on a disk of so many MB; files stay in `root`."""
    root.mkdir(parents=True, exist_ok=True)
    aside = root.with_name(f"{root.name}.kept")
    mount = (
        f'mkdir -p "$2" && mount -t tmpfs -o size={megabytes}m tmpfs "$1" && cd "$1" &&'
        f' {{ {script} ; }} ; code=$? ; cp -a "$1"/. "$2" ; exit $code'
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount, "sh", str(root), str(aside)],
        env=os.environ | {"MINDDIFF_ROOT": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.copytree(aside, root, symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(aside)
    return done


# --- the long form --------------------------------------------------------------------

#: Takes what a campaign has seen so far; a later failure must not lose it.
Keep = Callable[[dict[str, object]], None]


def kill_campaign(folder: Path, n_kills: int, seed: int, keep: Keep) -> None:
    """Kill runs until `n_kills` are reached; every run that comes through is compared.

    `folder` holds the tree of the undisturbed run, as for all campaigns.
    """
    undisturbed, root = folder / "undisturbed", folder / "killed"
    longest = _seconds_of_notebooks(undisturbed)
    expected, made = results(undisturbed), _contents(batches(undisturbed))
    rng, log, through = np.random.default_rng(seed), Kills(), list[dict[str, object]]()

    def look() -> None:
        found = _contents(batches(root))
        through.append(
            {
                "kills_before": log.victims.total(),
                "other_results": differences(results(root), expected),
                "other_batches": [k for k in made if found.get(k) != made[k]],
                "leftovers": leftovers(root),
            }
        )
        keep(
            log.report()
            | {"results": len(expected), "batches": _by_notebook(made)}
            | {"runs_that_came_through": through}
        )

    while log.victims.total() < n_kills:
        # early moments and late ones; only after the latter is any notebook done
        late = longest if log.victims.total() % 2 else longest / 3
        before = batches(root)
        was_killed = kill_once(root, rng, late, log)
        log.lost_batches += lost(before, batches(root))
        _tell(f"kill {log.victims.total()} of {n_kills}, {len(before)} batches held")
        if not was_killed:
            look()  # the whole run came through: begin another one
            shutil.rmtree(root)
    before = batches(root)
    run_through(root)
    log.lost_batches += lost(before, batches(root))
    look()


def failures(seen: object) -> list[str]:
    """Return what a report names that must be empty, one line each."""
    empty = ("survivors", "tracebacks", "leftovers")
    found = []
    for name, value in seen.items() if isinstance(seen, dict) else ():
        if value and (name in empty or name.startswith(("lost_", "other_"))):
            found.append(f"{name}: {value}")
        for each in value if isinstance(value, list) else [value]:
            found += failures(each)
    return found


def _tell(words: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {words}\n")
    sys.stdout.flush()


def _contents(found: Mapping[str, tuple[str, int]]) -> dict[str, str]:
    return {name: digest for name, (digest, _) in found.items()}


def _by_notebook(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(name.split()[0] for name in names))


def _seconds_of_notebooks(root: Path) -> float:
    times = (root / "figures" / "smoke" / "notebooks").glob("*.json")
    return sum(float(json.loads(path.read_text())["seconds"]) for path in times)


def _without_names(line: str) -> str:
    return " ".join("..." if "_" in word else word for word in line.split())


def flip_campaign(folder: Path, seed: int, keep: Keep) -> None:
    """Flip a bit in every kind of artefact of a finished run, and run again."""
    undisturbed, root = folder / "undisturbed", folder / "flipped"
    shutil.copytree(undisturbed, root, symlinks=True)
    expected, rng = results(undisturbed), np.random.default_rng(seed)
    flipped = list(one_of_each_kind(root))
    for path in flipped:
        flip(path, rng)
    said, _ = run_through(root)
    keep(
        {
            "flipped": len(flipped),
            "notebooks_run_again": said.count(": queued"),
            "other_results": differences(results(root), expected),
        }
    )


def disk_campaign(folder: Path, keep: Keep) -> None:
    """Run on disks that fill up, then again with room."""
    if not can_mount():
        keep({"not_run": "this user may not mount a disk of memory"})
        return
    undisturbed, root = folder / "undisturbed", folder / "full"
    shutil.copytree(undisturbed / "data", root / "data", symlinks=True)
    shutil.rmtree(root / "data" / "smoke" / "derived")
    used = sum(f.stat().st_size for f in root.rglob("*") if f.is_file()) / 1e6
    run = " ".join(RUN)
    found = list[dict[str, object]]()
    for room in (2, 8, 20):
        copy = root.with_name(f"full_{room}")
        done = on_small_disk(copy, round(used) + room, f'cp -a "{root}"/. . && {run}')
        last = (done.stdout + done.stderr).strip().splitlines()[-1]
        run_through(copy)
        found.append(
            {
                "room_mb": room,
                "exit_code": done.returncode,
                "said": _without_names(last),
                "leftovers": leftovers(copy),
                "other_results": differences(results(copy), results(undisturbed)),
            }
        )
        keep({"disks": found})


def main() -> None:
    """Run the campaigns asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=2308)
    parser.add_argument(
        "--folder", type=Path, help="empty, 2 GB free; default: a new one in TMPDIR"
    )
    parser.add_argument("--only", choices=("kills", "flips", "disk"))
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="minddiff-faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    _tell(f"one run undisturbed, in {folder}")
    run_through(folder / "undisturbed")
    held = _by_notebook(batches(folder / "undisturbed"))
    if set(held) != {"03", "04"}:
        raise SystemExit(f"batches of 03 and 04 are to be held, but there are {held}.")
    campaigns: dict[str, Callable[[Keep], None]] = {
        "kills": lambda keep: kill_campaign(folder, args.kills, args.seed, keep),
        "flips": lambda keep: flip_campaign(folder, args.seed, keep),
        "disk": lambda keep: disk_campaign(folder, keep),
    }
    path = folder / "faults.json"
    report = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name, campaign in campaigns.items():
        if args.only in (None, name):
            _tell(f"campaign {name}")
            campaign(partial(_keep, path, report, name))
    wrong = failures(report)
    _tell(f"{len(wrong)} failures; all that was seen is in {path}")
    for line in wrong:
        _tell(line[:500])
    if wrong:
        raise SystemExit(1)


def _keep(path: Path, report: dict[str, object], name: str, seen: object) -> None:
    report[name] = seen
    text = f"{json.dumps(report, indent=1)}\n"
    path.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
