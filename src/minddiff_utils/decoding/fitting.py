"""The decoders of one subject: fitted, scored, and what is written of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import pandas as pd

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.types import Array, Floats, IntArray, Ints, Mask, Matrix
from minddiff_utils.decoding._grouped import fit_features
from minddiff_utils.decoding._linear_decoder import LinearDecoder
from minddiff_utils.decoding.chance import ScoredImages
from minddiff_utils.decoding.feature_selection import Selection, k_curve
from minddiff_utils.decoding.identification import identification, row_products
from minddiff_utils.decoding.retrieval import nearest_rows
from minddiff_utils.decoding.scores import accuracy, feature_correlation, noise_ceiling
from minddiff_utils.decoding.targets import TargetScaling

__all__ = [
    "FittedDecoder",
    "FittedDecoders",
    "Scores",
    "VoxelData",
    "fit",
    "score",
]

Features = Mapping[str, Matrix]


@dataclass(frozen=True)
class VoxelData:
    """Responses of one subject, cut into training and test images.

    Attributes
    ----------
    X_train, X_test : (n_images, n_voxels) float32
        Averaged, session-standardised responses.
    ncsnr : (n_voxels,) float32
        Noise-ceiling signal-to-noise ratio of each voxel.
    n_repeats_test : (n_test,) int
        Trials behind each test response.
    """

    X_train: Matrix
    X_test: Matrix
    ncsnr: Matrix
    n_repeats_test: Ints

    def __post_init__(self) -> None:
        n_voxels = self.X_train.shape[1]
        check_shape(self.X_test.shape, (None, n_voxels), "X_test")
        check_shape(self.ncsnr.shape, (n_voxels,), "ncsnr")
        check_shape(self.n_repeats_test.shape, (len(self.X_test),), "n_repeats_test")

    @classmethod
    def from_responses(cls, stored: Mapping[str, Array], test: str = "test") -> Self:
        """Cut the content of `responses.h5`; images of other splits are left out."""
        train, tested = (stored["split"] == name for name in ("train", test))
        if not train.any() or not tested.any():
            raise DataError(
                "responses.h5 holds no training or no test images: run notebook 01"
                " with more sessions."
            )
        betas, repeats = stored["betas"], stored["n_repeats"]
        return cls(betas[train], betas[tested], stored["ncsnr"], repeats[tested])

    def voxels(self, keep: Mask) -> "VoxelData":
        """Return the data of some of the voxels."""
        parts = (self.X_train[:, keep], self.X_test[:, keep], self.ncsnr[keep])
        return VoxelData(*parts, self.n_repeats_test)


@dataclass(frozen=True)
class FittedDecoder:
    """The decoder of one feature, fitted on standardised targets.

    Attributes
    ----------
    decoder : LinearDecoder
        Fitted.
    scaling : TargetScaling
        Training mean and SD of the targets.
    selection : Selection
        The targets that later stages use; all of them for c and z.
    """

    decoder: LinearDecoder
    scaling: TargetScaling
    selection: Selection

    @property
    def selected(self) -> Mask:
        """Return which targets later stages use, (n_targets,)."""
        return self.selection.selected

    @property
    def spread(self) -> Matrix:
        """Return each target's training SD, 0 where it does not vary."""
        return np.where(self.scaling.varies, self.scaling.scale, 0).astype(np.float32)


def fit(
    decoders: Mapping[str, LinearDecoder],
    X: Matrix,
    Y: Features,
    selections: Mapping[str, Selection] | None = None,
) -> "FittedDecoders":
    """Fit a decoder to each feature; features with equal decoders are fitted at once.

    Parameters
    ----------
    decoders : mapping of estimators
        By feature (`c`, `z`, `clip/1`, ...), not fitted; they stay so.
    X : (n_train, n_voxels) float32
        Training responses.
    Y : mapping of (n_train, n_targets) float32
        Training features in their own units.
    selections : mapping of Selection, optional
        From `top_percent`, by feature; all targets of the others are kept.

    Returns
    -------
    FittedDecoders
        By feature, in the order of `decoders`.

    References
    ----------
    MindDiffuser section 3.1 (L2-regularised regression that selects its voxels; k % of
    the CLIP features).
    """
    for name in decoders:
        check_shape(Y[name].shape, (len(X), None), f"training targets {name}")
    fitted = FittedDecoders()
    for name, (decoder, scaling) in fit_features(decoders, X, Y).items():
        every = Selection.everything(Y[name].shape[1])
        selection = (selections or {}).get(name, every)
        fitted[name] = FittedDecoder(decoder, scaling, selection)
    return fitted


