"""Fixtures shared by the tests."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from minddiff_utils.backbone import Backbone
from minddiff_utils.rng import stream

#: Modules that take minutes: begun first, so that no worker waits for them at the end.
LONGEST = ("test_smoke_run", "test_engine", "test_kernel_ridge", "test_study")


@pytest.hookimpl(trylast=True)  # after the order was drawn
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest modules first; the order within a module stays as drawn."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """No test leaves a variable behind: the next would write into its folder."""
    before = dict(os.environ)
    yield
    after = dict(os.environ)
    os.environ.clear()
    os.environ |= before
    changed = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
    assert changed <= {"PYTEST_CURRENT_TEST"}, f"left in the environment: {changed}"


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
