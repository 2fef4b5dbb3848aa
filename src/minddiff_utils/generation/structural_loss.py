"""The structural loss: how far an image's CLIP features are from the decoded ones.

The paper's sum of squared errors, the released code's weighted and masked form, and a
balanced one; and the level that even the true image would reach. It knows no sampler
and no optimiser.

Notation: Z = decoded CLIP features, m = mask of selected features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from minddiff_utils.core.errors import DataError, check_finite, check_shape

__all__ = [
    "Loss",
    "StructuralTarget",
    "discrepancy",
    "layer_weights",
    "structural_loss",
]

#: Weights of blocks 1 to 6 in the released code (`Reconstruction.py`, MSE_CLIP_mask).
RELEASED_LAYER_WEIGHTS = (1.5, 1.2, 1.0, 1.0, 1.0, 1.0)

#: How the blocks of CLIP are weighed, see `layer_weights`.
Loss = Literal["paper", "released", "balanced"]


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
    residual : mapping of int to Tensor
        Layer to the mean squared error of each feature's out-of-fold decodings on
        training images, (n_features,); empty where not known.
    """

    features: Mapping[int, Tensor]
    selected: Mapping[int, Tensor]
    scale: Mapping[int, Tensor]
    residual: Mapping[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        layers = set(self.features)
        if not layers or layers != set(self.selected) or layers != set(self.scale):
            raise DataError(
                "features, selected and scale must name the same layers, at least one,"
                f" but name {sorted(layers)}, {sorted(self.selected)} and"
                f" {sorted(self.scale)}."
            )
        if self.residual and layers != set(self.residual):
            raise DataError(
                f"residual names the layers {sorted(self.residual)}, but must name all"
                f" of {sorted(layers)} or none."
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
        if self.residual:
            residual = self.residual[layer]
            check_shape(tuple(residual.shape), width, f"residual of layer {layer}")
        if mask.dtype != torch.bool:
            raise DataError(
                f"selected of layer {layer} is {mask.dtype}, but must be bool."
            )
        finite = bool(features[:, mask].isfinite().all())
        check_finite(finite, f"Z of layer {layer}, where selected,")
        if self.residual:
            finite = bool(self.residual[layer][mask].isfinite().all())
            check_finite(finite, f"residual of layer {layer}, where selected,")

    @property
    def n_images(self) -> int:
        """Return the number of images."""
        return len(self.features[self.layers[0]])

    def rows(self, rows: Tensor | list[int]) -> "StructuralTarget":
        """Return the target of some of the images."""
        features = {layer: values[rows] for layer, values in self.features.items()}
        return replace(self, features=features)

    @property
    def _parts(self) -> tuple[Mapping[int, Tensor], ...]:
        return (self.features, self.selected, self.scale, self.residual)

    def of_layers(self, layers: Sequence[int]) -> "StructuralTarget":
        """Return the target of some of the layers."""
        parts = ({k: part[k] for k in layers if k in part} for part in self._parts)
        return StructuralTarget(*parts)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Return all that a loss can depend on."""
        layers = self.layers
        return tuple(part[k] for part in self._parts for k in layers if k in part)

    @property
    def layers(self) -> tuple[int, ...]:
        """Return the layers in ascending order."""
        return tuple(sorted(self.features))


def layer_weights(target: StructuralTarget, kind: Loss) -> dict[int, Tensor]:
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


def discrepancy(target: StructuralTarget, kind: Loss) -> Tensor:
    """Return the loss that the seen image itself is expected to have, per image, (n,).

    The decoder's out-of-fold errors on training images, weighted as the loss weighs
    them: below it, an image fits what the decoder got wrong.

    Raises
    ------
    DataError
        The target does not know these errors.

    References
    ----------
    Morozov (1966), the discrepancy principle.
    """
    if not target.residual:
        raise DataError(
            "decoded.h5 does not hold the decoder's out-of-fold errors, which the stop"
            " at the discrepancy level needs: run notebook 02 again."
        )
    weights = layer_weights(target, kind)
    total = torch.zeros_like(weights[target.layers[0]])
    for layer in target.layers:
        errors = target.residual[layer][target.selected[layer]].to(total)
        total = total + weights[layer] * errors.sum()
    return total