class FittedDecoders(dict[str, FittedDecoder]):
    """The fitted decoders of one subject, by feature."""

    def with_all_targets(self) -> "FittedDecoders":
        """Return the same decoders with no target left out."""
        every = Selection.everything
        return FittedDecoders(
            {n: replace(f, selection=every(len(f.selected))) for n, f in self.items()}
        )

    def only(self, names: Sequence[str]) -> "FittedDecoders":
        """Return those of some features."""
        return FittedDecoders({name: self[name] for name in names})

    def predict(self, X: Matrix) -> dict[str, Matrix]:
        """Return the standardised predictions by feature, (n_images, n_targets)."""
        return {
            name: f.decoder.predict(X).astype(np.float32) for name, f in self.items()
        }

    def predict_units(self, X: Matrix) -> dict[str, Matrix]:
        """Return the predictions in the features' own units."""
        return {
            name: self[name].scaling.invert(Y_hat).astype(np.float32)
            for name, Y_hat in self.predict(X).items()
        }

    def correlations(self, Y: Features, Y_hat: Features) -> dict[str, Floats]:
        """Return Pearson's r over images by feature, (n_targets,); NaN: constant."""
        return {name: feature_correlation(Y[name], Y_hat[name]) for name in self}

    def ceilings(self, data: VoxelData, Y_hat: Features) -> dict[str, Floats]:
        """Return each target's noise ceiling by feature, (n_targets,)."""
        noise = data.ncsnr, data.n_repeats_test
        return {n: noise_ceiling(f.decoder, Y_hat[n], *noise) for n, f in self.items()}

    def voxel_weights(self) -> dict[str, Floats]:
        """Return the mean absolute weight of each voxel by feature, (n_voxels,)."""
        return {name: f.decoder.voxel_weight() for name, f in self.items()}

    def voxel_patterns(self, X: Matrix) -> dict[str, Floats]:
        """Return each voxel's mean |r| with the decoded targets of each feature.

        (n_voxels,), over the training responses X.
        """
        return {name: f.decoder.voxel_pattern(X) for name, f in self.items()}

    def penalties(self) -> pd.DataFrame:
        """Return the chosen penalties of each feature's targets that vary.

        Many targets at an edge of the grid would have taken a penalty beyond it. At the
        highest one there is often nothing to decode: the prediction is about the mean.

        Returns
        -------
        DataFrame
            Columns feature, n_targets, n_alphas (in the grid), median, and the share of
            targets at_lowest and at_highest; shares are NaN where one penalty is given.
        """
        rows = []
        for name, fitted in self.items():
            varies, grid = fitted.scaling.varies, fitted.decoder.alphas_
            alpha = fitted.decoder.alpha_[varies]
            row = {"feature": name, "n_targets": len(alpha), "n_alphas": len(grid)}
            row["median"] = float(np.median(alpha))
            for key, edge in (("at_lowest", grid.min()), ("at_highest", grid.max())):
                row[key] = (alpha == edge).mean() if len(grid) > 1 else np.nan
            rows.append(row)
        return pd.DataFrame(rows)

    def k_table(
        self, r_test: Mapping[str, Floats], k_grid: Sequence[float]
    ) -> pd.DataFrame:
        """Return accuracy and variance kept for every k of `k_grid`, layer by layer.

        The features are ranked on training images alone; columns: layer, those of
        `k_curve`, and identification and chosen of `choose_k`.
        """
        tables = []
        for name, fitted in self.items():
            if name.startswith("clip/"):
                selection, variance = fitted.selection, fitted.spread**2
                curve = k_curve(selection.r_cv, r_test[name], variance, k_grid)
                scores = selection.k_scores.drop(columns="n_selected")
                curve = curve.merge(scores, on="k_percent", how="left")
                curve.insert(0, "layer", int(name.partition("/")[2]))
                tables.append(curve)
        return pd.concat(tables, ignore_index=True)

    def nearest(self, Y_train: Features, Y_hat: Features) -> IntArray:
        """Return the training row whose features are nearest to each prediction."""
        keep = {name: f.selected & f.scaling.varies for name, f in self.items()}
        training = {n: f.scaling.apply(Y_train[n])[:, keep[n]] for n, f in self.items()}
        return nearest_rows({n: Y_hat[n][:, keep[n]] for n in self}, training)

    def decoded(self, Y: Features, Y_hat: Features) -> dict[str, Array]:
        """Return the content of `decoded.h5`: per feature, in the feature's own units.

        Parameters
        ----------
        Y, Y_hat : mapping of (n_images, n_targets)
            True features and standardised predictions of the same images.
        """
        arrays: dict[str, Array] = {}
        for name, fitted in self.items():
            scaling = fitted.scaling
            arrays |= {
                f"{name}/decoded": scaling.invert(Y_hat[name]).astype(np.float32),
                f"{name}/true": Y[name].astype(np.float32),
                f"{name}/mean": scaling.mean,
                f"{name}/scale": fitted.spread,
                f"{name}/selected": fitted.selected,
            }
        return arrays

    def arrays(self) -> dict[str, Array]:
        """Return the content of `decoders.h5`: the weights of the selected targets."""
        return dict(self._arrays())

    def _arrays(self) -> Iterator[tuple[str, Array]]:
        for name, fitted in self.items():
            selected = fitted.selected
            for key, values in fitted.decoder.part(selected).arrays().items():
                yield f"{name}/{key}", values
            yield f"{name}/target", np.flatnonzero(selected).astype(np.int32)
            yield f"{name}/r_cv", fitted.selection.r_cv
            yield f"{name}/voxel_weight", fitted.decoder.voxel_weight()


