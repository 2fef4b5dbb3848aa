"""Named scores of reconstructed images: pure functions, one definition per name.

Every variant that published code confuses has a name of its own here. `registry` is the
one table of metrics and networks, `pixels` compares images, `embeddings` what networks
make of them, `networks` makes images into features, `scores` scores all images of a
subject. Networks come in as embeddings, so that the judge knows nothing of the method
it judges. Not here: intervals and tests.

What the folder hands on stands in `__init__.pyi` and is loaded when it is asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
