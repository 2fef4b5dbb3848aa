"""Fixtures shared by the tests."""

import numpy as np
import pytest

from minddiff_utils.rng import stream


@pytest.fixture
def rng() -> np.random.Generator:
    """Give each test its own named stream."""
    return stream(0, "tests")