class Scores(NamedTuple):
    """What the predictions of test images score, by feature.

    Attributes
    ----------
    accuracy : DataFrame
        Columns feature, area_set, and those of `scores.accuracy` and of
        `identification.identification`.
    images : DataFrame
        A row for each image: nsd_id, feature, area_set, r (Pearson's, over targets,
        between decoded and true feature, both standardised by training mean and SD).
    """

    accuracy: pd.DataFrame
    images: pd.DataFrame

    def joined(self, others: Sequence["Scores"]) -> "Scores":
        """Return these and those of other area sets, one below the other."""
        tables = zip(self, *others, strict=True)
        return Scores(*(pd.concat(parts, ignore_index=True) for parts in tables))


def score(
    fitted: FittedDecoders,
    data: VoxelData,
    Y_test: Features,
    test_images: ScoredImages,
    *,
    n_permutations: int,
    rng: np.random.Generator,
    area_set: str = "all",
) -> Scores:
    """Score the predictions of every feature's selected targets with null and ceiling.

    Parameters
    ----------
    fitted : FittedDecoders
    data : VoxelData
        Its test responses are decoded.
    Y_test : mapping of (n_test, n_targets) float32
        True features of the test images.
    test_images : ScoredImages
        With what was drawn of them for conditional chance and retrieval.
    n_permutations : int
        Permutations of the test images, for the null.
    rng : Generator
        Draws them.
    area_set : str
        What the voxels are called in the tables.
    """
    rows, by_image = [], []
    Y_hat = fitted.predict(data.X_test)
    ceilings = fitted.ceilings(data, Y_hat)
    for name, one in fitted.items():
        kept = one.selected
        row = accuracy(
            Y_test[name][:, kept],
            Y_hat[name][:, kept],
            ceilings[name][kept],
            within=test_images.within,
            n_permutations=n_permutations,
            rng=rng,
        )
        truth = one.scaling.apply(Y_test[name])[:, kept]
        similarity = row_products(truth, Y_hat[name][:, kept]).similarity()
        row |= identification(similarity, test_images.candidates)
        names = {"feature": name, "area_set": area_set}
        rows.append({**names, **row})
        r = np.diag(similarity)
        by_image.append(pd.DataFrame({"nsd_id": test_images.nsd_id, **names, "r": r}))
    return Scores(pd.DataFrame(rows), pd.concat(by_image, ignore_index=True))
