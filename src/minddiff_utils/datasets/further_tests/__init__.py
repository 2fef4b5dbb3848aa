"""Further test sets of NSD, for decoders that were trained on its core."""

from minddiff_utils.datasets.further_tests.imagery import Imagery
from minddiff_utils.datasets.further_tests.synthetic import Synthetic
from minddiff_utils.datasets.further_tests.test_set import FurtherTest
from minddiff_utils.datasets.nsd.reader import NsdTree

__all__ = ["further_tests"]


def further_tests(tree: NsdTree) -> tuple[FurtherTest, ...]:
    """Return the further test sets, whether or not `tree` holds their files."""
    return Synthetic(tree), Imagery(tree)
