"""The results that come with the clone, and how one's own run differs from them.

`figures/reference` holds a finished run of the demo, made light enough for a clone:
`write_reference` makes it, `compare` says of each claim and table of another run
whether it is identical, within rounding or different.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
