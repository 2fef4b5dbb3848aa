"""Damaged files at random: a reader succeeds, or says what is wrong in one sentence.

Each case is a sound file with a few bytes changed, or nothing but noise; its number is
its seed. `MINDDIFF_FUZZ=20000` tries that many of each kind instead of a few hundred.

HDF5 itself may loop for ever or break down on a damaged file. What our own manifests
list is not opened then (`store`), so these cases come to `store` without a manifest and
with one; NSD's files have none, and are tried as they are. Such cases run in a process
of their own, which the system ends after half a second of computing: what
is asserted is that a case with a manifest always ends by itself, that few others do
not, and that none ever ends in another exception.
"""

import gzip
import json
import os
import random
import resource
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from scipy.io import savemat

from minddiff_utils.core import profile_files, store
from minddiff_utils.core.errors import MindDiffError
from minddiff_utils.core.places import project_root
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.run import Run, start
from minddiff_utils.datasets.nsd.reader import NsdTree
from tests import tiny_nsd

#: Cases of each kind.
N_CASES = int(os.environ.get("MINDDIFF_FUZZ", "150"))
#: Seconds of computing after which a case counts as one without end.
_LIMIT_S = 0.5
#: Memory that a case may ask for.
_LIMIT_BYTES = 8 << 30
#: At most so many in a hundred damaged files may be without end, in HDF5.
_MOST_ENDLESS = 3

Read = Callable[[Path], object]


# --- damage ---------------------------------------------------------------------------


