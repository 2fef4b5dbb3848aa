"""Every feature of the seen image read from one subject's voxels.

Fits one decoder per feature (c, z, each CLIP layer) on training images, chooses the
k % of CLIP features by cross-validation on the same images, predicts the test images
and scores the predictions. Not here: the estimator itself (`decoders`) and what the
predictions are used for (`reconstruction`). Place in the flow: layer 8, notebook 02.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.config import DecodingConfig
from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.decoding import (
    DenseRidge,
    ScaledTargets,
    TargetScaling,
    VoxelSelectedRidge,
    choose_k,
    contiguous_folds,
    cross_validated_features,
    feature_correlation,
    fit_features,
    k_curve,
    noise_ceiling_r,
    pooled_correlation,
    score_decoder,
    select_best,
)
from minddiff_utils.decoding.retrieval import Standardised, retrieval_nearest
from minddiff_utils.decoding.targets import blocks

__all__ = [
    "FeatureReadout",
    "VoxelData",
    "accuracy_by_area_set",
    "accuracy_table",
    "ceiling_correlations",
    "decoded_arrays",
    "decoder_arrays",
    "fit_readout",
    "floor_correlations",
    "k_table",
    "make_decoder",
    "nearest_training_image",
    "predict",
    "test_correlations",
    "voxel_weights",
]

Matrix = npt.NDArray[np.float32]
Estimator = VoxelSelectedRidge | DenseRidge
DecoderName = Literal["voxel_selected", "dense"]
Mask = npt.NDArray[np.bool_]


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
    n_repeats_test: npt.NDArray[np.integer[Any]]

    def __post_init__(self) -> None:
        n_voxels = self.X_train.shape[1]
        check_shape(self.X_test.shape, (None, n_voxels), "X_test")
        check_shape(self.ncsnr.shape, (n_voxels,), "ncsnr")
        check_shape(self.n_repeats_test.shape, (len(self.X_test),), "n_repeats_test")

    @classmethod
    def from_responses(cls, stored: Mapping[str, npt.NDArray[Any]]) -> "VoxelData":
        """Cut the content of `responses.h5`; validation images are left out."""
        train, test = (stored["split"] == name for name in ("train", "test"))
        if not train.any() or not test.any():
            raise DataError(
                "responses.h5 holds no training or no test images: run notebook 01"
                " with more sessions."
            )
        betas, repeats = stored["betas"], stored["n_repeats"]
        return cls(betas[train], betas[test], stored["ncsnr"], repeats[test])

    def voxels(self, keep: Mask) -> "VoxelData":
        """Return the data of some of the voxels."""
        return VoxelData(
            self.X_train[:, keep],
            self.X_test[:, keep],
            self.ncsnr[keep],
            self.n_repeats_test,
        )


@dataclass(frozen=True)
class FeatureReadout:
    """The fitted decoder of one feature.

    Attributes
    ----------
    decoder : VoxelSelectedRidge or DenseRidge
        Fitted on standardised targets.
    scaling : TargetScaling
        Training mean and SD of the targets.
    selected : (n_targets,) bool
        The k % best decodable targets; all of them for c and z.
    r_cv : (n_targets,) float32
        Cross-validated correlation on training images; NaN where not computed.
    residual : (n_targets,) float32
        Mean squared error of the out-of-fold predictions, in the targets' units
        squared; NaN where not computed.
    k_scores : DataFrame
        What cross-validation says of each k (`decoders.choose_k`); empty for c and z.
    """

    decoder: Estimator
    scaling: TargetScaling
    selected: Mask
    r_cv: Matrix
    residual: Matrix
    k_scores: pd.DataFrame


def make_decoder(
    feature: str, config: DecodingConfig, decoder: DecoderName
) -> Estimator:
    """Return the unfitted decoder of one feature.

    Parameters
    ----------
    feature : str
        `c`, `z`, `clip/1`, ...
    config : DecodingConfig
        alpha, voxels per target and precision of the paper's decoder.
    decoder : {"voxel_selected", "dense"}
        The paper's, or ridge on all voxels with a penalty chosen for each target.
    """
    if decoder == "dense":
        return DenseRidge()
    known = {"c": config.n_feat_c, "z": config.n_feat_z}
    n_feat = known.get(feature, config.n_feat_clip)
    return VoxelSelectedRidge(config.alpha, n_feat, dtype=config.dtype)


def fit_readout(
    X_train: Matrix,
    Y_train: Mapping[str, Matrix],
    config: DecodingConfig,
    *,
    decoder: DecoderName,
) -> dict[str, FeatureReadout]:
    """Fit one decoder per feature; choose the k % of each CLIP layer.

    Features whose decoders are equal are fitted at once, targets read by blocks.

    Parameters
    ----------
    X_train : (n_train, n_voxels) float32
        Training responses.
    Y_train : mapping of (n_train, n_targets) float32
        Features by name: `c`, `z`, `clip/1`, ...
    config : DecodingConfig
        alpha, voxels per target, k, folds.
    decoder : {"voxel_selected", "dense"}
        See `make_decoder`.

    Returns
    -------
    dict of FeatureReadout
        By feature name.

    References
    ----------
    MindDiffuser section 3.1 (L2-regularised regression that selects its voxels; k % of
    the CLIP features).
    """
    for name, Y in Y_train.items():
        check_shape(Y.shape, (len(X_train), None), f"training targets {name}")
    decoders = {name: make_decoder(name, config, decoder) for name in Y_train}
    # before the fit, so that predictions and weights are not in memory together
    layers = {n: Y for n, Y in Y_train.items() if n.startswith("clip/")}
    chosen = _selected(X_train, layers, decoders, config)
    readouts = _plain(X_train, Y_train, _scalings(Y_train), decoders)
    return {n: replace(found, **chosen.get(n, {})) for n, found in readouts.items()}


def _scalings(Y_train: Mapping[str, Matrix]) -> dict[str, TargetScaling]:
    """Return each feature's scaling: what varies is judged within the feature."""
    return {name: TargetScaling.fit(Y) for name, Y in Y_train.items()}


