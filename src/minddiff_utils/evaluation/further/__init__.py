"""Measures beside the scores of `metrics`: names, captions, brains and human raters.

`naming`: can the object be named; `captions`: what decoded c says; `brain_correlation`:
does the image evoke the measured responses; `shared_images`: the 515 images that all
subjects of NSD saw three times; `human_trials`: two-alternative trials for people.
Pure functions, but for `scores`, which reads a run, subject by subject.

What the folder hands on stands in `__init__.pyi` and is loaded when it is asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
