"""The structural loss: how far an image's CLIP features are from the decoded ones.

The paper's sum of squared errors, the released code's weighted and masked form, and a
balanced one. All three ask for the decoded features as they are, which a ridge has
shrunk, so that the true image can lie farther off than a dull one. Two further forms do
not: the cosine, which no shrinking changes, and the likelihood of the decoded features
under the decoder's own errors. It knows no sampler and no optimiser.

Notation: Z = decoded CLIP features, m = mask of selected features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import torch
from torch import Tensor

from minddiff_utils.core.errors import DataError, check_finite, check_shape

__all__ = [
    "Likelihood",
    "Loss",
    "StructuralLoss",
    "StructuralTarget",
    "layer_weights",
    "structural_loss",
]

#: Weights of blocks 1 to 6 in the released code (`Reconstruction.py`, MSE_CLIP_mask).
RELEASED_LAYER_WEIGHTS = (1.5, 1.2, 1.0, 1.0, 1.0, 1.0)

#: The squared errors differ in how they weigh the blocks of CLIP (`layer_weights`).
SquaredError = Literal["paper", "released", "balanced"]
#: See `StructuralLoss`.
Loss = Literal["paper", "released", "balanced", "cosine", "likelihood"]


@dataclass(frozen=True)
class Likelihood:
    """What the decoder's errors make of one block's features.

    Attributes
    ----------
    map, shift : Tensor
        A (p, n_features) and b (p,): A f + b is what is decoded of the features f, in
        axes along which the decoder's errors are independent and of variance 1
        (`decoding.noise_model`).
    decoded : Tensor
        What was decoded, in these axes, (n, p).
    """

    map: Tensor
    shift: Tensor
    decoded: Tensor

    def __post_init__(self) -> None:
        p = len(self.shift)
        check_shape(tuple(self.map.shape), (p, None), "map")
        check_shape(tuple(self.decoded.shape), (None, p), "decoded")

    def rows(self, rows: Tensor | list[int]) -> "Likelihood":
        """Return that of some of the images."""
        return replace(self, decoded=self.decoded[rows])

    def loss(self, features: Tensor) -> Tensor:
        """Return the mean squared error of the axes, (n,): 1 at the truth."""
        seen = features.to(self.map.dtype) @ self.map.T + self.shift
        return (seen - self.decoded).square().mean(1)


@dataclass(frozen=True)
class StructuralTarget:
    """The decoded CLIP features, and which of them count.

    Attributes
    ----------
    features : mapping of int to Tensor
        Layer (1-based block) to Z, (n, n_features).
    selected : mapping of int to Tensor
        Layer to m, bool (n_features,): the k % best decoded on training data.
    scale : mapping of int to Tensor
        Layer to the training standard deviation of each feature, (n_features,).
    mean : mapping of int to Tensor
        Layer to the training mean of each feature, (n_features,), for the cosine; empty
        where not known.
    likelihood : mapping of int to Likelihood
        By layer, for the loss of that name; empty where not known.
    """

    features: Mapping[int, Tensor]
    selected: Mapping[int, Tensor]
    scale: Mapping[int, Tensor]
    mean: Mapping[int, Tensor] = field(default_factory=dict)
    likelihood: Mapping[int, Likelihood] = field(default_factory=dict)

    def __post_init__(self) -> None:
        layers = set(self.features)
        if not layers or layers != set(self.selected) or layers != set(self.scale):
            raise DataError(
                "features, selected and scale must name the same layers, at least one,"
                f" but name {sorted(layers)}, {sorted(self.selected)} and"
                f" {sorted(self.scale)}."
            )
        for name in ("mean", "likelihood"):
            known = getattr(self, name)
            if known and layers != set(known):
                raise DataError(
                    f"{name} names the layers {sorted(known)}, but must name all of"
                    f" {sorted(layers)} or none."
                )
        empty = [k for k, mask in self.selected.items() if not bool(mask.any())]
        if empty:
            raise DataError(
                f"No feature of CLIP layer {empty[0]} is selected: raise k_percent."
            )
        for layer in self.layers:
            self._check_layer(layer, self.n_images)

    def _check_layer(self, layer: int, n_images: int) -> None:
        features, mask = self.features[layer], self.selected[layer]
        width = tuple(features.shape[1:])
        check_shape(tuple(features.shape), (n_images, None), f"Z of layer {layer}")
        check_shape(tuple(mask.shape), width, f"selected of layer {layer}")
        check_shape(tuple(self.scale[layer].shape), width, f"scale of layer {layer}")
        if self.mean:
            check_shape(tuple(self.mean[layer].shape), width, f"mean of layer {layer}")
        if self.likelihood:
            known = self.likelihood[layer]
            check_shape(tuple(known.map.shape[1:]), width, f"map of layer {layer}")
            n_decoded = (len(known.decoded),)
            check_shape(n_decoded, (n_images,), f"likelihood of layer {layer}")
        if mask.dtype != torch.bool:
            raise DataError(
                f"selected of layer {layer} is {mask.dtype}, but must be bool."
            )
        finite = bool(features[:, mask].isfinite().all())
        check_finite(finite, f"Z of layer {layer}, where selected,")

    @property
    def n_images(self) -> int:
        """Return the number of images."""
        return len(self.features[self.layers[0]])

    def rows(self, rows: Tensor | list[int]) -> "StructuralTarget":
        """Return the target of some of the images."""
        features = {layer: values[rows] for layer, values in self.features.items()}
        likelihood = {k: known.rows(rows) for k, known in self.likelihood.items()}
        return replace(self, features=features, likelihood=likelihood)

    def of_layers(self, layers: Sequence[int]) -> "StructuralTarget":
        """Return the target of some of the layers."""
        every = {one.name: getattr(self, one.name) for one in fields(self)}
        return StructuralTarget(
            **{
                n: {k: part[k] for k in layers if k in part}
                for n, part in every.items()
            }
        )

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Return all that a loss can depend on."""
        parts = (self.features, self.selected, self.scale, self.mean)
        known = [part[k] for part in parts for k in self.layers if k in part]
        for one in (self.likelihood[k] for k in self.layers if k in self.likelihood):
            known += [one.map, one.shift, one.decoded]
        return tuple(known)

    @property
    def layers(self) -> tuple[int, ...]:
        """Return the layers in ascending order."""
        return tuple(sorted(self.features))


