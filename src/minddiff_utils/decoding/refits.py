"""Decoders fitted again to less: without a kind of image, to noise, on few axes.

What a decoder says that cannot know something is what it guesses. All refits are dense
ridge; what they say is compared with the categories' means and with every training
sample.

References
----------
Shirakawa et al. (2024), Spurious reconstruction from brain activity: clusters left out,
cluster identification, identification among all training samples.
Mayo et al. (2024), BrainBits: bottlenecks, and decoders fitted to noise.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize
from sklearn.utils.extmath import randomized_svd

from minddiff_utils.core.types import Doubles, Floats, IntArray, Ints, Mask, Matrix
from minddiff_utils.decoding._grouped import predict_features
from minddiff_utils.decoding.ridge import RidgeGCV
from minddiff_utils.decoding.targets import TargetScaling

__all__ = [
    "Refits",
    "category_clusters",
    "compared_with_samples",
    "image_clusters",
    "likeness",
]

Features = Mapping[str, Matrix]


# --- clusters of categories -----------------------------------------------------------


def category_clusters(
    names: Sequence[str], embedded: Floats, n_clusters: int
) -> dict[str, int]:
    """Return the cluster of each category: k-means on embeddings of their names.

    No image and no brain decides. `embedded`: (n_names, n_features), from a text
    encoder; there are `n_clusters` or as many as names.
    """
    means = KMeans(min(n_clusters, len(names)), n_init=10, random_state=0)
    labels = means.fit_predict(normalize(embedded)).tolist()
    order = {label: k for k, label in enumerate(dict.fromkeys(labels))}
    return {n: order[label] for n, label in zip(names, labels, strict=True)}


def image_clusters(
    named: Sequence[frozenset[str]], clusters: Mapping[str, int]
) -> Ints:
    """Return the one cluster to which all categories of each image belong, else -1.

    >>> named = [frozenset({"cat", "dog"}), frozenset({"cat", "bus"}), frozenset()]
    >>> image_clusters(named, {"cat": 0, "dog": 0, "bus": 1}).tolist()
    [0, -1, -1]
    """
    found = [{clusters[name] for name in own} for own in named]
    return np.array([min(own) if len(own) == 1 else -1 for own in found], np.int64)


# --- refits ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Refits:
    """Responses of a subject and the training features that decoders are fitted to.

    Attributes
    ----------
    X_train, X_test : (n_images, n_voxels) float32
    Y_train : mapping of (n_train, n_targets) float32
        In their own units, as all that is decoded of the test images.
    """

    X_train: Matrix
    X_test: Matrix
    Y_train: Features

    def decoded(self, train: IntArray | None = None) -> dict[str, Matrix]:
        """Return what decoders say that are fitted to some training rows, or to all."""
        n_train = len(self.X_train)
        rows = np.arange(n_train) if train is None else train
        X = np.concatenate([self.X_train, self.X_test])
        ridge = dict.fromkeys(self.Y_train, RidgeGCV())
        test = np.arange(n_train, len(X))
        return predict_features(ridge, X, self.Y_train, rows, test)

    def without_clusters(
        self, shows: Mask, cluster: Ints, rng: np.random.Generator
    ) -> dict[str, dict[str, Matrix]]:
        """Return what decoders say of each test image that never saw its cluster.

        Parameters
        ----------
        shows : (n_train, n_clusters) bool
            Whether a training image shows a category of a cluster, alone or not.
        cluster : (n_test,) int
        rng : Generator
            Draws what the control leaves out.

        Returns
        -------
        dict of dict of (n_test, n_targets)
            "heldout": without all training images that show the image's cluster;
            "as_many_out": without as many, drawn from all.
        """
        found: dict[str, dict[str, Matrix]] = {"heldout": {}, "as_many_out": {}}
        for one in np.unique(cluster):
            n_left = int(shows[:, one].sum())
            drawn = np.sort(rng.permutation(len(shows))[n_left:])
            kept = {"heldout": np.flatnonzero(~shows[:, one]), "as_many_out": drawn}
            own = cluster == one
            part = replace(self, X_test=self.X_test[own])
            for condition, rows in kept.items():
                for name, Y in part.decoded(rows).items():
                    empty = np.zeros((len(cluster), Y.shape[1]), np.float32)
                    found[condition].setdefault(name, empty)[own] = Y
        return found

    def on_axes(self, n_axes: Sequence[int]) -> dict[int, dict[str, Matrix]]:
        """Return what is read on the first principal axes of each feature alone.

        The axes are those of the standardised training features. The decoder is fitted
        to the coordinates, each with a penalty of its own. On no axis the training mean
        is left; numbers of axes that there are not are left out.
        """
        scaling = {n: TargetScaling.fit(Y) for n, Y in self.Y_train.items()}
        standard = {n: scaling[n].apply(Y) for n, Y in self.Y_train.items()}
        most = min(max(n_axes), *(min(Y.shape) - 1 for Y in standard.values()))
        axes = {
            name: randomized_svd(Y, most, n_iter=4, random_state=0)[2]
            for name, Y in standard.items()
        }
        coordinates = {n: np.asarray(Y @ axes[n].T) for n, Y in standard.items()}
        read = replace(self, Y_train=coordinates).decoded()
        return {
            n: {k: scaling[k].invert(Y[:, :n] @ axes[k][:n]) for k, Y in read.items()}
            for n in n_axes
            if n <= most
        }

    def on_noise(self, rng: np.random.Generator) -> dict[str, Matrix]:
        """Return what decoders say that are fitted to noise and given noise."""
        train, test = (
            rng.standard_normal(X.shape, np.float32)
            for X in (self.X_train, self.X_test)
        )
        return Refits(train, test, self.Y_train).decoded()


# --- what is said, compared -----------------------------------------------------------


def compared_with_samples(
    Y_hat: Matrix, truth: Matrix, Y_train: Matrix, cluster: Ints, train_cluster: Ints
) -> Iterator[tuple[str, Doubles, float]]:
    """Give measures of a decoded feature by name, (n_test,), with their chance.

    `beats_clusters`: share of the other clusters whose mean feature is less like what
    was decoded than that of the own cluster; `first_cluster`: whether none is more.
    `beats_samples`: share of the training samples less like it than the truth; `top_k`:
    whether the truth is among the k most like it of all samples and itself. Likeness is
    Pearson's r over standardised targets; a tie counts half. NaN where an image, or no
    training image, is of one cluster alone.

    Parameters
    ----------
    Y_hat, truth, Y_train : (n_images, n_targets)
        In the feature's own units.
    cluster, train_cluster : (n_test,), (n_train,) int
        From `image_clusters`; means are over images of one cluster.
    """
    scaling = TargetScaling.fit(Y_train)
    found, true, samples = (scaling.apply(Y) for Y in (Y_hat, truth, Y_train))
    own = likeness(found, true).diagonal()[:, None]
    beaten = _share_below(likeness(found, samples), own)
    rank = (1 - beaten) * len(samples) + 1
    known = np.unique(train_cluster[train_cluster >= 0])
    at = np.flatnonzero(np.isin(cluster, known))
    if len(known) > 1 and len(at):
        means = np.stack([samples[train_cluster == k].mean(0) for k in known])
        to_means = likeness(found[at], means)
        place = np.searchsorted(known, cluster[at])[:, None]
        beats = np.full(len(cluster), np.nan)
        # the own mean ties with itself
        share = _share_below(to_means, np.take_along_axis(to_means, place, 1))
        beats[at] = (share * len(known) - 0.5) / (len(known) - 1)
        yield "beats_clusters", beats, 0.5
        first = np.where(np.isnan(beats), np.nan, beats > 1 - 1e-9)
        yield "first_cluster", first, 1 / len(known)
    yield "beats_samples", beaten, 0.5
    for k in (1, 10, 50):
        yield f"top_{k}", (rank <= k).astype(float), k / (len(samples) + 1)


def likeness(a: Floats, b: Floats) -> Doubles:
    """Return Pearson's r of each row of a with each of b, 0 where one is constant."""
    parts = [Y.astype(np.float64) - Y.mean(1, dtype=float)[:, None] for Y in (a, b)]
    lengths = [np.linalg.norm(Y, axis=1) for Y in parts]
    scale = np.outer(*(np.where(n > 0, n, np.inf) for n in lengths))
    return np.asarray((parts[0] @ parts[1].T / scale).round(9))  # equal captions tie


def _share_below(values: Doubles, bound: Doubles) -> Doubles:
    return np.asarray(((values < bound) + (values == bound) / 2).mean(1))
