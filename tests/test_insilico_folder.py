"""A simulation replaces what it wrote and nothing else, wherever it is cut off."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minddiff_utils.core.errors import DataError
from minddiff_utils.insilico import folder
from minddiff_utils.insilico.folder import find, renewing

BETAS = "nsddata_betas/ppdata/subj01"
#: Two simulations: the second lacks a session of the first and has one of its own.
FIRST = {f"{BETAS}/s01.hdf5": "a1", f"{BETAS}/s02.hdf5": "a2", "truth/subj01.npz": "t"}
SECOND = {f"{BETAS}/s01.hdf5": "b1", "nsddata/ppdata/subj02/mask": "b2"}
MARKS = {"IN_SILICO.txt", "IN_SILICO.manifest.json"}


def files(root: Path) -> dict[str, str]:
    """Return the content of every file below `root`, without marks."""
    found = {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for path in root.rglob("*")
        if path.is_file()
    }
    return {name: text for name, text in found.items() if Path(name).name not in MARKS}


def put(root: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def simulate(root: Path, content: dict[str, str], key: str) -> None:
    with renewing(root) as renewal:
        put(renewal.fresh, content)
        renewal.publish(key, {"n": len(content)})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a folder that holds the first simulation."""
    path = tmp_path / "LAB" / "insilico"
    simulate(path, FIRST, "first")
    return path


def sentence(error: pytest.ExceptionInfo[DataError]) -> str:
    text = str(error.value)
    assert text.endswith(".")
    assert "\n" not in text
    assert "delete" not in text
    return text


# --- whole changes --------------------------------------------------------------------


def test_a_new_simulation_takes_the_place_of_the_old_one(root: Path) -> None:
    assert find(root, "first") == {"n": 3}
    simulate(root, SECOND, "second")
    assert files(root) == SECOND
    assert (find(root, "first"), find(root, "second")) == (None, {"n": 2})
    assert not (root / "truth").exists()  # empty folders go with their files
    (root / BETAS / "s01.hdf5").unlink()
    assert find(root, "second") is None


def test_the_users_own_folders_beside_the_root_stay(root: Path) -> None:
    names = ("truth", "truth.old", "truth.part", "insilico.old", "insilico.part")
    own = {
        f"{name}/thesis.txt": name for name in (*names, "insilico.new", "unfinished")
    }
    own["insilico.manifest.json"] = "my own notes"
    put(root.parent, own)
    simulate(root, SECOND, "second")
    with pytest.raises(KeyboardInterrupt), renewing(root):
        raise KeyboardInterrupt
    shutil.rmtree(root)
    simulate(root, FIRST, "first")
    assert files(root.parent) == own | {f"insilico/{k}": v for k, v in FIRST.items()}


def test_files_that_came_later_stay(root: Path) -> None:
    own = {
        f"{BETAS}/betas_session05.hdf5": "measured",
        "nsddata/experiments/nsd/responses.tsv": "measured",
        "truth/notes.txt": "mine",
        "thesis.txt": "mine",
        ".hidden": "mine",
    }
    put(root, own)
    simulate(root, SECOND, "second")
    assert files(root) == SECOND | own


# --- refusals -------------------------------------------------------------------------


@pytest.mark.parametrize("real", ["measured", "a9"], ids=["other size", "same size"])
@pytest.mark.parametrize("name", [f"{BETAS}/s01.hdf5", f"{BETAS}/s02.hdf5"])
def test_a_file_that_was_replaced_by_a_real_one_is_refused(
    root: Path, name: str, real: str
) -> None:
    put(root, {name: real})
    before = files(root)
    with pytest.raises(DataError) as error:
        simulate(root, SECOND, "second")
    assert name in sentence(error)
    assert "move it out" in sentence(error)
    assert files(root) == before


def test_a_real_file_where_a_new_one_would_go_is_refused(root: Path) -> None:
    put(root, {"nsddata/ppdata/subj02/mask": "measured"})
    before = files(root)
    with pytest.raises(DataError, match=r"subj02/mask is not the file"):
        simulate(root, SECOND, "second")
    assert files(root) == before


