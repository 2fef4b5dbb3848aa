"""Further test sets of NSD, for decoders that were trained on its core.

A further test set has its own stimuli and responses in the same voxels as the core: it
is never trained on. Both have the methods of `Synthetic` and `Imagery`, and what stands
in `test_set`; every method raises DataError where a file is missing, damaged or at odds
with the others.
"""

from minddiff_utils.datasets.further_tests.imagery import Imagery
from minddiff_utils.datasets.further_tests.synthetic import Synthetic
from minddiff_utils.datasets.nsd.reader import NsdTree

__all__ = ["FurtherTest", "further_tests"]

FurtherTest = Synthetic | Imagery


def further_tests(tree: NsdTree) -> tuple[FurtherTest, ...]:
    """Return the further test sets, whether or not `tree` holds their files."""
    return Synthetic(tree), Imagery(tree)
