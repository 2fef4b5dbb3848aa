"""NSD-synthetic and NSD-imagery as files: fetched where asked for, and checked."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from minddiff_utils.datasets import check_folder
from minddiff_utils.datasets.further_tests.layout import inventory
from minddiff_utils.pipeline.cli import _parser, main
from tests import tiny_further_tests, tiny_nsd
from tests.damaged import cut, folders, gone
from tests.loopback import MEMBERS, PIECE, Bucket, serving

VERSION = tiny_further_tests.VERSION
#: 1 + 1 + 1 + 2 files of synthetic, 1 + 12 + 12 of imagery.
N_FILES = 30


def write(root: Path) -> Path:
    return tiny_further_tests.write(tiny_nsd.simulate(root, (1,)))


whole, copy = folders(write)


def paths(form: str = "hdf5") -> list[str]:
    """Return the paths of all files of subject 1."""
    names = ("synthetic", "imagery")
    files = [inventory(name, 1, VERSION, form) for name in names]  # type: ignore[arg-type]
    return [file.path for several in files for file in several]


@pytest.fixture
def bucket(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rng: np.random.Generator,
    whole: Path,
) -> Iterator[Bucket]:
    """Serve NSD's folder; the core and the captions are there already."""
    with serving(tmp_path, monkeypatch, rng) as bucket:
        further = paths()
        for path in sorted(p for p in whole.glob("nsddata*/**/*") if p.is_file()):
            key = path.relative_to(whole).as_posix()
            bucket.serve(key, path.read_bytes())
            if key not in further:
                here = bucket.root / key
                here.parent.mkdir(parents=True, exist_ok=True)
                here.hardlink_to(path)
        assert all((bucket.root / member).is_file() for member in MEMBERS)
        yield bucket


def fetch(bucket: Bucket, *more: str, command: str = "fetch") -> int:
    words = [command, str(bucket.root), "--profile", "nsd", "--subjects", "1"]
    words += ["--set", "data.sessions=2", "--endpoint", bucket.server.address]
    return main([*words, "--jobs", "1", "--agreement-signed", *more])


def there(bucket: Bucket) -> list[str]:
    return [path for path in paths() if (bucket.root / path).exists()]


def test_sizes_are_those_that_are_published() -> None:
    """A public file of 720 trials of subject 1 has 1,052,494,008 bytes."""
    synthetic, imagery = (
        inventory(name, 1, VERSION)[0].n_bytes for name in ("synthetic", "imagery")
    )
    assert imagery == pytest.approx(1_052_494_008, rel=1e-3)
    assert synthetic - imagery == 81 * 104 * 83 * (744 - 720) * 2  # int16
    assert len(paths()) == N_FILES


def test_they_come_only_if_they_are_asked_for_and_only_once(
    bucket: Bucket, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(bucket) == 0
    assert there(bucket) == []
    bucket.server.cuts = [PIECE, 3 * PIECE, PIECE]  # and goes on behind
    assert fetch(bucket, "--further-tests", "--dry-run") == 0
    assert there(bucket) == []
    said = capsys.readouterr().out
    assert len(re.findall(r"to fetch +nsddata", said)) == N_FILES
    assert fetch(bucket, "--further-tests") == 0
    for path in paths():
        assert (bucket.root / path).read_bytes() == (whole / path).read_bytes()
    starts = [start for start, _ in bucket.server.gets()]
    assert sum(start != "bytes=0-" for start in starts) == 3
    assert fetch(bucket, "--further-tests") == 0
    assert len(bucket.server.gets()) == len(starts)


def test_a_container_that_is_there_is_not_fetched_as_the_other(bucket: Bucket) -> None:
    packed = bucket.root / paths("nii.gz")[0]
    packed.parent.mkdir(parents=True)
    packed.write_bytes(b"packed")
    bucket.serve(paths("nii.gz")[0], b"packed")
    assert fetch(bucket, "--further-tests") == 0
    assert there(bucket) == paths()[1:]


def test_subjects_share_what_is_the_same_for_all(
    bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--further-tests", "--dry-run", "--subjects", "1,2"]
    assert fetch(bucket, *words) == 0
    said = capsys.readouterr().out
    for path in paths():
        assert said.count(path) == 1


@pytest.mark.parametrize("command", ["fetch", "setup", "check"])
def test_other_data_sets_have_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    words = [command, str(tmp_path), "--profile", "algonauts", "--further-tests"]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "--further-tests out" in said
    assert said.count("\n") == 1


def test_a_set_up_hands_the_wish_on(
    bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--further-tests", "--dry-run", "--set", "models.backbone=tiny"]
    assert fetch(bucket, *words, command="setup") == 0
    said = capsys.readouterr().out
    lines = re.findall(r"by hand: minddiff (.+)$", said, re.M)
    assert [line.split()[0] for line in lines] == ["fetch", "check", "plan"]
    assert all(line.endswith("--further-tests") for line in lines[:2])
    for line in lines:
        _parser().parse_args(line.split())


# --- the check ------------------------------------------------------------------------


def test_a_check_looks_at_what_is_there_and_misses_what_is_asked_for(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"subjects": (1,), "sessions": (1, 2), "betas_version": VERSION}
    items = [f"NSD-synthetic {p}" for p in ("betas", "trials", "stimuli", "pictures")]
    items += [f"NSD-imagery {part}" for part in ("betas", "trials", "pictures")]
    found = check_folder(copy, **asked)  # type: ignore[arg-type]
    further = [f for f in found.findings if f.item.startswith("NSD-")]
    assert [f.item for f in further] == items
    assert {f.state for f in further} == {"ok"}
    for path in paths():
        gone(path)(copy)
    bare = check_folder(copy, **asked)  # type: ignore[arg-type]
    assert len(bare.findings) == len(found.findings) - len(items)
    missed = check_folder(copy, **asked, further=True)  # type: ignore[arg-type]
    assert [f.item for f in missed.findings if f.state == "missing"] == items
    words = ["check", str(copy), "--profile", "nsd", "--subjects", "1"]
    assert main([*words, "--set", "data.sessions=2", "--further-tests"]) == 1
    said = capsys.readouterr().out
    assert "11 other files: get them with `minddiff fetch --further-tests`" in said


def test_headers_alone_tell_of_a_file_cut_short_or_of_another_kind(copy: Path) -> None:
    asked = {"subjects": (1,), "sessions": (1, 2), "betas_version": VERSION}
    common, own = (path for path in paths() if path.startswith("nsddata_stimuli"))
    cut(common, -2000)(copy)
    found = check_folder(copy, **asked)  # type: ignore[arg-type]
    (bad,) = (f for f in found.findings if f.is_unusable)
    assert (bad.item, bad.state) == ("NSD-synthetic pictures", "damaged")
    shutil.copy(copy / own, copy / f"{common}.new")
    (copy / f"{common}.new").rename(copy / common)
    found = check_folder(copy, **asked)  # type: ignore[arg-type]
    (bad,) = (f for f in found.findings if f.is_unusable)
    assert "of shape (64, 14, 26, 3)" in bad.words