def test_without_its_list_a_folder_takes_only_the_same_files_again(root: Path) -> None:
    (root / "IN_SILICO.manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"s01.hdf5 is not the file"):
        simulate(root, SECOND, "second")
    simulate(root, FIRST, "first")
    assert find(root, "first") == {"n": 3}


@pytest.mark.parametrize(
    "content",
    [{"nsddata/expdesign.mat": "real"}, {"thesis.txt": "mine"}, {".profile": "mine"}],
)
def test_a_folder_with_files_and_without_the_mark_is_refused(
    tmp_path: Path, content: dict[str, str]
) -> None:
    put(tmp_path, content)
    with pytest.raises(DataError) as error:
        simulate(tmp_path, FIRST, "first")
    assert "no simulation wrote" in sentence(error)
    assert files(tmp_path) == content
    assert not list(tmp_path.glob(".in_silico*"))


def test_a_file_or_a_link_to_nothing_in_place_of_the_root_is_refused(
    tmp_path: Path,
) -> None:
    put(tmp_path, {"taken": "mine"})
    (tmp_path / "loose").symlink_to(tmp_path / "absent")
    for name, words in (("taken", "is a file"), ("loose", "a link to nothing")):
        with pytest.raises(DataError) as error:
            simulate(tmp_path / name, FIRST, "first")
        assert words in sentence(error)
    assert files(tmp_path) == {"taken": "mine"}


def test_a_folder_of_the_root_that_is_a_link_is_refused(
    root: Path, tmp_path: Path
) -> None:
    real = tmp_path / "real"
    put(real, {"ppdata/subj01/s01.hdf5": "a1"})  # even the same bytes
    shutil.rmtree(root / "nsddata_betas")
    (root / "nsddata_betas").symlink_to(real)
    with pytest.raises(DataError) as error:
        simulate(root, SECOND, "second")
    assert "nsddata_betas is a link" in sentence(error)
    assert files(real) == {"ppdata/subj01/s01.hdf5": "a1"}


def test_a_link_in_place_of_a_file_is_refused(root: Path, tmp_path: Path) -> None:
    put(tmp_path, {"real.hdf5": "a1"})
    (root / BETAS / "s01.hdf5").unlink()
    (root / BETAS / "s01.hdf5").symlink_to(tmp_path / "real.hdf5")
    with pytest.raises(DataError, match=r"s01.hdf5 is not the file"):
        simulate(root, SECOND, "second")
    assert (root / BETAS / "s01.hdf5").is_symlink()


def test_a_folder_of_the_users_with_the_name_of_the_unfinished_is_refused(
    root: Path,
) -> None:
    put(root, {f"{folder._UNFINISHED}/mine": "mine"})
    with pytest.raises(DataError) as error:
        simulate(root, SECOND, "second")
    assert "move it away" in sentence(error)
    assert files(root) == FIRST | {f"{folder._UNFINISHED}/mine": "mine"}


# --- places ---------------------------------------------------------------------------


def test_a_root_that_is_a_link_to_a_folder_stays_one(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "insilico"
    link.symlink_to(tmp_path / "disk")
    simulate(link, FIRST, "first")
    simulate(link, SECOND, "second")
    assert link.is_symlink()
    assert files(tmp_path / "disk") == SECOND


def test_a_mount_point_is_neither_renamed_nor_refused_for_what_the_disk_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = tmp_path / "mount"
    (mount / "lost+found").mkdir(parents=True)
    inode = mount.stat().st_ino

    def busy(self: Path, target: Any) -> Path:
        if mount in (self, Path(target)):
            raise OSError(errno.EBUSY, "Device or resource busy")
        return rename(self, target)

    rename: Callable[[Path, Any], Path] = Path.rename
    monkeypatch.setattr(Path, "rename", busy)
    simulate(Path(f"{mount}/"), FIRST, "first")
    simulate(mount, SECOND, "second")
    assert files(mount) == SECOND
    assert (mount.stat().st_ino, (mount / "lost+found").is_dir()) == (inode, True)


# --- cut off --------------------------------------------------------------------------


class CutOffError(BaseException):
    """Ends a change like a kill: nothing that would tidy up runs either."""


def count_steps(monkeypatch: pytest.MonkeyPatch, last: int) -> list[str]:
    """Let the first `last` steps that change the disk be done, and none after them."""
    done: list[str] = []

    def step(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def guarded(path: Path, *args: Any, **kwargs: Any) -> Any:
            if len(done) >= last:
                raise CutOffError
            done.append(f"{name} {path.name}")
            return original(path, *args, **kwargs)

        monkeypatch.setattr(owner, name, guarded)

    for name in ("replace", "unlink", "rmdir", "mkdir", "write_text"):
        step(Path, name)
    step(folder.shutil, "rmtree")
    return done


def test_cut_off_between_any_two_steps_the_next_call_goes_on(tmp_path: Path) -> None:
    own = {"thesis.txt": "mine", f"{BETAS}/betas_session05.hdf5": "measured"}
    for last in range(1000):
        root = tmp_path / f"cut{last}" / "insilico"
        simulate(root, FIRST, "first")
        put(root, own)
        with pytest.MonkeyPatch.context() as patch:
            done = count_steps(patch, last)
            try:
                simulate(root, SECOND, "second")
            except CutOffError:
                pass
            else:
                break
        assert files(root).items() >= own.items(), done
        assert find(root, "first") is None or files(root).items() >= FIRST.items(), done
        simulate(root, SECOND, "second")
        assert files(root) == SECOND | own, done
        assert not list(root.glob(".in_silico*")), done
    assert 10 < last < 1000


def test_cut_off_at_the_first_simulation_the_next_call_goes_on(tmp_path: Path) -> None:
    for last in range(1000):
        root = tmp_path / f"cut{last}"
        with pytest.MonkeyPatch.context() as patch:
            done = count_steps(patch, last)
            try:
                simulate(root, FIRST, "first")
            except CutOffError:
                pass
            else:
                break
        assert find(root, "first") is None or files(root) == FIRST, done
        simulate(root, FIRST, "first")
        assert files(root) == FIRST, done
        assert not list(root.glob(".in_silico*")), done
    assert 10 < last < 1000
