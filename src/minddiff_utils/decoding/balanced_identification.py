"""Identification among as many images of each class, over many draws.

Where classes differ in size, the largest ones decide what identification among all
images is worth. So an image is ranked among a few of each class, drawn anew many times;
scores are means over all draws.

References
----------
Gifford, A. T. et al. (2025), NSD-synthetic: 8 of each of 8 classes, 1,000 draws. The
public script writes each draw's rank over that of the draw before, so that its rank is
the last draw's (gifale95/NSD-synthetic at f32acd1, 01_zero_shot_identification.py).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.types import Doubles, Ints

__all__ = ["BalancedRanks", "balanced_ranks", "draw_balanced"]


def draw_balanced(
    group: npt.NDArray[np.str_], n_each: int, n_draws: int, rng: np.random.Generator
) -> Ints:
    """Return the others among which each image is ranked.

    Parameters
    ----------
    group : (n_images,) str
        Class of each image.
    n_each : int
        Images drawn of each class without replacement, the ranked one among its own.
    n_draws : int
    rng : Generator

    Returns
    -------
    (n_images, n_draws, n_classes * n_each - 1) int16
        Rows of other images.

    Raises
    ------
    DataError
        A class has fewer images.
    """
    classes, sizes = np.unique(group, return_counts=True)
    fewest = int(sizes.min()) if len(sizes) else 0
    if fewest < n_each:
        raise DataError(
            f"Identification among {n_each} images of each class needs as many of each,"
            f" but there are {fewest} of one."
        )
    members = {name: np.flatnonzero(group == name) for name in classes}
    others = np.empty((len(group), n_draws, len(classes) * n_each - 1), np.int16)
    for image, own in enumerate(group):
        parts = []
        for name, rows in members.items():
            mine, n = (
                (rows[rows != image], n_each - 1) if name == own else (rows, n_each)
            )
            order = rng.random((n_draws, len(mine))).argsort(axis=1)[:, :n]
            parts.append(mine[order])
        others[image] = np.concatenate(parts, axis=1)
    return others


@dataclass(frozen=True)
class BalancedRanks:
    """How each image ranks among those drawn, over all draws.

    Attributes
    ----------
    rank : (n_images,) float64
        Mean rank of the own image, from 1; a tie counts half.
    top_1 : (n_images,) float64
        How often it is the nearest; of k equal ones it counts 1/k.
    n_candidates, n_draws : int
    """

    rank: Doubles
    top_1: Doubles
    n_candidates: int
    n_draws: int

    @property
    def rank_chance(self) -> float:
        """Return the mean rank by chance."""
        return (self.n_candidates + 1) / 2

    @property
    def top_1_chance(self) -> float:
        """Return how often the nearest is the own one by chance."""
        return 1 / self.n_candidates


def balanced_ranks(similarity: Doubles, others: Ints) -> BalancedRanks:
    """Rank each image's own entry among those of the images drawn.

    Parameters
    ----------
    similarity : (n_images, n_images)
        Of each decoded (rows) with each true image (columns).
    others : (n_images, n_draws, n_others) int
        From `draw_balanced`.

    Examples
    --------
    >>> others = draw_balanced(np.array(list("aabb")), 2, 3, np.random.default_rng(1))
    >>> balanced_ranks(np.eye(4), others).rank.tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    n_images, n_draws, n_others = others.shape
    check_shape(similarity.shape, (n_images, n_images), "similarity")
    rank, top_1 = np.empty(n_images), np.empty(n_images)
    for image, row in enumerate(similarity):
        drawn = row[others[image]]
        above = (drawn > row[image]).sum(axis=1)
        same = (drawn == row[image]).sum(axis=1)
        rank[image] = 1 + np.mean(above + same / 2)
        top_1[image] = np.mean((above == 0) / (1 + same))
    return BalancedRanks(rank, top_1, n_others + 1, n_draws)
