"""How the decoders of one subject err: what training images choose of the noise model.

The number of axes of each CLIP layer, axes and temperature of c, and the error of z,
from out-of-fold predictions alone. The model of one feature is in `noise_model`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from minddiff_utils.core.types import Array, Doubles, Floats
from minddiff_utils.decoding.noise_model import (
    NoiseModel,
    Posterior,
    calibration,
    error_share,
    gain_and_noise,
    posterior_over,
)

__all__ = ["DecodingErrors", "choose_posterior", "choose_rank", "learn", "learn_layer"]

#: What is compared: axes, and what the log-likelihood is divided by.
RANKS = (10, 20, 40, 80, 150, 300)
TEMPERATURES = (1.0, 2.0, 3.0, 5.0, 8.0)
#: Folds of the training images, and images that each is asked about at most.
_N_FOLDS, _MOST_ASKED = 5, 1000
#: Coordinates of true and decoded features, and of which images they are.
_Folds = Iterator[tuple["NoiseModel", Doubles, Doubles, Doubles]]


def _folds(noise: NoiseModel, truth: Doubles, decoded: Doubles) -> _Folds:
    """Give of each fold of the images what the noise of the others is asked about.

    The noise of the other folds, their true coordinates, and the true and decoded
    coordinates of the fold's first thousand. The axes, which no response has touched,
    are those of all images.
    """
    for new in np.array_split(np.arange(len(truth)), _N_FOLDS):
        known = np.setdiff1d(np.arange(len(truth)), new)
        parts = gain_and_noise(truth[known], decoded[known])
        others = NoiseModel(noise.mean, noise.axes, *parts)
        asked = new[:_MOST_ASKED]
        yield others, truth[known], truth[asked], decoded[asked]


def choose_posterior(
    noise: NoiseModel,
    truth: Doubles,
    decoded: Doubles,
    *,
    ranks: Sequence[int] = RANKS,
    temperatures: Sequence[float] = TEMPERATURES,
) -> pd.DataFrame:
    """Compare axes and temperatures by the error of the posterior mean.

    What is predicted is a fold of the training images, errors and corpus are of the
    other folds: no image finds itself in the corpus.

    Parameters
    ----------
    noise : NoiseModel
        Fitted to the same images.
    truth, decoded : (n_images, p)
        Coordinates of their features and of the out-of-fold predictions.

    Returns
    -------
    DataFrame
        n_axes, temperature, r2 (of the posterior mean, over all axes), r2_decoded (of
        the prediction itself) and chosen: the highest r2, of equal ones the fewest axes
        and the lowest temperature.
    """
    rows: list[dict[str, float]] = []
    for others, corpus, new, said in _folds(noise, truth, decoded):
        total = np.square(new - corpus.mean(axis=0)).sum()
        plain = 1 - np.square(new - said).sum() / total
        for rank in _possible(ranks, noise):
            scores = others.leading(rank).compared(said, corpus)
            for temperature in temperatures:
                weights = special.softmax(scores / temperature, axis=1)
                error = np.square(new - weights @ corpus).sum()
                row = {"n_axes": rank, "temperature": temperature}
                rows.append(row | {"r2": 1 - error / total, "r2_decoded": plain})
    table = pd.DataFrame(rows).groupby(["n_axes", "temperature"], as_index=False).mean()
    return table.assign(chosen=table.index == table["r2"].argmax())


def choose_rank(
    noise: NoiseModel,
    truth: Doubles,
    decoded: Doubles,
    *,
    ranks: Sequence[int] = RANKS,
) -> pd.DataFrame:
    """Compare numbers of axes by how probable they make the image that was seen.

    The errors of the other folds of training images give each image of a fold its
    probability among all of that fold. Parameters as `choose_posterior`.

    Returns
    -------
    DataFrame
        n_axes, log_probability (mean over images), top1 (how often the image that was
        seen is the likeliest) and chosen: the highest log_probability, of equal ones
        the fewest axes.
    """
    rows: list[dict[str, float]] = []
    for others, _, new, said in _folds(noise, truth, decoded):
        for rank in _possible(ranks, noise):
            scores = others.leading(rank).compared(said, new)
            own = np.diag(special.log_softmax(scores, axis=1))
            top1 = scores.argmax(axis=1) == np.arange(len(scores))
            row = {"n_axes": rank, "log_probability": own.mean(), "top1": top1.mean()}
            rows.append(row)
    table = pd.DataFrame(rows).groupby("n_axes", as_index=False).mean()
    return table.assign(chosen=table.index == table["log_probability"].argmax())


def _possible(ranks: Sequence[int], noise: NoiseModel) -> list[int]:
    """Return the ranks that the model has axes for, once each, the largest with all."""
    return sorted({min(rank, noise.n_axes) for rank in ranks})


# --- of one subject -------------------------------------------------------------------


class DecodingErrors(NamedTuple):
    """What the out-of-fold predictions of one subject say of its decoders.

    Attributes
    ----------
    noise : dict of NoiseModel
        Of c and of each CLIP layer, in as many axes as training images prefer.
    by_rank : dict of DataFrame
        From `choose_rank`, by CLIP layer.
    by_temperature : DataFrame
        From `choose_posterior`, of c.
    temperature : float
        The chosen one.
    z_error : float
        From `error_share`, of z.
    """

    noise: dict[str, NoiseModel]
    by_rank: dict[str, pd.DataFrame]
    by_temperature: pd.DataFrame
    temperature: float
    z_error: float

    def calibration(
        self, Y: Mapping[str, Floats], Y_hat: Mapping[str, Floats]
    ) -> pd.DataFrame:
        """Return `calibration` of each feature, one below the other (column feature).

        Y, Y_hat : true and decoded features of other images, by name.
        """
        parts = {
            name: calibration(model, Y[name], Y_hat[name])
            for name, model in self.noise.items()
        }
        tables = [table.assign(feature=name) for name, table in parts.items()]
        return pd.concat(tables, ignore_index=True)

    def posterior(self, c: Floats, corpus: Floats) -> Posterior:
        """Return the posterior of decoded c over a corpus, at the chosen temperature.

        c, corpus : (n_images, n_targets), (n_corpus, n_targets)
        """
        return posterior_over(self.noise["c"], c, corpus, temperature=self.temperature)

    def decoded(self, Y_hat: Mapping[str, Floats], corpus: Floats) -> dict[str, Array]:
        """Return what the files of decoded features hold beside these.

        Parameters
        ----------
        Y_hat : mapping of (n_images, n_targets)
            Decoded features in their own units.
        corpus : (n_corpus, n_targets)
            Training c.

        Returns
        -------
        dict
            `c/posterior`, and each CLIP layer's `whitened`, both float32.
        """
        layers = (name for name in self.noise if name != "c")
        return {
            "c/posterior": self.posterior(Y_hat["c"], corpus).mean(corpus),
            **{
                f"{name}/whitened": self.noise[name].decoded(Y_hat[name]).astype("f4")
                for name in layers
            },
        }

    def arrays(self) -> dict[str, Array]:
        """Return the content of `noise_model.h5`."""
        parts = {n: m.arrays() for n, m in self.noise.items() if n != "c"}
        named = {f"{n}/{k}": v for n, part in parts.items() for k, v in part.items()}
        return {"z/error": np.array(self.z_error), **named}


def learn_layer(Y: Floats, Y_hat: Floats) -> tuple[NoiseModel, pd.DataFrame]:
    """Return the noise of a CLIP layer in the rank that is chosen, and the choice.

    Parameters and errors as `NoiseModel.fit`.
    """
    model, *coordinates = NoiseModel.fit_in_axes(Y, Y_hat)
    table = choose_rank(model, *coordinates)
    return model.leading(int(table.loc[table["chosen"], "n_axes"].item())), table


def learn(Y: Mapping[str, Floats], Y_hat: Mapping[str, Floats]) -> DecodingErrors:
    """Learn the noise of c and of each CLIP layer, and the error of z.

    Parameters
    ----------
    Y, Y_hat : mapping of (n_images, n_targets)
        Training features by name and their predictions from `cross_validate`.

    Raises
    ------
    DataError
        As `NoiseModel.fit`.
    """
    noise: dict[str, NoiseModel] = {}
    by_rank: dict[str, pd.DataFrame] = {}
    for name in (name for name in Y if name.startswith("clip/")):
        noise[name], by_rank[name] = learn_layer(Y[name], Y_hat[name])
    model, *coordinates = NoiseModel.fit_in_axes(Y["c"], Y_hat["c"])
    table = choose_posterior(model, *coordinates)
    best = table.loc[table["chosen"]].iloc[0]
    return DecodingErrors(
        {"c": model.leading(int(best["n_axes"])), **noise},
        by_rank,
        table,
        float(best["temperature"]),
        error_share(Y["z"], Y_hat["z"]),
    )
