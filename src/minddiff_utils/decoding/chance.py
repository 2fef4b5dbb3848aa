"""What chance does with the test images: permutations and candidates, drawn once.

Permuting all test images asks whether anything was decoded. That a decoder knows the
kind of an image is enough to pass, so images are also permuted among like ones only.
"""

import warnings
from dataclasses import dataclass
from typing import Self

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from minddiff_utils.core.errors import ConfigError, check_shape
from minddiff_utils.core.types import Floats, Ints
from minddiff_utils.decoding.identification import draw_candidates
from minddiff_utils.decoding.targets import TargetScaling

__all__ = ["ScoredImages", "like_images", "permutations_within"]


#: Test images per cluster of like images, and the most clusters.
_PER_CLUSTER, _MOST_CLUSTERS = 6, 40


def like_images(c_train: Floats, c_test: Floats, *, rng: np.random.Generator) -> Ints:
    """Return which test images are alike: a cluster's number for each, (n_test,).

    k-means on the true c of the training images, standardised; each test image goes to
    the nearest centre. There are about six test images in a cluster, and 40 clusters at
    most.

    Parameters
    ----------
    c_train, c_test : (n_train, n_targets), (n_test, n_targets)
        True c in its own units; a standardised copy is made (2 GB for NSD).
    rng : Generator
        Draws the first centres.
    """
    n_clusters = round(len(c_test) / _PER_CLUSTER)
    n_clusters = min(max(n_clusters, 1), _MOST_CLUSTERS, len(c_train))
    scaling = TargetScaling.fit(c_train)
    seed = int(rng.integers(2**31))
    means = KMeans(n_clusters, n_init=3, random_state=seed, copy_x=False)
    with warnings.catch_warnings():  # fewer distinct images than clusters will do
        warnings.simplefilter("ignore", ConvergenceWarning)
        means.fit(scaling.apply(c_train))
    return np.asarray(means.predict(scaling.apply(c_test)), np.int64)


def permutations_within(
    cluster: Ints, n_permutations: int, *, rng: np.random.Generator
) -> Ints:
    """Return orders of the images that change places within their cluster only.

    An image alone in its cluster keeps its place.

    Parameters
    ----------
    cluster : (n_images,) int
    n_permutations : int
        At least 1.
    rng : Generator

    Returns
    -------
    (n_permutations, n_images) int

    >>> orders = permutations_within(
    ...     np.array([0, 0, 1]), 20, rng=np.random.default_rng(1)
    ... )
    >>> np.unique(orders, axis=0).tolist()
    [[0, 1, 2], [1, 0, 2]]
    """
    check_shape(cluster.shape, (None,), "cluster")
    if n_permutations < 1:
        raise ConfigError(
            f"n_permutations is {n_permutations}, but must be at least 1."
        )
    orders = np.tile(np.arange(len(cluster)), (n_permutations, 1))
    for name in np.unique(cluster):
        rows = np.flatnonzero(cluster == name)
        orders[:, rows] = rng.permuted(orders[:, rows], axis=1)
    return orders


@dataclass(frozen=True)
class ScoredImages:
    """The test images, and what is drawn of them once for all features and areas.

    Attributes
    ----------
    nsd_id : (n_test,) int
        Their numbers.
    cluster : (n_test,) int
        From `like_images`.
    within : (n_permutations, n_test) int
        From `permutations_within`.
    candidates : (n_draws, n_candidates) int
        Among which images are retrieved: `identification.draw_candidates`.
    """

    nsd_id: Ints
    cluster: Ints
    within: Ints
    candidates: Ints

    @classmethod
    def draw(
        cls,
        nsd_id: Ints,
        c_train: Floats,
        c_test: Floats,
        *,
        n_permutations: int,
        rng: np.random.Generator,
    ) -> Self:
        """Group the test images by their true c and draw permutations and candidates.

        Parameters as in `like_images` and `permutations_within`.
        """
        check_shape(nsd_id.shape, (len(c_test),), "nsd_id")
        cluster = like_images(c_train, c_test, rng=rng)
        within = permutations_within(cluster, n_permutations, rng=rng)
        return cls(nsd_id, cluster, within, draw_candidates(len(nsd_id), rng))

    @property
    def n_alike(self) -> int:
        """Return how many images share their cluster, and so can change places."""
        sizes = np.unique_counts(self.cluster).counts
        return int(sizes[sizes > 1].sum())
