"""MindDiffuser, runnable: from fMRI responses to reconstructed images and claims.

What a notebook begins with stands in `__init__.pyi` and is loaded when it is asked for.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
