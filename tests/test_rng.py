"""Streams have names; order of calls and global state do not matter."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minddiff_utils.core.rng import derive_seed, stream, torch_stream

NAMES = st.lists(st.one_of(st.text(max_size=5), st.integers(0, 99)), max_size=3)


@given(NAMES, NAMES)
def test_two_streams_are_equal_exactly_when_their_names_are(a: list, b: list) -> None:
    equal = [(type(x), x) for x in a] == [(type(x), x) for x in b]
    assert (derive_seed(3, *a) == derive_seed(3, *b)) == equal


def test_order_of_calls_does_not_matter() -> None:
    first = stream(1, "a").random(4)
    stream(1, "b").random(9)
    np.testing.assert_array_equal(stream(1, "a").random(4), first)


def test_torch_streams_repeat() -> None:
    import torch

    draws = [torch.randn(3, generator=torch_stream(1, "n", 5)) for _ in range(2)]
    assert torch.equal(*draws)