def layer_weights(target: StructuralTarget, kind: SquaredError) -> dict[int, Tensor]:
    """Return each layer's weight per image, (n,), on the sum of squared errors.

    paper : 1.
    released : 1 / norm of the layer's masked target, made to sum to 1 over the layers,
        times 1.5, 1.2, 1, 1, … in the order of the layers, over the number of all
        features (the released code averages over masked entries too).
    balanced : 1 / (training variance of the layer's selected features, summed), over
        the number of layers: each layer counts the same, and guessing the mean gives
        about 1.

    Raises
    ------
    DataError
        balanced, and a layer's selected features have no training variance.

    References
    ----------
    MindDiffuser Algorithm 1, line 5; `MSE_CLIP_mask` of the released code (c9773ac).
    """
    n = target.n_images
    weights: dict[int, Tensor] = {}
    norms = {k: _masked_norm(target, k) for k in target.layers}
    inverse_sum = torch.stack([1 / norm for norm in norms.values()]).sum(0)
    for order, layer in enumerate(target.layers):
        features, mask = target.features[layer], target.selected[layer]
        if kind == "paper":
            weights[layer] = features.new_ones(n)
        elif kind == "released":
            extra = (*RELEASED_LAYER_WEIGHTS, *[1.0] * order)[order]
            weights[layer] = extra / norms[layer] / inverse_sum / features.shape[1]
        else:
            variance = (target.scale[layer][mask] ** 2).sum()
            if not 0 < float(variance) < float("inf"):
                raise DataError(
                    f"The selected features of CLIP layer {layer} have variance"
                    f" {float(variance)} in training, so that their errors have no"
                    " scale: select others."
                )
            weights[layer] = features.new_ones(n) / (variance * len(target.layers))
    return weights


