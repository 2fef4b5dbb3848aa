"""The training image whose features are nearest to decoded ones: a baseline.

Features are compared in units of their own spread, all of a kind together. Notebook 02
calls it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import DataError, check_shape

__all__ = ["Standardised", "retrieval_nearest"]

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Standardised:
    """One decoded feature and its training counterpart, with the training scale.

    `predicted` (n_test, n_features), `training` (n_train, n_features), `mean` and
    `scale` (n_features,); a `scale` of 0 marks a feature without variance, left out.
    """

    predicted: Floats
    training: Floats
    mean: Floats
    scale: Floats

    def similarity(self) -> npt.NDArray[np.float64]:
        """Return Pearson's r (n_test, n_train) over the standardised features."""
        n_features = self.predicted.shape[1]
        check_shape(self.training.shape, (None, n_features), "training features")
        check_shape(self.mean.shape, (n_features,), "training mean")
        check_shape(self.scale.shape, (n_features,), "training scale")
        used = self.scale > 0
        if not used.any():
            raise DataError(
                "A decoded feature has no variance in training, so no nearest training"
                " image exists: leave it out."
            )
        predicted = (self.predicted[:, used] - self.mean[used]) / self.scale[used]
        training = (self.training[:, used] - self.mean[used]) / self.scale[used]
        return np.asarray(_unit(predicted) @ _unit(training).T, dtype=np.float64)


def _unit(rows: Floats) -> Floats:
    centred = rows - rows.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    if not np.all(norms > 0):
        raise DataError(
            "A decoded feature vector does not vary, so no nearest training image "
            "exists: run notebook 02 again."
        )
    return np.asarray(centred / norms)


def retrieval_nearest(features: Mapping[str, Standardised]) -> npt.NDArray[np.int64]:
    """Return the row of the training image nearest to each test image's brain.

    Similarity is the mean over features (c, z, each CLIP layer) of Pearson's r between
    the decoded and the training feature, both standardised with the training scale;
    each feature counts once whatever its length. A tie goes to the first row.

    Parameters
    ----------
    features : mapping of str to Standardised
        The decoded features; all with the same test and training images.

    Returns
    -------
    int64 (n_test,)
        Row among the training images.
    """
    if not features:
        raise DataError(
            "Retrieval needs at least one decoded feature: pass c, z or clip."
        )
    found = [feature.similarity() for feature in features.values()]
    for similarity in found:  # nothing may broadcast
        check_shape(similarity.shape, found[0].shape, "similarity of test and training")
    return np.asarray(np.argmax(np.mean(found, axis=0), axis=1), dtype=np.int64)
