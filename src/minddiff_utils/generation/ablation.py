"""What each part of the method is worth: features, CLIP blocks, iterations, k.

Every combination of c, z and Z_CLIP, and the numbers that the paper fixes, on the first
images of each subject. Features and blocks are varied in the `guided` engine, whose
cost allows eight cells; iterations in the loop of the profile's preset. Not here:
scores. Place in the flow: layer 8, notebooks 03 and 04.

The cells without Z_CLIP are stages 1: c without z starts from pure noise, z without c
is denoised under the empty caption. The cells with Z_CLIP are the same, guided.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from minddiff_utils.core.config import Profile, Stage2Config
from minddiff_utils.core.run import Run
from minddiff_utils.decoding import select_best
from minddiff_utils.generation.diffusion import DiffusionSettings
from minddiff_utils.generation.reconstruction import (
    Aligned,
    DecodedFeatures,
    Made,
    align_images,
    from_noise,
    stage1_images,
    with_preset,
)
from minddiff_utils.models import Backbone

__all__ = [
    "FACTORIAL",
    "ablation_images",
    "ablation_methods",
    "cells_without_clip",
    "iteration_name",
    "k_name",
    "layers_name",
    "shorter",
    "with_k",
]

#: Method -> which of c, z and Z_CLIP it has: the full factorial.
FACTORIAL: Mapping[str, tuple[bool, bool, bool]] = {
    "none": (False, False, False),
    "c_only": (True, False, False),
    "z_null": (False, True, False),
    "stage1": (True, True, False),
    "clip_only": (False, False, True),
    "c_clip": (True, False, True),
    "z_clip": (False, True, True),
    "stage2_guided": (True, True, True),
}


def layers_name(layers: Sequence[int]) -> str:
    """Return the method's name for some CLIP blocks.

    >>> layers_name((1, 2))
    'guided_layers_1_2'
    """
    return "guided_layers_" + "_".join(map(str, layers))


def iteration_name(n_iter: int) -> str:
    """Return the method's name for some iterations of the loop.

    >>> iteration_name(4)
    'stage2_iter_4'
    """
    return f"stage2_iter_{n_iter}"


def k_name(k_percent: float) -> str:
    """Return the method's name for some k.

    >>> k_name(5.0), k_name(12.5)
    ('guided_k5', 'guided_k12.5')
    """
    return f"guided_k{k_percent:g}"


def ablation_methods(profile: Profile) -> dict[str, str]:
    """Return the ablation's methods that no other table has, in words."""
    wanted = profile.ablation
    words = {
        "none": "no feature: the generator alone",
        "z_null": "decoded z, denoised under the empty caption",
        "clip_only": "decoded Z_CLIP alone, guided from noise",
        "c_clip": "decoded c and Z_CLIP, guided from noise",
        "z_clip": "decoded z and Z_CLIP, guided under the empty caption",
    }
    for layers in wanted.layers:
        shown = ", ".join(map(str, layers))
        words[layers_name(layers)] = f"guided, CLIP blocks {shown}"
    for k in wanted.k_grid:
        words[k_name(k)] = f"guided, k = {k:g} %"
    for n_iter in wanted.iterations:
        words[iteration_name(n_iter)] = f"{profile.stage2.preset}, {n_iter} iterations"
    return words


def cells_without_clip(
    run: Run, backbone: Backbone, decoded: DecodedFeatures
) -> dict[str, Made]:
    """Return the cells of the factorial that notebook 03 does not make anyway."""
    first = _first(run, decoded)
    nothing = first.without_c(backbone)
    return {
        "none": stage1_images(run, backbone, nothing, use_z=False),
        "z_null": stage1_images(run, backbone, nothing),
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
        By method.
    """
    first = _first(run, decoded)
    wanted, stage2 = run.profile.ablation, run.profile.stage2
    guided = with_preset(stage2, "guided")
    noise = from_noise(diffusion)
    cells = {
        "clip_only": (first.without_c(backbone).without_z(), noise),
        "c_clip": (first.without_z(), noise),
        "z_clip": (first.without_c(backbone), diffusion),
    }
    cells |= {k_name(k): (with_k(first, r_cv, k), diffusion) for k in wanted.k_grid}
    made = {
        name: align_images(run, backbone, features, guided, diffusion=sampler)
        for name, (features, sampler) in cells.items()
    }
    settings = {
        layers_name(layers): guided.model_copy(update={"layers_fast": layers})
        for layers in wanted.layers
    }
    settings |= {iteration_name(n): shorter(stage2, n) for n in wanted.iterations}
    return made | {
        name: align_images(run, backbone, first, config)
        for name, config in settings.items()
    }


def shorter(config: Stage2Config, n_iter: int) -> Stage2Config:
    """Return the loop with `n_iter` iterations, of which the last image counts."""
    fewer = {"n_iter": n_iter, "n_iter_fast": None, "n_candidates": 2}
    return config.model_copy(update={**fewer, "n_candidates_fast": None})
