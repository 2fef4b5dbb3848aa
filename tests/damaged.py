"""A folder that tests write once, copies that they damage, and what must follow."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from minddiff_utils.core.errors import DataError, MindDiffError
from minddiff_utils.core.profile import DataConfig
from minddiff_utils.datasets import open_data_set
from minddiff_utils.preprocessing import prepare_responses, prepare_stimuli
from tests.tiny_nsd import copy_of

__all__ = [
    *("Damage", "array", "cut", "filled", "folders", "gone", "holds"),
    *("is_a_sentence", "preparing", "refusals", "refused", "table", "taken", "volume"),
]

Damage = Callable[[Path], object]


def folders(write: Callable[[Path], Path]) -> tuple[Any, Any]:
    """Return two fixtures: the folder that `write` makes once, and a copy of links.

    Nobody changes the first; what damages a copy makes a new file in its place.
    """

    @pytest.fixture(scope="module")
    def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
        return write(tmp_path_factory.mktemp("a lab") / "the folder")

    @pytest.fixture
    def copy(whole: Path, tmp_path: Path) -> Path:
        return copy_of(whole, tmp_path / "a copy")

    return whole, copy


# --- what is done to a file -----------------------------------------------------------


def gone(name: str) -> Damage:
    return lambda root: (root / name).unlink()


def holds(name: str, content: bytes | str) -> Damage:
    data = content if isinstance(content, bytes) else content.encode()

    def damage(root: Path) -> None:
        (root / name).unlink()
        (root / name).write_bytes(data)

    return damage


def cut(name: str, n: int = -40) -> Damage:
    """Leave the first `n` bytes, or all but the last -n."""
    return lambda root: holds(name, (root / name).read_bytes()[:n])(root)


def taken(name: str, other: str) -> Damage:
    """Put another file of the folder under the name."""
    return lambda root: holds(name, (root / other).read_bytes())(root)


def array(name: str, edit: Callable[[Any], Any]) -> Damage:
    """Write a file of numpy again, changed."""

    def damage(root: Path) -> None:
        values = edit(np.load(root / name))
        (root / name).unlink()
        np.save(root / name, values, allow_pickle=True)

    return damage


def volume(name: str, edit: Callable[[Any], Any]) -> Damage:
    """Write a NIfTI file again, changed."""

    def damage(root: Path) -> None:
        image: Any = nib.load(root / name)
        values = edit(np.array(image.dataobj))
        (root / name).unlink()
        nib.save(nib.Nifti1Image(values, image.affine), root / name)

    return damage


def table(name: str, edit: Callable[[pd.DataFrame], Any]) -> Damage:
    """Write a table again, as text; `edit` changes it, or returns another."""

    def damage(root: Path) -> None:
        sep = "\t" if name.endswith("tsv") else ","
        held = pd.read_csv(root / name, sep=sep, dtype=str, keep_default_na=False)
        found = edit(held)
        (root / name).unlink()
        (held if found is None else found).to_csv(root / name, sep=sep, index=False)

    return damage


def filled(value: object, *where: object) -> Callable[[Any], Any]:
    """Return what puts a value there."""

    def edit(values: Any) -> Any:
        values = values.copy()
        values[where] = value
        return values

    return edit


# --- what must follow -----------------------------------------------------------------


def preparing(
    name: str, data: DataConfig, subject: int, n_captions: int
) -> Callable[..., None]:
    """Return what does with the folder of a data set as notebook 01 does."""

    def prepare(root: Path, data: DataConfig = data, subject: int = subject) -> None:
        data_set = open_data_set(name, root, data.betas_version, data.split)
        sessions = data_set.sessions(subject, data.session_numbers)
        data_set.check(subject, sessions)
        ready = prepare_responses(data_set, subject, data)
        stimuli = prepare_stimuli(data_set, np.sort(ready.nsd_id), 8, n_captions)
        assert stimuli["images"][:1].shape == (1, 8, 8, 3)

    return prepare


def is_a_sentence(error: MindDiffError) -> bool:
    words = str(error)
    return "\n" not in words and words[-1] in ".?" and len(words) < 700


def refused(
    root: Path, change: Damage, words: str, read: Callable[[Path], object]
) -> None:
    """A damaged folder is one sentence, and reading it writes nothing."""
    change(root)
    before = {path: path.lstat().st_size for path in root.rglob("*")}
    with pytest.raises(DataError, match=words) as caught:
        read(root)
    assert is_a_sentence(caught.value)
    assert {path: path.lstat().st_size for path in root.rglob("*")} == before


def refusals(
    bad: Mapping[str, tuple[Damage, str]], read: Callable[[Path], object]
) -> Callable[..., None]:
    """Return the test that `read` refuses a copy damaged in each of 25 ways or more."""
    assert len(bad) >= 25

    @pytest.mark.parametrize("case", bad)
    def test(copy: Path, case: str) -> None:
        refused(copy, *bad[case], read)

    return test
