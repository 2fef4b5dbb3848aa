"""Decoders of image features from voxels, their choice and their scores (notebook 02).

`VoxelSelectedRidge` is the paper's decoder (FastL2LiR's answer), `RidgeGCV` is ridge on
all voxels (the preset `bayes`), `BandedRidge` searches the balance of voxel groups by
himalaya. All keep one contract, that of `_linear_decoder.LinearDecoder`: fit, predict,
weights by voxel, penalties. `fit` fits those of all features, `cross_validate` predicts
training images out of their fold; by it `top_percent` selects targets and
`decoding_errors` learns how decoded features err (`noise_model`). `score` says how well
test images are decoded, against what `chance` draws of them, and how often each is
identified (`identification`). `comparison` sets decoders side by side (appendix A2),
`other_systems` decodes what the compared systems start from.

What the room hands on stands in `__init__.pyi` and is loaded when it is asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