def _plain(
    X_train: Matrix,
    Y_train: Mapping[str, Matrix],
    scalings: Mapping[str, TargetScaling],
    decoders: Mapping[str, Estimator],
) -> dict[str, FeatureReadout]:
    """Fit decoders without selecting targets, equal ones at once."""
    scaled = {name: ScaledTargets(Y, scalings[name]) for name, Y in Y_train.items()}
    readouts = {}
    for name, fitted in fit_features(X_train, scaled, decoders).items():
        n_targets = Y_train[name].shape[1]
        nothing = np.full(n_targets, np.nan, np.float32)
        every = np.ones(n_targets, bool)
        found = (fitted, scalings[name], every, nothing, nothing, pd.DataFrame())
        readouts[name] = FeatureReadout(*found)
    return readouts


def _selected(
    X_train: Matrix,
    layers: Mapping[str, Matrix],
    decoders: Mapping[str, Estimator],
    config: DecodingConfig,
) -> dict[str, dict[str, Any]]:
    """Choose the k % of each layer's targets from out-of-fold predictions.

    Returns those attributes of `FeatureReadout` that the choice gives, by layer.
    """
    folds = contiguous_folds(len(X_train), config.n_folds)
    own = {name: decoders[name] for name in layers}
    Y_hat = cross_validated_features(X_train, layers, decoders=own, folds=folds)
    return {name: _choice(Y, Y_hat[name], config) for name, Y in layers.items()}


def _choice(Y: Matrix, Y_hat: Matrix, config: DecodingConfig) -> dict[str, Any]:
    """Choose the k % of one layer's targets."""
    folds = contiguous_folds(len(Y), config.n_folds)
    r_cv = pooled_correlation(Y, Y_hat, folds).astype(np.float32)
    scores = choose_k(Y, Y_hat, folds=folds, k_grid=config.k_grid)
    k_percent = config.k_percent
    if k_percent is None:
        k_percent = float(scores.loc[scores["chosen"], "k_percent"].iloc[0])
    best = select_best(r_cv, k_percent)
    residual = _mean_squared_error(Y, Y_hat)
    return {"selected": best, "r_cv": r_cv, "residual": residual, "k_scores": scores}


