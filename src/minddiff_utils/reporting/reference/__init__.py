"""The results that come with the clone, and how one's own run differs from them.

`figures/reference` holds a finished run of the demo, made light enough for a clone:
`write_reference` makes it, `compare` says of each claim and table of another run
whether it is identical, within rounding or different.
"""

from minddiff_utils.reporting.reference.about import LIMIT, About, read_about
from minddiff_utils.reporting.reference.comparing import Comparison, compare
from minddiff_utils.reporting.reference.writing import write_reference

__all__ = ["LIMIT", "About", "Comparison", "compare", "read_about", "write_reference"]
