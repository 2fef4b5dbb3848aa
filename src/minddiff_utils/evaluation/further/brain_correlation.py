"""Does a reconstruction evoke the measured responses? By an encoding model.

Ridge from features of images to voxels is fitted on true training images; a
reconstruction is sent through it, and the predicted pattern correlated with the
responses to the seen image. The network is neither the method's nor the judge's. Pure
functions: `scores` reads a run. In silico the true brain can stand in the place of the
encoding model; the simulation, not this module, knows it.

References
----------
MindEye2, table "brain correlation" (GNet in place of ridge); St-Yves and Naselaris
(2018), The feature-weighted receptive field, NeuroImage 180.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from minddiff_utils.core.areas import AREAS, FEW_VOXELS, HVC, LVC
from minddiff_utils.core.errors import check_shape
from minddiff_utils.core.types import Doubles, Floats, Ints
from minddiff_utils.evaluation.further.naming import beside_truth, mean_of_images
from minddiff_utils.evaluation.metrics.embeddings import unit_rows

__all__ = [
    "Encoder",
    "area_sets",
    "brain_correlation_table",
    "fit_encoder",
    "pattern_correlation",
]


#: Components kept of each layer: most of the variance, and a small ridge problem.
_N_COMPONENTS = 256
#: Penalties for standardised components.
_ALPHAS = np.logspace(1, 5, 9)
#: Responses fitted at once: bounds memory at NSD's size.
_AT_ONCE = 2**24
#: Prefix of a metric -> what predicts the responses.
_THROUGH = {"true_brain_": "true simulated brain", "brain_": "encoding model"}
_TRUE = "made the responses: all that enters them but the noise"


@dataclass(frozen=True)
class Encoder:
    """An encoding model: features of images by layer -> voxels."""

    layers: tuple[Any, ...]  # a fitted scaler and PCA each
    ridges: tuple[Any, ...]  # of a block of voxels each

    def predict(self, layers: Sequence[Floats]) -> Doubles:
        """Return the responses (n, n_voxels) that images with these features evoke."""
        reduced = _components(self.layers, layers)
        return np.column_stack([ridge.predict(reduced) for ridge in self.ridges])


def _components(fitted: Sequence[Any], layers: Sequence[Floats]) -> Doubles:
    parts = [model.transform(x) for model, x in zip(fitted, layers, strict=True)]
    return np.concatenate(parts, axis=1)


def fit_encoder(layers: Sequence[Floats], responses: Floats, *, seed: int) -> Encoder:
    """Fit ridge with a penalty for each voxel, by generalised cross-validation.

    `layers`, float (n, n_features) each: features of true training images, which are
    standardised and reduced to 256 principal components; `responses`, (n, n_voxels): to
    the same images; `seed`: of the randomised decomposition.
    """
    from sklearn.decomposition import PCA  # slow import
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fitted = []
    for features in layers:
        check_shape(features.shape, (len(responses), None), "training features")
        n = min(_N_COMPONENTS, *features.shape)
        reduce = PCA(n, svd_solver="randomized", random_state=seed)
        fitted.append(make_pipeline(StandardScaler(), reduce).fit(features))
    reduced = _components(fitted, layers)
    ridges, n_voxels = [], max(1, _AT_ONCE // len(responses))
    for k in range(0, responses.shape[1], n_voxels):
        block = np.asarray(responses[:, k : k + n_voxels], np.float64)
        ridge = RidgeCV(_ALPHAS, alpha_per_target=True, gcv_mode="svd")
        ridges.append(ridge.fit(reduced, block))
    return Encoder(tuple(fitted), tuple(ridges))


def area_sets(roi: Ints, names: Sequence[str]) -> dict[str, Any]:
    """Return masks of voxels: all, lower and higher areas, each with 20 voxels or more.

    `roi`, int (n_voxels,): index into `names`.
    """
    area = np.array(names)[roi]
    groups = {"all": tuple(names), "LVC": LVC, "HVC": HVC} | {a: (a,) for a in AREAS}
    masks = {group: np.isin(area, members) for group, members in groups.items()}
    return {group: mask for group, mask in masks.items() if mask.sum() >= FEW_VOXELS}


def pattern_correlation(predicted: Floats, measured: Floats) -> Doubles:
    """Return Pearson's r over voxels of each predicted and each measured pattern.

    Float (n, n_voxels) and (m, n_voxels) give float64 (n, m), 0 where a pattern does
    not vary.
    """
    check_shape(measured.shape, (None, predicted.shape[1]), "the measured responses")
    one, other = (unit_rows(rows, centred=True) for rows in (predicted, measured))
    return np.asarray(one @ other.T)


def brain_correlation_table(
    scores: pd.DataFrame, *, role: str, confidence: float
) -> pd.DataFrame:
    """Return mean brain correlation by area set and method.

    `scores`: columns subject, method, nsd_id, metric (`brain_` or `true_brain_`, and
    the area set), value, floor; `role`: what the encoding model's network does
    elsewhere. Columns through ("encoding model" or "true simulated brain"), area_set,
    method, value, ci_low, ci_high, floor (another image's responses), ceiling (the true
    image through the same model), n_images, n_subjects, judge_role.
    """
    known = beside_truth(scores)
    rows = []
    for (metric, method), block in known.groupby(["metric", "method"], sort=False):
        prefix = next(name for name in _THROUGH if str(metric).startswith(name))
        area_set = str(metric).removeprefix(prefix)
        row = {"through": _THROUGH[prefix], "area_set": area_set, "method": method}
        row |= mean_of_images(block, confidence)
        row |= {"floor": block["floor"].mean(), "ceiling": block["best"].mean()}
        rows.append(row | {"judge_role": role if prefix == "brain_" else _TRUE})
    columns = ["through", "area_set", "method", "value", "ci_low", "ci_high", "floor"]
    return pd.DataFrame(
        rows, columns=[*columns, "ceiling", "n_images", "n_subjects", "judge_role"]
    )