def spoil(sound: bytes, rng: random.Random) -> bytes:
    """Return `sound` with something wrong, or noise."""
    data, place = bytearray(sound), rng.randrange(len(sound))
    match rng.randrange(7):
        case 0:  # some bytes
            for _ in range(rng.randrange(1, 9)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        case 1:  # cut short
            del data[place:]
        case 2:  # a hole
            width = min(rng.randrange(1, 64), len(data) - place)
            data[place : place + width] = bytes(width)
        case 3:  # something between
            data[place:place] = rng.randbytes(rng.randrange(1, 16))
        case 4:  # something lost
            del data[place : place + rng.randrange(1, 64)]
        case 5:  # the largest number
            data[place : place + 8] = b"\xff" * len(data[place : place + 8])
        case _:  # nothing but noise
            data = bytearray(rng.randbytes(rng.randrange(200)))
    return bytes(data)


def outcome(read: Read, path: Path) -> str:
    """Return "read", "said", or what went wrong instead of a sentence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as Pillow's, of a huge picture
            read(path)
    except MindDiffError as error:
        said = str(error)
        whole = said.endswith(".") and len(said.splitlines()) == 1
        return "said" if whole else f"no sentence: {said!r}"
    except BaseException as error:  # noqa: BLE001  (what the test is about)
        return f"{type(error).__name__}: {error}"
    return "read"


def run_cases(sound: Path, read: Read) -> dict[int, str]:
    """Return the outcome of each case; `sound` is damaged and mended again."""
    data = sound.read_bytes()
    found = {case: _one(sound, data, read, case) for case in range(N_CASES)}
    sound.write_bytes(data)
    assert outcome(read, sound) == "read"
    return found


def _one(path: Path, data: bytes, read: Read, case: int) -> str:
    path.unlink()  # a new file: HDF5 may hold the old one
    path.write_bytes(spoil(data, random.Random(case)))
    return outcome(read, path)


def run_apart(sound: Path, read: Read) -> dict[int, str]:
    """Return the outcomes as `run_cases`, "endless" where the system ended the case."""
    data, found = sound.read_bytes(), dict[int, str]()
    while len(found) < N_CASES:
        source, sink = os.pipe()
        child = os.fork()
        if not child:
            _work(sink, sound, data, read, len(found))
        os.close(sink)
        with os.fdopen(source, encoding="utf-8") as pipe:
            for line in pipe:
                found[len(found)] = json.loads(line)
        os.waitpid(child, 0)
        if len(found) < N_CASES:
            found[len(found)] = "endless"
    sound.write_bytes(data)
    assert outcome(read, sound) == "read"
    return found


def _work(sink: int, sound: Path, data: bytes, read: Read, first: int) -> NoReturn:
    """Try the cases from `first` on in this child, until the last or an endless one."""
    resource.setrlimit(resource.RLIMIT_AS, (_LIMIT_BYTES, _LIMIT_BYTES))
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)  # ends the process, even within C
    sound.touch()
    for case in range(first, N_CASES):
        signal.setitimer(signal.ITIMER_VIRTUAL, _LIMIT_S)
        what = json.dumps(_one(sound, data, read, case)[:1000])
        os.write(sink, f"{what}\n".encode())
    os._exit(0)


def wrong(found: Mapping[int, str], *allowed: str) -> dict[int, str]:
    return {case: what for case, what in found.items() if what not in allowed}


def check_apart(found: Mapping[int, str]) -> None:
    """Assert that every case ended in a sentence or in numbers, but for a few."""
    assert wrong(found, "read", "said", "endless") == {}
    endless = [case for case, what in found.items() if what == "endless"]
    assert 100 * len(endless) <= _MOST_ENDLESS * N_CASES, endless


# --- YAML -----------------------------------------------------------------------------


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the file of a profile in a root of its own."""
    monkeypatch.setattr(profile_files, "project_root", lambda: tmp_path)
    folder = tmp_path / "notebooks" / "profiles"
    folder.mkdir(parents=True)
    shipped = (
        Path(profile_files.__file__).parents[3]
        / "notebooks"
        / "profiles"
        / "smoke.yaml"
    )
    # damage to a comment can be read, so there must be enough of one to be hit
    (folder / "smoke.yaml").write_bytes(b"# comment\n" * 60 + shipped.read_bytes())
    return folder / "smoke.yaml"


def test_a_profile_of_damaged_yaml_is_read_or_refused_in_one_sentence(
    profile: Path,
) -> None:
    found = run_cases(profile, lambda _: load_profile("smoke"))
    assert wrong(found, "read", "said") == {}
    assert set(found.values()) == {"read", "said"}  # both happen


#: What YAML is made of.
PIECES = (
    *("- ", "? ", ": ", ", ", "\n", "\n  ", "[", "]", "{", "}", "&a ", "*a", "!!", "!"),
    *("int ", "float ", "bool ", "null", "timestamp ", "binary ", "set ", "omap "),
    *("python/name:os.system ", "2001-99-99", "0x", "0b_", "1e999", ".nan", "~", "<<"),
    *("|", ">", "'", '"', "#", "%", "@", "`", "---", "...", "\t", "\0", "\u2028", "é"),
    *("seed", "stage2", "n_iter", "subjects", "1", "-7", "true", "x"),
)


def test_text_put_together_of_yaml_s_pieces_is_read_or_refused(profile: Path) -> None:
    found = {}
    for case in range(N_CASES):
        rng = random.Random(case)
        text = "".join(rng.choices(PIECES, k=rng.randrange(1, 30)))
        found[case] = outcome(
            lambda _, t=text: profile_files.parse_yaml(t, "It"), profile
        )
    assert wrong(found, "read", "said") == {}
    assert set(found.values()) == {"read", "said"}


# --- what the store reads -------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    monkeypatch.setattr("os.fsync", lambda _: None)
    return start("smoke", subject=1)


def _write_arrays(run: Run) -> Path:
    """Write floats, packed integers, truth, words and a group, with attributes."""
    arrays = {
        "betas": np.arange(60, dtype=np.float32).reshape(6, 10),
        "split": ["train", "test"] * 3,
        "clip/1/selected": np.eye(3) > 0,
        "nsd_id": np.arange(2000),
    }
    path = run.tree.root / "made.h5"
    store.write_arrays(path, arrays, run=run)
    return path


def _read_all(path: Path) -> None:
    store.read_arrays(path)


@pytest.mark.timeout(0 if N_CASES > 1000 else 600)
def test_a_damaged_artefact_without_a_manifest_is_read_or_refused(
    run: Run,
) -> None:
    path = _write_arrays(run)
    path.with_name("made.h5.manifest.json").unlink()
    found = run_apart(path, _read_all)
    check_apart(found)
    assert {"read", "said"} <= set(found.values())


def test_a_damaged_artefact_with_its_manifest_is_always_refused(run: Run) -> None:
    """No byte may change unnoticed, and HDF5 never sees the file."""
    path = _write_arrays(run)
    sound = path.read_bytes()
    found = run_cases(path, _read_all)
    same = {c for c in found if spoil(sound, random.Random(c)) == sound}
    assert wrong({c: found[c] for c in found if c not in same}, "said") == {}


def test_a_damaged_picture_is_read_or_refused(run: Run) -> None:
    path = run.tree.root / "made.png"
    image = np.arange(3 * 32 * 32, dtype=np.int64).reshape(32, 32, 3) % 251
    store.write_png(path, image.astype(np.uint8), run=run)
    path.with_name("made.png.manifest.json").unlink()
    found = run_cases(path, store.read_png)
    assert wrong(found, "read", "said") == {}


def test_a_damaged_table_is_read_or_refused(run: Run) -> None:
    path = run.tree.root / "made.csv"
    path.write_text("method,nsd_id,loss\n" + "stage1,12,0.5\n" * 20)
    found = run_cases(path, store.read_table)
    assert wrong(found, "read", "said") == {}


def test_a_damaged_manifest_never_stops_a_reader(run: Run) -> None:
    """What it says no more is not believed: the file is not current, or not read."""
    path = run.tree.root / "made.txt"
    store.write_text(path, "made", run=run)
    manifest = path.with_name("made.txt.manifest.json")

    def look(_: Path) -> None:
        store.is_current(path, run=run, inputs=[path])
        store.read_bytes(path)

    found = run_cases(manifest, look)
    assert wrong(found, "read", "said") == {}


# --- NSD's HDF5 -----------------------------------------------------------------------


@pytest.fixture
def nsd(tmp_path: Path) -> dict[str, tuple[Path, tiny_nsd.Read]]:
    """Give a small file of each kind of NSD's, and what reads it."""
    return tiny_nsd.one_of_each_kind(NsdTree(tmp_path / "nsd"))


@pytest.mark.timeout(0 if N_CASES > 1000 else 600)
@pytest.mark.parametrize("what", ["hdf5", "stimuli"])
def test_a_damaged_hdf5_file_of_nsd_is_read_or_refused(
    nsd: dict[str, tuple[Path, tiny_nsd.Read]], what: str
) -> None:
    path, read = nsd[what]
    check_apart(run_apart(path, lambda _: read()))


# --- headers --------------------------------------------------------------------------

#: Bytes at the front of a file of which each is changed, and to how many others.
_FRONT, _N_VALUES = 400, 3


def _pack(path: Path, data: bytes) -> None:
    """Write a volume's bytes, packed where its name says so: gzip has a checksum."""
    packed = path.suffix in (".gz", ".mgz")
    path.write_bytes(gzip.compress(data, 1, mtime=0) if packed else data)


def _bytes_of(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def _changes(data: bytes, seed: int) -> Iterator[tuple[int, bytes]]:
    """Yield each byte's place, and the file with another one there."""
    rng = random.Random(seed)
    for place in range(min(_FRONT, len(data))):
        others = {0, 255, data[place] ^ 1, data[place] ^ 128, rng.randrange(256)}
        values = sorted(others - {data[place]})
        for value in rng.sample(values, min(_N_VALUES, len(values))):
            yield place, data[:place] + bytes([value]) + data[place + 1 :]


#: Bytes of the header of each format; a surface's ends with its two counts.
HEADERS = {"mask": 352, "regions": 352, "ncsnr": 352, "transform": 28, "sulci": 7}


@pytest.mark.parametrize("what", [*HEADERS, "surface"])
def test_a_changed_byte_of_a_header_gives_the_same_numbers_or_a_sentence(
    nsd: dict[str, tuple[Path, tiny_nsd.Read]], what: str
) -> None:
    path, read = nsd[what]
    sound, data, found = read(), _bytes_of(path), dict[str, list[int]]()
    n_header = HEADERS.get(what) or data.index(b"\n\n") + 10

    def look(_: Path) -> None:
        values = read()
        if place < n_header:
            np.testing.assert_equal(values, sound)

    for place, changed in _changes(data, seed=1):
        _pack(path, changed)
        found.setdefault(outcome(look, path), []).append(place)
    assert found.keys() <= {"read", "said"}, found
    assert "said" in found


@pytest.mark.parametrize("what", ["hdf5", "stimuli"])
def test_a_changed_byte_of_a_header_of_hdf5_is_read_or_refused(
    nsd: dict[str, tuple[Path, tiny_nsd.Read]],
    what: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """HDF5 may be without end at one; no other exception comes out."""
    path, read = nsd[what]
    changed = [data for _, data in _changes(path.read_bytes(), seed=2)]

    def one_byte(_: bytes, rng: random.Random) -> bytes:
        return rng.choice(changed)

    monkeypatch.setitem(globals(), "spoil", one_byte)
    check_apart(run_apart(path, lambda _: read()))


def test_a_changed_byte_of_a_matlab_file_never_ends_the_process(
    nsd: dict[str, tuple[Path, tiny_nsd.Read]],
) -> None:
    """Those that end SciPy's reader by a signal are among them."""
    path, read = nsd["design"]
    order = np.arange(30_000, dtype=np.uint16)[None] % 10_000 + 1
    savemat(path, {"masterordering": order})
    rng, data = random.Random(3), path.read_bytes()
    cases = [data[:124] + b"\0" + data[125:]]  # another version
    cases += [data[:128] + bytes([n]) + data[129:] for n in (0, 1, 12, 15)]
    cases += [changed for p, changed in _changes(data, 3) if p in (126, 136, 144, 145)]
    for changed in rng.sample(cases, 9):
        path.write_bytes(changed)
        assert outcome(lambda _: read(), path) == "said"
    savemat(path, {"masterordering": order}, do_compression=True)
    found = {
        outcome(lambda _: read(), path)
        for place, changed in _changes(path.read_bytes(), 4)
        if place >= 128 and path.write_bytes(changed)
    }
    assert found == {"said"}


# --- notebooks and rates --------------------------------------------------------------


def test_damaged_rates_are_read_or_refused(tmp_path: Path) -> None:
    from minddiff_utils.studies.unit_rates import read_rates

    path = tmp_path / "rates.json"
    shipped = project_root() / "data" / "cost" / "cpu_float32.json"
    path.write_bytes(shipped.read_bytes())
    found: dict[int, Any] = run_cases(path, read_rates)
    assert wrong(found, "read", "said") == {}
