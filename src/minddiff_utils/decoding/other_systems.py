"""What the compared systems start from, decoded from the same voxels (notebook 02).

Each row of the tables says what it shares with its model; what is made of these
features is in `generation`.

References
----------
Takagi and Nishimoto (2023), High-resolution image reconstruction with latent diffusion
models from human brain activity, CVPR; z from early, c from higher visual areas.
Ozcelik and VanRullen (2023), Natural scene reconstruction from fMRI signals using
generative latent diffusion, Scientific Reports 13 (Brain-Diffuser).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.images import resize
from minddiff_utils.core.rows import Rows, in_blocks
from minddiff_utils.core.types import Images, Mask, Matrix
from minddiff_utils.decoding._linear_decoder import LinearDecoder
from minddiff_utils.decoding.fitting import FittedDecoders, VoxelData, fit
from minddiff_utils.decoding.ridge import RidgeGCV

__all__ = ["category_means", "decode_systems", "small_pixels"]


def small_pixels(images: Images | Rows, size: int) -> Matrix:
    """Return images resized to `size` px and flattened, (n, size * size * 3) float32.

    Values 0 to 1: what ridge reads directly from voxels.
    """
    small = np.empty((len(images), size, size, 3), np.uint8)
    for rows, block in in_blocks(images):
        small[rows] = resize(block, size)
    return small.reshape(len(images), -1).astype(np.float32) / np.float32(255)


def decode_systems(
    data: VoxelData,
    Y_train: Mapping[str, Matrix],
    fitted: FittedDecoders,
    paper: Mapping[str, LinearDecoder],
    *,
    lower: Mask,
    rng: np.random.Generator,
) -> dict[str, Matrix]:
    """Decode from voxels what the compared systems start from.

    `takagi`: z from the lower areas alone, c from the higher ones, ridge on all voxels.
    `takagi_minddiffuser`, as MindDiffuser's authors re-implemented it: both from all
    areas by their own voxel-selected ridge. `permuted_voxels`: the profile's decoders
    on test responses whose voxels have changed places, a floor that keeps the scale of
    responses but not their meaning. `pixel_ridge`: pixels, ridge on all voxels.

    Parameters
    ----------
    data : VoxelData
    Y_train : mapping of (n_train, n_targets) float32
        `c`, `z` and `pixels`, the last from `small_pixels`.
    fitted : FittedDecoders
        The profile's own, of `c` and `z`.
    paper : mapping of estimators
        The paper's decoders of `c` and `z`, not fitted.
    lower : (n_voxels,) bool
        Voxels of the low-level areas; the others are the high-level ones.
    rng : numpy Generator
        Of the permutation.

    Returns
    -------
    dict of (n_test, n_targets) float32
        In the features' units, by `system/feature`, and `pixel_ridge`.
    """
    check_shape(lower.shape, (data.X_train.shape[1],), "the mask of lower areas")
    if lower.all() or not lower.any():
        raise DataError(
            "Takagi's decoders need voxels of low-level and of high-level areas, but"
            " one group is empty: check the areas in responses.h5."
        )
    decoded: dict[str, Matrix] = {}
    for name, feature, part in (
        ("takagi/c", "c", data.voxels(~lower)),
        ("takagi/z", "z", data.voxels(lower)),
        ("pixel_ridge", "pixels", data),
    ):
        ridge = fit({feature: RidgeGCV()}, part.X_train, Y_train)
        decoded[name] = ridge.predict_units(part.X_test)[feature]
    theirs = fit({name: paper[name] for name in ("c", "z")}, data.X_train, Y_train)
    moved = data.X_test[:, rng.permutation(data.X_test.shape[1])]
    for name, decoders, X in (
        ("takagi_minddiffuser", theirs, data.X_test),
        ("permuted_voxels", fitted.only(("c", "z")), moved),
    ):
        predicted = decoders.predict_units(X)
        decoded |= {f"{name}/{feature}": Y for feature, Y in predicted.items()}
    return decoded


def category_means(
    Y_train: Matrix,
    train: Sequence[frozenset[str]],
    test: Sequence[frozenset[str]],
) -> Matrix:
    """Return what the category of each test image alone says of a feature.

    A control that knows the truth: the mean feature of the training images that name
    the same objects; where there is none, of those that share most of them; where no
    object is shared, of all.

    Parameters
    ----------
    Y_train : (n_train, n_targets) float32
    train, test : sequence of frozenset of str
        Objects that the captions of each image name.

    Returns
    -------
    (n_test, n_targets) float32
    """
    means: dict[frozenset[str], Matrix] = {}
    for named in set(test):
        shares = np.array([len(named & o) / max(len(named | o), 1) for o in train])
        alike = shares == shares.max()  # all, where none shares an object
        means[named] = Y_train[alike].mean(axis=0)
    return np.stack([means[named] for named in test])
