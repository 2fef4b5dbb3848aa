"""The images of an arm: made once, kept batch by batch as those of the notebooks are.

Place in the flow: between `arms` and `scores`.
"""

import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from minddiff_utils.core.config import Profile
from minddiff_utils.core.run import Run
from minddiff_utils.generation.alignment import AlignmentResult
from minddiff_utils.generation.checkpoints import checkpoint_of, subject_of
from minddiff_utils.generation.decoded_features import DecodedFeatures, read_decoded
from minddiff_utils.generation.generate import (
    States,
    align_batch,
    finished_images,
    noise_generators,
)
from minddiff_utils.generation.sampler import draw_noise, make_schedule, sample
from minddiff_utils.generation.structural_loss import (
    StructuralTarget,
    layer_weights,
    structural_loss,
)
from minddiff_utils.models import Backbone
from minddiff_utils.studies.study.arms import Arm, Part

__all__ = [
    "balanced_loss",
    "best_of",
    "decoder_path",
    "images_of",
    "make",
    "n_images_of",
]

LOG = logging.getLogger(__name__)

#: The validation images of notebook 02 and the test images, by part.
_DECODED = {"pilot": "decoded_validation.h5", "confirmation": "decoded.h5"}


def decoder_path(run: Run, part: Part) -> Path:
    """Return the file of decoded features that a part of the study starts from."""
    return run.tree.derived(subject_of(run)) / _DECODED[part]


def make(
    run: Run,
    backbone: Backbone,
    features: DecodedFeatures,
    arm: Arm,
    *,
    states: States | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """Return images and cost of one arm for one batch; `states` as in `align_batch`.

    Images without a number (`generate.finished_images`) are left out.
    """
    began = time.perf_counter()
    if arm.layers is not None:
        features = features.with_layers(arm.layers)
    if arm.settings is None:
        made = best_of(run, backbone, features, arm.n_draws)
    else:
        result = align_batch(run, backbone, features, arm.settings, states=states)
        made = _arrays_of(result)
    n, x = len(features.nsd_id), made.pop("images")
    seconds = np.full(n, (time.perf_counter() - began) / n)
    images, finished = finished_images(backbone, x, features.nsd_id.tolist())
    rows = {"nsd_id": features.nsd_id, "images": images, "seconds": seconds, **made}
    return {key: values[finished] for key, values in rows.items()}


def _arrays_of(result: AlignmentResult) -> dict[str, Any]:
    return {
        "images": result.images,
        "n_unet_evaluations": result.n_unet_evaluations,
        "n_unet_gradients": result.n_unet_gradients,
        "steps": result.stopped,
        "diverged": result.diverged,
    }


def best_of(
    run: Run, backbone: Backbone, features: DecodedFeatures, n_draws: int
) -> dict[str, Any]:
    """Return the stage-1 image of the lowest loss among `n_draws`.

    The draws go on in each image's own stream: more of them change no earlier one.
    """
    schedule = make_schedule(backbone, run.profile.stage1)
    generators = noise_generators(run, features.nsd_id.tolist())
    best: Tensor | None = None
    lowest = torch.full((len(features.nsd_id),), torch.inf)
    for _ in range(n_draws):
        noise = draw_noise(backbone, generators)
        images = sample(backbone, features.z, features.c, noise, schedule)
        loss = balanced_loss(backbone, images, features.target)
        best = images if best is None else best
        better = (loss < lowest) | lowest.isinf()  # a draw may have no number
        chosen = better.to(images.device)[:, None, None, None]
        best = torch.where(chosen, images, best)
        lowest = torch.where(loss < lowest, loss, lowest)
    assert best is not None
    n = len(lowest)
    return {
        "images": best,
        "n_unet_evaluations": np.full(n, n_draws * schedule.n_unet_evaluations),
        "n_unet_gradients": np.zeros(n, np.int64),
        "steps": np.zeros(n, np.int64),
        "diverged": np.zeros(n, bool),
    }


@torch.no_grad()
def balanced_loss(
    backbone: Backbone, images: Tensor, target: StructuralTarget
) -> Tensor:
    """Return the balanced structural loss of images (n, 3, S, S), (n,)."""
    features = backbone.clip_layers(images, target.layers)
    return structural_loss(features, target, layer_weights(target, "balanced")).cpu()


def images_of(
    run: Run, backbone: Backbone, part: Part, arm: Arm
) -> dict[str, npt.NDArray[Any]]:
    """Return what an arm made, batch by batch, from an earlier run's file if whole."""
    n = n_images_of(run.profile, part)
    layers = run.profile.features.clip_layers
    features = read_decoded(
        decoder_path(run, part), backbone, layers, n=n, source=arm.source
    )
    words = f"{arm!r} {run.profile.stage1!r}"
    parts = []
    for rows in run.batches(len(features.nsd_id)):
        own = features.rows(rows)
        checkpoint = checkpoint_of(
            run, own.nsd_id.tolist(), make, settings=words, tensors=own.tensors
        )
        parts.append(
            checkpoint.made_once(
                partial(make, run, backbone, own, arm, states=checkpoint)
            )
        )
    made = {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}
    lost = sorted({*features.nsd_id.tolist()} - {*made["nsd_id"].tolist()})
    if lost:
        LOG.warning(
            "subject %d, %s: the U-Net in %s gave no number for the images %s, which"
            " are left out; to have them, set models.dtype to float32",
            *(run.subject, arm.name, run.profile.models.dtype, lost),
        )
    return made


def n_images_of(profile: Profile, part: Part) -> int:
    """Return how many images of each subject a part of the study makes."""
    study = profile.study
    return study.n_images_pilot if part == "pilot" else study.n_images
