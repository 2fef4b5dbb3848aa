"""Which targets go on to the next stages: the k % that are decoded best."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from minddiff_utils.core.errors import ConfigError, DataError, check_shape
from minddiff_utils.core.types import Floats, Mask
from minddiff_utils.decoding.cross_validation import Fold, pooled_correlation
from minddiff_utils.decoding.identification import RowProducts, pairwise
from minddiff_utils.decoding.scores import nanmean
from minddiff_utils.decoding.targets import TargetScaling

__all__ = ["Selection", "choose_k", "k_curve", "select_best", "top_percent"]


def _standardised_pair(Y_true: Floats, Y_hat: Floats) -> tuple[Floats, Floats, Mask]:
    """Return both standardised over their images, and which targets vary in both."""
    pair = []
    varies = np.ones(Y_true.shape[1], bool)
    for Y in (Y_true, Y_hat):
        spread = Y.std(axis=0)
        varies &= spread > 0
        pair.append((Y - Y.mean(axis=0)) / np.where(spread > 0, spread, 1))
    return pair[0], pair[1], varies


def choose_k(
    Y: Floats, Y_hat: Floats, *, folds: Sequence[Fold], k_grid: Sequence[float]
) -> pd.DataFrame:
    """Compare shares of targets by identification on images that did not rank them.

    For each fold the targets are ranked by the correlation over the other folds' images
    and the k % best identify the fold's own images. Few targets carry little
    information, many carry noise: the best k lies between.

    Parameters
    ----------
    Y : (n_images, n_targets)
        Training targets.
    Y_hat : (n_images, n_targets)
        Their predictions from `cross_validate`.
    folds : sequence of (train_rows, held_out_rows)
        Those of `Y_hat`, 2 or more.
    k_grid : sequence of float
        Percentages.

    Returns
    -------
    DataFrame
        k_percent, n_selected, identification (mean over folds) and chosen: the highest,
        of equal ones the smallest k.

    Raises
    ------
    ConfigError
        No k, or one outside (0, 100].
    DataError
        One fold only, or no target has a correlation.
    """
    if len(folds) < 2 or not k_grid:
        raise ConfigError("Choosing k needs 2 folds or more and at least one k.")
    grid = sorted(k_grid)
    scores = np.zeros((len(folds), len(grid)))
    n_selected = np.zeros(len(grid), np.int64)
    can_vary = TargetScaling.fit(Y).varies
    for row, (_, held) in enumerate(folds):
        others = [fold for other, fold in enumerate(folds) if other != row]
        ranking = pooled_correlation(Y, Y_hat, others, varies=can_vary)
        truth, decoded, varies = _standardised_pair(Y[held], Y_hat[held])
        products = RowProducts(len(held))
        seen = np.zeros(len(varies), bool)
        for column, k_percent in enumerate(grid):
            best = select_best(ranking, k_percent)  # holds the ones of smaller k
            new = best & varies & ~seen
            seen |= best
            products.add(truth[:, new], decoded[:, new])
            scores[row, column] = pairwise(products.similarity())
            n_selected[column] = best.sum()
    table = pd.DataFrame(
        {
            "k_percent": np.array(grid, dtype=np.float64),
            "n_selected": n_selected,
            "identification": scores.mean(axis=0),
        }
    )
    return table.assign(chosen=table.index == table["identification"].argmax())


def select_best(r: Floats, k_percent: float) -> Mask:
    """Return which targets are the k % with the largest r, (n_targets,) bool.

    k % of all targets, rounded, at least one; NaN is never selected, so that there may
    be fewer; ties go to the lower index.

    >>> select_best(np.array([0.2, np.nan, 0.5, 0.2]), 50).tolist()
    [True, False, True, False]
    """
    check_shape(r.shape, (None,), "r")
    if not 0 < k_percent <= 100:
        raise ConfigError(f"k_percent is {k_percent}, but must be in (0, 100].")
    n_finite = int(np.count_nonzero(np.isfinite(r)))
    if n_finite == 0:
        raise DataError("No target has a correlation, so none can be selected.")
    n_selected = min(n_finite, max(1, round(k_percent / 100 * len(r))))
    best = np.argsort(-r, kind="stable")[:n_selected]  # NaN comes last
    mask = np.zeros(len(r), bool)
    mask[best] = True
    return mask


def k_curve(
    r_cv: Floats, r_test: Floats, variance: Floats, k_grid: Sequence[float]
) -> pd.DataFrame:
    """Return what is gained and lost when only the k % best targets are kept.

    Targets are ranked by `r_cv` alone, which training images gave; `r_test` is only
    averaged.

    Parameters
    ----------
    r_cv, r_test : (n_targets,)
        Cross-validated and test correlation; NaN is left out of means.
    variance : (n_targets,)
        Training variance of the targets, 0 for those that do not vary.
    k_grid : sequence of float
        Percentages.

    Returns
    -------
    DataFrame
        k_percent, n_selected, r_cv_selected_mean, r_selected_mean (test) and
        variance_kept, the selected targets' share of the variance of all.
    """
    n_targets = len(r_cv)
    check_shape(r_test.shape, (n_targets,), "r_test")
    check_shape(variance.shape, (n_targets,), "variance")
    total = float(variance.sum(dtype=np.float64))
    if not (np.isfinite(total) and total > 0 and variance.min() >= 0):
        raise DataError("Variances must be 0 or more, finite, and not all 0.")
    rows = []
    for k_percent in k_grid:
        best = select_best(r_cv, k_percent)
        row = {
            "k_percent": float(k_percent),
            "n_selected": int(np.count_nonzero(best)),
            "r_cv_selected_mean": nanmean(r_cv[best]),
            "r_selected_mean": nanmean(r_test[best]),
            "variance_kept": float(variance[best].sum(dtype=np.float64)) / total,
        }
        rows.append(row)
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Selection:
    """Which targets of a feature are kept, and what cross-validation says of them.

    Attributes
    ----------
    selected : (n_targets,) bool
        The targets that are kept.
    r_cv : (n_targets,) float32
        Cross-validated correlation on training images; NaN where not computed.
    k_scores : DataFrame
        What cross-validation says of each k (`choose_k`); empty where not computed.
    """

    selected: Mask
    r_cv: Floats
    k_scores: pd.DataFrame

    @classmethod
    def everything(cls, n_targets: int) -> Self:
        """Return the selection of all targets, without cross-validation."""
        unknown = np.full(n_targets, np.nan, np.float32)
        return cls(np.ones(n_targets, bool), unknown, pd.DataFrame())


def top_percent(
    Y: Floats,
    Y_hat: Floats,
    folds: Sequence[Fold],
    *,
    k_grid: Sequence[float],
    k_percent: float | None = None,
) -> Selection:
    """Select the k % of a feature's targets that cross-validation decodes best.

    Parameters
    ----------
    Y : (n_images, n_targets)
        Training targets.
    Y_hat : (n_images, n_targets)
        Their predictions from `cross_validate`.
    folds : sequence of (train_rows, held_out_rows)
        Those of `Y_hat`.
    k_grid : sequence of float
        Percentages that are compared.
    k_percent : float, optional
        The one that is taken; by default the one that identifies held-out images best.
    """
    r_cv = pooled_correlation(Y, Y_hat, folds).astype(np.float32)
    scores = choose_k(Y, Y_hat, folds=folds, k_grid=k_grid)
    if k_percent is None:
        k_percent = float(scores.loc[scores["chosen"], "k_percent"].iloc[0])
    return Selection(select_best(r_cv, k_percent), r_cv, scores)
