"""The images that need no generator: what a reconstruction must be better than.

The mean training image, a training image at random, the one nearest by decoded features
and that of the likeliest caption, the mean of them over the posterior of their
captions, and the pixels that ridge reads from voxels. Not here: what each is called
(`core.conditions`).
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from minddiff_utils.core import store
from minddiff_utils.core.errors import DataError, StoreError, check_shape
from minddiff_utils.core.rows import Images, Rows, in_blocks
from minddiff_utils.generation.checkpoints import subject_of
from minddiff_utils.generation.decoded_features import SubjectFeatures

__all__ = ["baseline_images", "mean_image"]

Ids = npt.NDArray[np.int64]


def mean_image(images_train: Images) -> npt.NDArray[np.uint8]:
    """Return the mean of the training images, rounded to uint8.

    Parameters
    ----------
    images_train : uint8 (n_images, height, width, 3)
        Training images only.

    Returns
    -------
    uint8 (height, width, 3)
        What is best guessed, in squared error, without a brain.
    """
    check_shape(images_train.shape, (None, None, None, 3), "images_train")
    if len(images_train) == 0:
        raise DataError("There is no training image to average: raise data.sessions.")
    total = np.zeros(images_train.shape[1:])  # of integers: exact in any order
    for _, block in in_blocks(images_train):
        total += block.sum(axis=0, dtype=np.float64)
    return np.asarray(np.rint(total / len(images_train)).astype(np.uint8))


def baseline_images(features: SubjectFeatures, engine: str) -> Images:
    """Return a baseline's images of all images to reconstruct, uint8 (n, S, S, 3).

    Parameters
    ----------
    features : SubjectFeatures
    engine : {"mean", "random", "nearest", "likeliest", "expected", "pixels"}

    Raises
    ------
    StoreError
        An artefact is missing, or two of them do not belong together.
    """
    make: dict[str, Callable[[SubjectFeatures], Images]] = {
        "mean": _mean,
        "random": _random,
        "nearest": partial(_retrieved, "retrieval_nsd_id"),
        "likeliest": partial(_retrieved, "posterior_nsd_id"),
        "expected": partial(_pixels, "posterior_image"),
        "pixels": partial(_pixels, "pixel_ridge"),
    }
    return make[engine](features)


def _seen(features: SubjectFeatures) -> tuple[Ids, Rows, npt.NDArray[np.bool_]]:
    """Return the ids of all seen images, the images, and which are for training."""
    path = features.path("stimuli.h5")
    nsd_id = store.read_arrays(path, ["nsd_id"])["nsd_id"]
    images = store.read_rows(path, "images")
    split = store.read_arrays(features.path("responses.h5"), ["split"])["split"]
    if not len(split) == len(images) == len(nsd_id):
        raise _strangers(path.parent)
    return nsd_id, images, split == "train"


def _mean(features: SubjectFeatures) -> Images:
    _, images, is_train = _seen(features)
    return np.repeat(mean_image(images.of(is_train))[None], len(features.nsd_id), 0)


def _random(features: SubjectFeatures) -> Images:
    _, images, is_train = _seen(features)
    train = images.of(is_train)
    stream = features.run.stream("random train", subject_of(features.run))
    return train.of(stream.integers(len(train), size=len(features.nsd_id)))


def _retrieved(name: str, features: SubjectFeatures) -> Images:
    nsd_id, images, _ = _seen(features)
    row = {int(i): k for k, i in enumerate(nsd_id)}
    ids = store.read_arrays(features.path(), [name])[name][: len(features.nsd_id)]
    if not {int(i) for i in ids} <= set(row):
        raise _strangers(features.path().parent)
    return images.of([row[int(i)] for i in ids])


def _pixels(name: str, features: SubjectFeatures) -> Images:
    _, images, _ = _seen(features)
    return features.pixels(name, images.shape[1])


def _strangers(folder: Path) -> StoreError:
    return StoreError(
        f"{folder}: stimuli.h5, responses.h5 and decoded.h5 do not belong together; run"
        " notebooks 01 and 02 of this subject again."
    )
