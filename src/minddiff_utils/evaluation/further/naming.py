"""Can the object of a reconstruction be named? By the judge, and by a trained probe.

Two-way identification is nearly perfect for reconstructions that carry the category
alone; naming asks for more: the right word among all words of the run. The judge names
zero-shot, by the caption nearest to the image; the probe is a linear classifier on
another network, fitted to true training images. Pure functions: `scores` reads
a run.

References
----------
Radford et al. (2021), CLIP, section 3.1 (zero-shot classification).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from minddiff_utils.core.errors import check_shape
from minddiff_utils.core.inference import t_interval
from minddiff_utils.core.types import Doubles, Floats

__all__ = [
    "Probe",
    "all_names",
    "beside_truth",
    "chance_of_names",
    "fit_probe",
    "mean_of_images",
    "mean_of_others",
    "name_by_captions",
    "naming_table",
]

Categories = Sequence[Collection[str]]

#: What the judge compares an image with.
_CAPTION = "a photo of a {}"
#: Penalties of the probe's ridge, for standardised features; chosen by leave-one-out.
_ALPHAS = np.logspace(1, 5, 9)


def all_names(categories: Categories) -> list[str]:
    """Return every category of a run once, in alphabetical order."""
    return sorted({name for own in categories for name in own})


def name_by_captions(
    images: Floats,
    names: Sequence[str],
    embed_texts: Callable[[Sequence[str]], Floats],
) -> list[str]:
    """Return the name whose caption is nearest to each image's embedding (cosine).

    `images`, float (n, e): embeddings of unit norm; `names`: what can be said;
    `embed_texts`: captions -> float (n_captions, e) of unit norm.
    """
    captions = embed_texts([_CAPTION.format(name) for name in names])
    check_shape(
        captions.shape, (len(names), images.shape[1]), "the captions' embedding"
    )
    return [names[k] for k in np.argmax(images @ captions.T, axis=1)]


@dataclass(frozen=True)
class Probe:
    """A linear classifier of features: `name` gives the category scored highest."""

    names: tuple[str, ...]
    model: Any  # a fitted scaler and ridge

    def name(self, features: Floats) -> list[str]:
        """Return the name of each row of `features` (n, n_features)."""
        scores = self.model.predict(features)
        return [self.names[k] for k in np.argmax(scores, axis=1)]


def fit_probe(features: Floats, categories: Categories) -> Probe:
    """Fit one-against-all ridge on true training images.

    `features`, float (n, n_features): by a network that neither method nor judge uses;
    `categories`: what is on each of the n images.
    """
    from sklearn.linear_model import RidgeCV  # slow import
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    names = all_names(categories)
    present = np.array([[name in own for name in names] for own in categories], float)
    model = make_pipeline(StandardScaler(), RidgeCV(_ALPHAS, gcv_mode="svd"))
    return Probe(tuple(names), model.fit(features, present))


def mean_of_others(matrix: Doubles) -> Doubles:
    """Return each row's mean without the diagonal; NaN of a single row.

    >>> mean_of_others(np.array([[9.0, 1.0, 3.0], [0.0, 9.0, 0.0], [2.0, 2.0, 9.0]]))
    array([2., 0., 2.])
    """
    n = len(matrix)
    others = matrix.sum(axis=1) - np.diag(matrix)
    return np.asarray(others / (n - 1 if n > 1 else np.nan))


def chance_of_names(named: Sequence[str], categories: Categories) -> Doubles:
    """Return how often each name would be right for the *other* images.

    The chance level of a permutation: it is higher than one in the number of names for
    those who always say what is frequent. NaN where there is no other image. `named`:
    said of each of n images; `categories`: what is on each of them.

    >>> chance_of_names(["cat", "cat"], [{"cat"}, {"dog"}]).tolist()
    [0.0, 1.0]
    """
    return mean_of_others(
        np.array([[name in own for own in categories] for name in named], float)
    )


# --- tables -------------------------------------------------------------------------


def mean_of_images(
    scores: pd.DataFrame,
    confidence: float,
    *,
    least: float = -np.inf,
    most: float = np.inf,
) -> dict[str, object]:
    """Return a mean and its interval by column: these subjects, new images.

    Scores are averaged over subjects; images are the units of Student's t. `scores` has
    columns subject, nsd_id and value; `least`, `most`: ends of the scale, beyond which
    no interval reaches. Columns value, ci_low, ci_high (NaN where there is one image),
    n_images, n_subjects.
    """
    _, image = np.unique(scores["nsd_id"], return_inverse=True)
    values = np.bincount(image, scores["value"]) / np.bincount(image)
    low, high, _ = t_interval(values, confidence)
    return {
        "value": float(values.mean()),
        "ci_low": max(low, least),
        "ci_high": min(high, most),
        "n_images": len(values),
        "n_subjects": scores["subject"].nunique(),
    }


def beside_truth(scores: pd.DataFrame) -> pd.DataFrame:
    """Return `scores` with what the method "truth" has of each image, as `best`."""
    key = ["metric", "subject", "nsd_id"]
    truth = scores[scores["method"] == "truth"].set_index(key)["value"]
    return scores.join(truth.rename("best"), on=key)


def naming_table(
    scores: pd.DataFrame,
    categories: dict[int, frozenset[str]],
    *,
    roles: dict[str, str],
    confidence: float,
) -> pd.DataFrame:
    """Return the share named rightly by who names, method and category (T8).

    `scores`: columns subject, method, nsd_id, metric, value (1: rightly named), floor;
    rows of the method "truth" are the ceiling: the true image, named by the same.
    `categories`: image -> what is on it; one with two counts in both rows, one without
    is left out, as no name would be right. `roles`: metric -> what its network does
    elsewhere. Columns metric, method, category ("all" first), value, ci_low, ci_high,
    chance, ceiling, n_images, n_subjects, judge_role.
    """
    names = all_names(list(categories.values()))
    named = [i for i, own in categories.items() if own]
    known = beside_truth(scores[scores["nsd_id"].isin(named)])
    rows = []
    for (metric, method), block in known.groupby(["metric", "method"], sort=False):
        shown = [categories[i] for i in block["nsd_id"]]
        for category in ("all", *names):
            part = block[[category == "all" or category in own for own in shown]]
            if part.empty:
                continue
            row = {"metric": metric, "method": method, "category": category}
            row |= mean_of_images(part, confidence, least=0.0, most=1.0)
            row |= {"chance": part["floor"].mean(), "ceiling": part["best"].mean()}
            rows.append(row | {"judge_role": roles[str(metric)]})
    columns = ["metric", "method", "category", "value", "ci_low", "ci_high", "chance"]
    columns += ["ceiling", "n_images", "n_subjects", "judge_role"]
    return pd.DataFrame(rows, columns=columns)
