"""What each part of the method is worth: features, CLIP blocks, iterations, k.

Every combination of c, z and Z_CLIP, and the numbers that the paper fixes, on the first
images of each subject. Features and blocks are varied in the `guided` engine, whose
cost allows eight cells; iterations in the loop of the profile's preset. Not here:
scores.

The cells without Z_CLIP are stages 1: c without z starts from pure noise, z without c
is denoised under the empty caption. The cells with Z_CLIP are the same, guided.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from minddiff_utils.core.conditions import ablation_conditions
from minddiff_utils.core.run import Run
from minddiff_utils.decoding.feature_selection import select_best
from minddiff_utils.generation.diffusion import DiffusionSettings
from minddiff_utils.generation.reconstruction import (
    Aligned,
    DecodedFeatures,
    Made,
    align_images,
    config_of,
    sampler_of,
    stage1_images,
)
from minddiff_utils.models import Backbone

__all__ = ["ablation_images", "cells_without_clip", "with_k"]


def cells_without_clip(
    run: Run, backbone: Backbone, decoded: DecodedFeatures
) -> dict[str, Made]:
    """Return the cells of the factorial that notebook 03 does not make anyway."""
    first = _first(run, decoded)
    nothing = first.without_c(backbone)
    return {
        row.name: stage1_images(
            run,
            backbone,
            nothing if row.c is None else first,
            use_z=row.z is not None,
        )
        for row in ablation_conditions(run.profile)
        if row.clip is None
    }


def _first(run: Run, decoded: DecodedFeatures) -> DecodedFeatures:
    n = min(run.profile.ablation.n_images, len(decoded.nsd_id))
    return decoded.rows(range(n))


def with_k(
    features: DecodedFeatures,
    r_cv: Mapping[int, npt.NDArray[np.floating]],
    k_percent: float,
) -> DecodedFeatures:
    """Return the features with the k % best decodable of each CLIP block in the loss.

    Parameters
    ----------
    r_cv : mapping of (n_targets,)
        Cross-validated correlation on training images, by block.
    """
    target = features.target
    selected = {
        layer: torch.from_numpy(select_best(r_cv[layer], k_percent)).to(mask.device)
        for layer, mask in target.selected.items()
    }
    return replace(features, target=replace(target, selected=selected))


def ablation_images(
    run: Run,
    backbone: Backbone,
    decoded: DecodedFeatures,
    r_cv: Mapping[int, npt.NDArray[np.floating]],
    diffusion: DiffusionSettings,
) -> dict[str, Aligned]:
    """Return the images of every ablated condition that has a structural loss.

    Parameters
    ----------
    decoded : DecodedFeatures
        Of all images to reconstruct; the first `ablation.n_images` are used.
    r_cv : mapping of (n_targets,)
        As for `with_k`.
    diffusion : DiffusionSettings
        Stage 1's sampler.

    Returns
    -------
    dict of Aligned
        By condition, in the order of `stage2.csv`: cells, k, blocks, iterations.
    """
    first, profile = _first(run, decoded), run.profile
    rows = [row for row in ablation_conditions(profile) if row.clip is not None]
    rows.sort(key=lambda row: (row.n_iter is not None, row.layers is not None))
    made = {}
    for row in rows:
        features = first if row.c is not None else first.without_c(backbone)
        if row.z is None:
            features = features.without_z()
        if row.k_percent is not None:
            features = with_k(features, r_cv, row.k_percent)
        config = config_of(row, profile.stage2)
        sampler = sampler_of(row, diffusion, profile.rivals)
        made[row.name] = align_images(
            run, backbone, features, config, diffusion=sampler
        )
    return made