def _mean_squared_error(Y: Matrix, Y_hat: Matrix) -> Matrix:
    """Return each target's mean squared error, (n_targets,), a block at a time."""
    error = np.empty(Y.shape[1], np.float32)
    for part in blocks(Y.shape[1], max(1, 8_000_000 // len(Y))):
        error[part] = np.square(Y[:, part] - Y_hat[:, part]).mean(axis=0)
    return error


def predict(
    readouts: Mapping[str, FeatureReadout], X_test: Matrix
) -> dict[str, Matrix]:
    """Return the standardised predictions by feature, (n_test, n_targets) float32."""
    return {
        name: readout.decoder.predict(X_test).astype(np.float32)
        for name, readout in readouts.items()
    }


# --- how well -----------------------------------------------------------------------


def test_correlations(
    Y_test: Mapping[str, Matrix], Y_hat: Mapping[str, Matrix]
) -> dict[str, npt.NDArray[np.floating[Any]]]:
    """Return Pearson's r over test images by feature, (n_targets,); NaN: constant."""
    return {name: feature_correlation(Y_test[name], Y_hat[name]) for name in Y_hat}


test_correlations.__test__ = False  # type: ignore[attr-defined]  # not pytest's


def floor_correlations(
    Y_test: Mapping[str, Matrix],
    Y_hat: Mapping[str, Matrix],
    *,
    rng: np.random.Generator,
) -> dict[str, npt.NDArray[np.floating[Any]]]:
    """Return Pearson's r with the test images permuted once, by feature, (n_targets,).

    The distribution over targets of what chance gives; all features share the order.
    """
    n_test = len(next(iter(Y_hat.values())))
    order = rng.permutation(n_test)
    return test_correlations(Y_test, {name: Y[order] for name, Y in Y_hat.items()})


def ceiling_correlations(
    readouts: Mapping[str, FeatureReadout],
    data: VoxelData,
    Y_hat: Mapping[str, Matrix],
) -> dict[str, npt.NDArray[np.floating[Any]]]:
    """Return each target's noise ceiling by feature, (n_targets,)."""
    return {
        name: noise_ceiling_r(
            readout.decoder, Y_hat[name], data.ncsnr, data.n_repeats_test
        )
        for name, readout in readouts.items()
    }


def accuracy_table(
    readouts: Mapping[str, FeatureReadout],
    data: VoxelData,
    Y_test: Mapping[str, Matrix],
    *,
    n_permutations: int,
    rng: np.random.Generator,
    area_set: str = "all",
) -> pd.DataFrame:
    """Score every feature's predictions with null and ceiling.

    Selected targets only, as they are the ones that later stages use. Columns: feature,
    area_set, and those of `decoders.score_decoder`.
    """
    rows = []
    for name, readout in readouts.items():
        Y_hat = readout.decoder.predict(data.X_test).astype(np.float32)
        ceiling = noise_ceiling_r(
            readout.decoder, Y_hat, data.ncsnr, data.n_repeats_test
        )
        keep = readout.selected
        score = score_decoder(
            Y_test[name][:, keep],
            Y_hat[:, keep],
            ceiling[keep],
            n_permutations=n_permutations,
            rng=rng,
        )
        rows.append({"feature": name, "area_set": area_set, **score})
    return pd.DataFrame(rows)


def accuracy_by_area_set(
    data: VoxelData,
    area_sets: Mapping[str, Mask],
    Y_train: Mapping[str, Matrix],
    Y_test: Mapping[str, Matrix],
    config: DecodingConfig,
    *,
    decoder: DecoderName,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Refit each feature from the voxels of each area set alone and score it.

    Parameters
    ----------
    area_sets : mapping of (n_voxels,) bool
        Voxels of each set by name, such as LVC and HVC.
    Y_train, Y_test : mapping of (n_images, n_targets) float32
        Features to score; for a CLIP layer all targets given are used.
    """
    decoders = {name: make_decoder(name, config, decoder) for name in Y_train}
    scalings = _scalings(Y_train)
    tables = []
    for area_set, keep in area_sets.items():
        own = data.voxels(keep)
        readouts = _plain(own.X_train, Y_train, scalings, decoders)
        tables.append(
            accuracy_table(
                readouts,
                own,
                Y_test,
                n_permutations=config.n_permutations,
                rng=rng,
                area_set=area_set,
            )
        )
    return pd.concat(tables, ignore_index=True)


def k_table(
    readouts: Mapping[str, FeatureReadout],
    r_test: Mapping[str, npt.NDArray[np.floating[Any]]],
    k_grid: Sequence[float],
) -> pd.DataFrame:
    """Return accuracy and variance kept for every k of `k_grid`, layer by layer.

    The features are ranked on training images alone; columns: layer, those of
    `decoders.k_curve`, and identification and chosen of `decoders.choose_k`.
    """
    tables = []
    for name, readout in readouts.items():
        if name.startswith("clip/"):
            variance = _spread(readout.scaling) ** 2
            curve = k_curve(readout.r_cv, r_test[name], variance, k_grid)
            scores = readout.k_scores.drop(columns="n_selected")
            curve = curve.merge(scores, on="k_percent", how="left")
            tables.append(curve.assign(layer=int(name.partition("/")[2])))
    table = pd.concat(tables, ignore_index=True)
    return table[["layer", *[c for c in table.columns if c != "layer"]]]


def _spread(scaling: TargetScaling) -> Matrix:
    """Return each target's training SD, 0 where it does not vary."""
    return np.where(scaling.varies, scaling.scale, 0).astype(np.float32)


def nearest_training_image(
    readouts: Mapping[str, FeatureReadout],
    Y_train: Mapping[str, Matrix],
    Y_hat: Mapping[str, Matrix],
) -> npt.NDArray[np.int64]:
    """Return the training row whose features are nearest to each prediction."""
    compared = {}
    for name, readout in readouts.items():
        keep = readout.selected & readout.scaling.varies
        training = readout.scaling.apply(Y_train[name])[:, keep]
        n_targets = int(keep.sum())
        zeros, ones = np.zeros(n_targets), np.ones(n_targets)
        compared[name] = Standardised(Y_hat[name][:, keep], training, zeros, ones)
    return retrieval_nearest(compared)


# --- what is written ----------------------------------------------------------------


def decoded_arrays(
    readouts: Mapping[str, FeatureReadout],
    Y_test: Mapping[str, Matrix],
    Y_hat: Mapping[str, Matrix],
) -> dict[str, npt.NDArray[Any]]:
    """Return the content of `decoded.h5`: per feature, in the feature's own units.

    `Y_test` and `Y_hat` may be those of other images, such as the validation images.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, readout in readouts.items():
        scaling = readout.scaling
        arrays |= {
            f"{name}/decoded": scaling.invert(Y_hat[name]).astype(np.float32),
            f"{name}/true": Y_test[name].astype(np.float32),
            f"{name}/mean": scaling.mean,
            f"{name}/scale": _spread(scaling),
            f"{name}/selected": readout.selected,
        }
        if name.startswith("clip/"):
            arrays[f"{name}/residual"] = readout.residual
    return arrays


def voxel_weights(
    readouts: Mapping[str, FeatureReadout],
) -> dict[str, npt.NDArray[np.floating[Any]]]:
    """Return the mean absolute weight of each voxel by feature, (n_voxels,)."""
    return {name: r.decoder.voxel_weight() for name, r in readouts.items()}


def _decoder_items(
    readouts: Mapping[str, FeatureReadout],
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    for name, readout in readouts.items():
        keep = readout.selected
        for key, value in readout.decoder.arrays().items():
            per_target = value.ndim > 0 and len(value) == len(keep)
            yield f"{name}/{key}", value[keep] if per_target else value
        yield f"{name}/target", np.flatnonzero(keep).astype(np.int32)
        yield f"{name}/r_cv", readout.r_cv
        yield f"{name}/voxel_weight", readout.decoder.voxel_weight()


def decoder_arrays(
    readouts: Mapping[str, FeatureReadout],
) -> dict[str, npt.NDArray[Any]]:
    """Return the content of `decoders.h5`: the weights of the selected targets."""
    return dict(_decoder_items(readouts))
