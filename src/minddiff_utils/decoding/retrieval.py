"""The training image whose features are nearest to decoded ones: a baseline."""

from collections.abc import Mapping

import numpy as np

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.types import Floats, IntArray

__all__ = ["nearest_rows"]


def _unit_rows(Y: Floats) -> Floats:
    centred = Y.astype(np.float64)
    if Y.shape[1]:
        centred -= centred.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    if not np.all(norms > 0):
        raise DataError(
            "A decoded feature vector does not vary, so no nearest training image "
            "exists: run notebook 02 again."
        )
    return np.asarray(centred / norms)


def nearest_rows(
    decoded: Mapping[str, Floats], training: Mapping[str, Floats]
) -> IntArray:
    """Return the row of the training image nearest to each test image's brain.

    Similarity is the mean over features (c, z, each CLIP layer) of Pearson's r between
    the decoded and the training feature; each feature counts once whatever its length.
    A tie goes to the first row.

    Parameters
    ----------
    decoded, training : mapping of (n_test, n_targets), (n_train, n_targets)
        Decoded features of the test images, and those of the training images, both
        standardised with the training scale; targets that vary only.

    Returns
    -------
    int64 (n_test,)
        Row among the training images.
    """
    if not decoded:
        raise DataError(
            "Retrieval needs at least one decoded feature: pass c, z or clip."
        )
    similarity: list[Floats] = []
    for name, Y_hat in decoded.items():
        check_shape(training[name].shape, (None, Y_hat.shape[1]), f"training {name}")
        similarity.append(_unit_rows(Y_hat) @ _unit_rows(training[name]).T)
        # nothing may broadcast
        check_shape(similarity[-1].shape, similarity[0].shape, f"similarity by {name}")
    return np.asarray(np.argmax(np.mean(similarity, axis=0), axis=1), dtype=np.int64)