def _masked_norm(target: StructuralTarget, layer: int) -> Tensor:
    masked = _masked(target.features[layer], target.selected[layer])
    norm: Tensor = torch.linalg.vector_norm(masked, dim=1).clamp_min(1e-12)
    return norm


def _masked(values: Tensor, mask: Tensor) -> Tensor:
    """Return `values` with 0 where not selected, even in place of a NaN."""
    return torch.where(mask, values, torch.zeros_like(values))


def structural_loss(
    features: Mapping[int, Tensor],
    target: StructuralTarget,
    weights: Mapping[int, Tensor],
) -> Tensor:
    """Return the weighted sum of squared errors of each image, (n,).

    L = Σ_layers w Σ_features m (f - Z)²

    References
    ----------
    MindDiffuser Algorithm 1, line 5 (w = 1).
    """
    total = torch.zeros_like(weights[target.layers[0]])
    for layer in target.layers:
        error = features[layer] - target.features[layer]
        error = _masked(error, target.selected[layer])
        total = total + weights[layer] * (error**2).sum(1)
    return total


def _cosine_distance(
    features: Mapping[int, Tensor], target: StructuralTarget
) -> Tensor:
    """Return 1 - cos of both sides' deviations from the training mean, (n,)."""
    distances = []
    for layer in target.layers:
        keep = target.selected[layer] & (target.scale[layer] > 0)
        mean, scale = target.mean[layer][keep], target.scale[layer][keep]
        seen = (features[layer][:, keep] - mean) / scale
        decoded = (target.features[layer][:, keep] - mean) / scale
        distances.append(1 - torch.cosine_similarity(seen, decoded, dim=1))
    return torch.stack(distances).mean(0)


@dataclass(frozen=True)
class StructuralLoss:
    """How far images are from a target, by one of five measures.

    paper, released, balanced : `structural_loss` with `layer_weights` of that name.
    cosine : 1 - cos between seen and decoded deviations from the training mean, in
        training SDs, over the selected features; mean over the layers. A decoder that
        shrinks all features alike changes nothing.
    likelihood : squared errors in the axes of the decoder's noise, each in units of its
        own SD (`Likelihood`); mean over axes, then layers. The seen image has about 1:
        below it, an image fits what the decoder got wrong. No feature is selected, as
        one that is badly decoded counts little.

    Attributes
    ----------
    target : StructuralTarget
    kind : str
        One of `Loss`.
    weights : mapping of int to Tensor
        Those of the squared errors, (n,); empty for the others.
    """

    target: StructuralTarget
    kind: Loss
    weights: Mapping[int, Tensor]

    @classmethod
    def of(cls, target: StructuralTarget, kind: Loss) -> "StructuralLoss":
        """Return the loss `kind` of a target.

        Raises
        ------
        DataError
            The target lacks what the loss reads, or as `layer_weights`.
        """
        if kind in ("paper", "released", "balanced"):
            return cls(target, kind, layer_weights(target, kind))
        needed, words = {
            "cosine": (target.mean, "the features' training means"),
            "likelihood": (target.likelihood, "noise_model.h5"),
        }[kind]
        if not needed:
            raise DataError(
                f"The loss {kind} needs {words}, which notebook 02 writes but which"
                " was not found: run notebook 02 again."
            )
        return cls(target, kind, {})

    def rows(self, rows: Tensor | list[int]) -> "StructuralLoss":
        """Return the loss of some of the images."""
        weights = {layer: w[rows] for layer, w in self.weights.items()}
        return replace(self, target=self.target.rows(rows), weights=weights)

    def __call__(self, features: Mapping[int, Tensor]) -> Tensor:
        """Return the loss of each image's CLIP features by layer, (n,)."""
        if self.kind == "cosine":
            return _cosine_distance(features, self.target)
        if self.kind == "likelihood":
            known = self.target.likelihood
            losses = [known[k].loss(features[k]) for k in self.target.layers]
            return torch.stack(losses).mean(0)
        return structural_loss(features, self.target, self.weights)
