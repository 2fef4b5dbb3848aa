"""What a decoded feature is worth: how far it is shrunk, and how it errs.

A ridge predicts the mean of all that a response leaves possible: nearer to the training
mean than the truth, and no likely image itself. What it says of the truth is learnt
from out-of-fold predictions of training images. In the p leading principal axes B of
the standardised training features y, a decoded feature d is

    Bᵀd = g ∘ Bᵀy + o + e,    e ~ N(0, C),

with a gain g and an offset o for each axis and one covariance of the errors, shrunk
towards its diagonal. So log p(d | y) = -|L⁻¹(Bᵀd - o - g ∘ Bᵀy)|² / 2 + constant, with
C = LLᵀ: how well any feature y, of a caption or of an image, explains what was decoded.
Over a corpus of captions it gives the posterior of c; under a generator it is the
structural loss that asks for no shrunk image (`generation.structural_loss`).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from scipy import linalg, special, stats
from sklearn.covariance import LedoitWolf
from sklearn.utils.extmath import randomized_svd

from minddiff_utils.core.errors import ConfigError, DataError, check_shape
from minddiff_utils.core.types import Array, Doubles, Floats, IntArray, Matrix
from minddiff_utils.decoding.targets import TargetScaling, target_blocks

__all__ = [
    "NoiseModel",
    "Posterior",
    "calibration",
    "error_share",
    "gain_and_noise",
    "posterior_over",
]

#: Axes of one feature at most; images per axis at least.
_MOST_AXES, _IMAGES_PER_AXIS = 300, 8
#: Images that the axes are learnt from at most: a subject of NSD has 8,859, of which
#: these tell as much in a third of the time.
_MOST_IMAGES = 4000
#: Central intervals whose coverage is counted.
_LEVELS = (0.5, 0.8, 0.95)


@dataclass(frozen=True)
class NoiseModel:
    """How the predictions of one feature differ from the truth, in p axes.

    Attributes
    ----------
    mean : (n_targets,) float32
        Training mean of the targets.
    axes : (n_targets, p) float32
        B over the targets' training SD: (Y - mean) @ axes are the coordinates Bᵀy.
    gain, offset : (p,) float64
        g and o.
    covariance : (p, p) float64
        C.
    """

    mean: Matrix
    axes: Matrix
    gain: Doubles
    offset: Doubles
    covariance: Doubles

    @classmethod
    def fit(
        cls, Y: Floats, Y_hat: Floats, *, n_axes: int = _MOST_AXES, seed: int = 0
    ) -> Self:
        """Learn the noise of a feature from out-of-fold predictions.

        Parameters
        ----------
        Y : (n_images, n_targets)
            Training targets in their own units.
        Y_hat : (n_images, n_targets)
            Their predictions from `cross_validate`.
        n_axes : int
            Principal axes at most; there are eight images to each at the least.
        seed : int
            Of the randomised singular value decomposition (Halko et al. 2011).

        Raises
        ------
        DataError
            Fewer than 16 images, a prediction that is missing, or no target varies.
        """
        return cls.fit_in_axes(Y, Y_hat, n_axes=n_axes, seed=seed)[0]

    @classmethod
    def fit_in_axes(
        cls, Y: Floats, Y_hat: Floats, *, n_axes: int = _MOST_AXES, seed: int = 0
    ) -> tuple[Self, Doubles, Doubles]:
        """Return `fit` and, of both sides, the coordinates that it was learnt from."""
        mean, axes, truth, decoded = _in_axes(Y, Y_hat, n_axes, seed)
        return cls(mean, axes, *gain_and_noise(truth, decoded)), truth, decoded

    @property
    def n_axes(self) -> int:
        """Return p."""
        return len(self.gain)

    def leading(self, n_axes: int) -> "NoiseModel":
        """Return the model in the first `n_axes` axes alone."""
        if not 1 <= n_axes <= self.n_axes:
            raise ConfigError(
                f"n_axes is {n_axes}, but the noise model has {self.n_axes}."
            )
        part = slice(n_axes)
        return NoiseModel(
            self.mean,
            self.axes[:, part],
            self.gain[part],
            self.offset[part],
            self.covariance[part, part],
        )

    def coordinates(self, Y: Floats) -> Doubles:
        """Return Bᵀy of features in their own units, (n_images, p)."""
        check_shape(Y.shape, (None, len(self.mean)), "Y")
        return _coordinates(Y, self.mean, self.axes)

    def _whitened(self, values: Doubles) -> Doubles:
        factor = np.linalg.cholesky(self.covariance)
        return np.asarray(linalg.solve_triangular(factor, values.T, lower=True).T)

    def decoded(self, Y_hat: Floats) -> Doubles:
        """Return L⁻¹(Bᵀd - o): what was decoded, with errors of variance 1."""
        return self._whitened(self.coordinates(Y_hat) - self.offset)

    def expected(self, Y: Floats) -> Doubles:
        """Return L⁻¹(g ∘ Bᵀy): what `decoded` is expected to be if y is the truth."""
        return self._whitened(self.gain * self.coordinates(Y))

    def compared(self, decoded: Doubles, truth: Doubles) -> Doubles:
        """Return log p(d | y) up to a constant of d, (n_decoded, n_candidates).

        Parameters
        ----------
        decoded, truth : (n_decoded, p or more), (n_candidates, p or more)
            Coordinates of decoded features, and of what may be the truth.
        """
        part = slice(self.n_axes)
        found = self._whitened(decoded[:, part] - self.offset)
        expected = self._whitened(self.gain * truth[:, part])
        squares = np.square(found).sum(1)[:, None] + np.square(expected).sum(1)
        return np.asarray(found @ expected.T - squares / 2)

    def log_likelihood(self, Y_hat: Floats, Y: Floats) -> Doubles:
        """Return `compared` of features in their own units."""
        return self.compared(self.coordinates(Y_hat), self.coordinates(Y))

    def whitened_map(self) -> tuple[Matrix, Doubles]:
        """Return A (p, n_targets) and b (p,): A y + b is `expected` of y."""
        factor = np.linalg.cholesky(self.covariance)
        scaled = (self.axes * self.gain.astype(np.float32)).T
        A = linalg.solve_triangular(factor, scaled, lower=True).astype(np.float32)
        return A, -(A.astype(np.float64) @ self.mean)

    def arrays(self) -> dict[str, Array]:
        """Return what later notebooks need of it, by name."""
        A, b = self.whitened_map()
        return {"map": A, "shift": b.astype(np.float32)}


def _in_axes(
    Y: Floats, Y_hat: Floats, n_axes: int, seed: int
) -> tuple[Matrix, Matrix, Doubles, Doubles]:
    """Return mean, axes and both sides' coordinates; parameters as `NoiseModel.fit`."""
    check_shape(Y_hat.shape, Y.shape, "Y_hat")
    n_images = len(Y)
    if n_images < 2 * _IMAGES_PER_AXIS:
        raise DataError(
            f"A noise model needs {2 * _IMAGES_PER_AXIS} training images or more,"
            f" but there are {n_images}: read more sessions."
        )
    if not np.isfinite(Y_hat).all():
        raise DataError(
            "A training image has no out-of-fold prediction: let the folds hold out"
            " every image once."
        )
    scaling = TargetScaling.fit(Y)
    n_axes = min(n_axes, n_images // _IMAGES_PER_AXIS, int(scaling.varies.sum()))
    if n_axes < 1:
        raise DataError("No target varies over the training images.")
    mean = scaling.mean.astype(np.float32)
    axes = _principal_axes(Y, scaling, n_axes, seed)
    return mean, axes, _coordinates(Y, mean, axes), _coordinates(Y_hat, mean, axes)


def _principal_axes(
    Y: Floats, scaling: TargetScaling, n_axes: int, seed: int
) -> Matrix:
    """Return the axes of the standardised targets over the targets' SD."""
    some = Y[:: -(-len(Y) // _MOST_IMAGES)]
    standardised = scaling.apply(some.astype(np.float32, copy=False))
    _, _, axes = randomized_svd(
        standardised, n_axes, n_oversamples=10, n_iter=1, random_state=seed
    )
    per_unit = axes.T / scaling.scale[:, None]
    per_unit[~scaling.varies] = 0
    return np.asarray(per_unit, np.float32)


def _coordinates(Y: Floats, mean: Matrix, axes: Matrix) -> Doubles:
    """Return (Y - mean) @ axes; in blocks, so that Y is never copied as a whole."""
    found = np.zeros((len(Y), axes.shape[1]))
    for block in target_blocks(*Y.shape):
        found += (Y[:, block] - mean[block]).astype(np.float32) @ axes[block]
    return found


def gain_and_noise(truth: Doubles, decoded: Doubles) -> tuple[Doubles, ...]:
    """Return g, o and C of coordinates of the same images, each (n_images, p)."""
    centre, shift = truth.mean(axis=0), decoded.mean(axis=0)
    together = ((truth - centre) * (decoded - shift)).mean(axis=0)
    gain = together / truth.var(axis=0)
    offset = shift - gain * centre
    return gain, offset, _shrunk_covariance(decoded - gain * truth - offset)


def _shrunk_covariance(errors: Doubles) -> Doubles:
    """Return the covariance of errors (n, p), correlations shrunk towards none.

    References
    ----------
    Ledoit and Wolf (2004), A well-conditioned estimator for large-dimensional
    covariance matrices.
    """
    spread = errors.std(axis=0)
    if not np.all(spread > 0):
        raise DataError(
            "Out-of-fold predictions equal the truth, so that there is no noise to"
            " learn: check that no fold holds its own training images."
        )
    shrunk = LedoitWolf(assume_centered=True).fit(errors / spread).covariance_
    return np.asarray(shrunk * np.outer(spread, spread))


# --- the posterior over a corpus ------------------------------------------------------


@dataclass(frozen=True)
class Posterior:
    """What the responses leave of a corpus, for n decoded images.

    Attributes
    ----------
    weights : (n, n_corpus) float64
        Posterior probability of each entry; rows sum to 1.
    """

    weights: Doubles

    def mean(self, Y: Floats) -> Matrix:
        """Return E[y | responses] over the corpus Y (n_corpus, n_targets)."""
        check_shape(Y.shape, (self.weights.shape[1], None), "The corpus")
        mean = np.empty((len(self.weights), Y.shape[1]), np.float32)
        for block in target_blocks(*Y.shape):
            mean[:, block] = self.weights @ Y[:, block]
        return mean

    @property
    def likeliest(self) -> IntArray:
        """Return the entry of the highest probability for each image, (n,)."""
        return np.asarray(self.weights.argmax(axis=1), np.int64)

    @property
    def n_effective(self) -> Doubles:
        """Return how many entries share the probability, 1 / Σ w², (n,)."""
        return np.asarray(1 / np.square(self.weights).sum(axis=1))


def posterior_over(
    noise: NoiseModel, Y_hat: Floats, corpus: Floats, *, temperature: float = 1.0
) -> Posterior:
    """Return the posterior over a corpus, every entry of which is as likely before.

    Parameters
    ----------
    noise : NoiseModel
    Y_hat : (n_images, n_targets)
        Decoded features in their own units.
    corpus : (n_corpus, n_targets)
        Features that the truth may resemble: never those of the images decoded.
    temperature : float
        The log-likelihood is divided by it: above 1 for errors that are not normal and
        truths that are not in the corpus (`choose_posterior`).
    """
    if not temperature > 0:
        raise ConfigError(f"temperature is {temperature}, but must be above 0.")
    scores = noise.log_likelihood(Y_hat, corpus) / temperature
    return Posterior(np.asarray(special.softmax(scores, axis=1)))


# --- how far it can be believed -------------------------------------------------------


def error_share(Y: Floats, Y_hat: Floats) -> float:
    """Return the mean squared error over the mean variance of the targets.

    1: as bad as the mean. A latent z of variance 1 with this error is as far from the
    truth as one noised to (1 - ᾱ) / ᾱ of it.
    """
    check_shape(Y_hat.shape, Y.shape, "Y_hat")
    error, variance = 0.0, 0.0
    for block in target_blocks(*Y.shape):
        error += float(np.square(Y[:, block] - Y_hat[:, block]).sum(dtype=np.float64))
        variance += float(Y[:, block].var(axis=0, dtype=np.float64).sum()) * len(Y)
    if not variance > 0:
        raise DataError("No target varies over the images.")
    return error / variance


def calibration(noise: NoiseModel, Y: Floats, Y_hat: Floats) -> pd.DataFrame:
    """Compare the errors that the model expects with those of images it has not seen.

    Parameters
    ----------
    noise : NoiseModel
    Y, Y_hat : (n_images, n_targets)
        True and decoded features in their own units.

    Returns
    -------
    DataFrame
        By axis: axis (from 1), gain, sd (expected), rms (found), and coverage_50,
        coverage_80, coverage_95: the share of images whose error lies in the central
        interval of that probability.
    """
    errors = noise.coordinates(Y_hat) - noise.offset
    errors -= noise.gain * noise.coordinates(Y)
    sd = np.sqrt(np.diag(noise.covariance))
    columns = {
        "axis": np.arange(1, noise.n_axes + 1),
        "gain": noise.gain,
        "sd": sd,
        "rms": np.sqrt(np.square(errors).mean(axis=0)),
    }
    for level in _LEVELS:
        bound = stats.norm.ppf((1 + level) / 2)
        inside = (np.abs(errors) <= bound * sd).mean(axis=0)
        columns[f"coverage_{round(100 * level)}"] = inside
    return pd.DataFrame(columns)
