"""Fixtures shared by the tests."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from minddiff_utils.core import provenance
from minddiff_utils.core.reach import Package
from minddiff_utils.core.rng import stream
from minddiff_utils.models import Backbone

#: Modules that take minutes: begun first, so that no worker waits for them at the end.
LONGEST = ("test_smoke_run", "test_study", "test_real_runs")
AT_FIRST = dict(os.environ)


@pytest.hookimpl(trylast=True)  # after the order was drawn
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest modules first; the order within a module stays as drawn."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


def _changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Name the variables that differ, but pytest's own and those of a first import."""
    differ = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
    return {k for k in differ if not k.startswith(("PYTEST_", "KMP_"))}


@pytest.fixture(autouse=True, scope="module")
def _nothing_left() -> None:
    """No fixture of an earlier module is still in force: a variable, a function."""
    now = {k for k in _changed(AT_FIRST, dict(os.environ)) if k.startswith("MINDDIFF")}
    assert not now, f"left in the environment by an earlier module: {now}"
    functions = [
        f"{name}.{key}"
        for name, module in list(sys.modules.items())
        if name == "os" or name.startswith("minddiff_utils")
        for key, value in list(vars(module).items())
        if str(getattr(value, "__module__", "")).startswith("test")
    ]
    assert not functions, f"put in place by an earlier module: {functions}"


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """No test leaves a variable behind: the next would write into its folder."""
    before = dict(os.environ)
    yield
    changed = _changed(before, dict(os.environ))
    os.environ.clear()
    os.environ |= before
    assert not changed, f"left in the environment: {changed}"


@pytest.fixture
def rng() -> np.random.Generator:
    """Give each test its own named stream."""
    return stream(0, "tests")


class Passes:
    """Counts the images that pass the U-Net forwards and backwards, by hooks."""

    def __init__(self, backbone: Backbone) -> None:
        self.forward = self.backward = 0
        backbone._unet.register_forward_hook(self._seen)

    def _seen(self, _unet: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
        self.forward += len(inputs[0])
        if output.sample.requires_grad:
            output.sample.register_hook(self._differentiated)

    def _differentiated(self, gradient: Tensor) -> None:
        self.backward += len(gradient)


@pytest.fixture
def count_passes() -> type[Passes]:
    """Give `Passes`: made on a backbone, it counts what its U-Net sees from then on."""
    return Passes


@pytest.fixture
def edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., None]]:
    """Give a function that edits a copy of the package, of which digests are made."""
    copy = tmp_path / "edited"
    source = Path(provenance.__file__).parents[1]
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    package = [Package(copy)]
    monkeypatch.setattr(provenance, "_package", lambda: package[0])

    def edit(name: str, old: str, new: str) -> None:
        text = (copy / name).read_text(encoding="utf-8")
        assert old in text, f"{name} has no {old!r}"
        (copy / name).write_text(text.replace(old, new), encoding="utf-8")
        package[0] = Package(copy)
        forget()

    def forget() -> None:
        provenance.code_digest.cache_clear()
        provenance.digest_of.cache_clear()

    forget()
    yield edit
    forget()
