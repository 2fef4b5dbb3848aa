"""Stage 2: gradient steps on z and c until the image shows the decoded structure.

Latent → generator → encoder → critic: the latent (z, c, noise) becomes an image through
the sampler of stage 1 and the autoencoder, the image becomes CLIP features, and the
critic (`critic`) compares them with the features decoded from the brain; the gradient
goes all the way back. Images share a batch, never a number: each has its own loss, its
own noise, its own stop and its own best iterate. It reads no files. Place in the flow:
layer 8, after stage 1. The other engine, which steers the sampling itself, is
`guidance`.

Three presets. `paper` is Algorithm 1: plain gradient steps on z and c through the
complete sampler. `released` is what the published code does: Adam on z alone, decaying,
with fresh noise in every iteration and layer weights. `fast` is ours: the loop of
Algorithm 1 through a short surrogate of the sampler, Adam, an anchor on c, a stop, and
the final image always by the complete sampler.

`settings` says how, `engine` is the graph from latent to loss, `progress` what a run
remembers; the loop is here.

Notation: z, c, ε as in `diffusion`; η = step size.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.places import read_environment
from minddiff_utils.generation.alignment.engine import anchor, make_engine, surrogate
from minddiff_utils.generation.alignment.progress import Progress
from minddiff_utils.generation.alignment.settings import (
    AlignmentResult,
    AlignmentSettings,
    Keeper,
    Latent,
    preset,
)
from minddiff_utils.generation.critic import StructuralTarget, discrepancy
from minddiff_utils.generation.diffusion import DiffusionSettings, draw_noise
from minddiff_utils.models import Backbone

__all__ = [
    "AlignmentResult",
    "AlignmentSettings",
    "Keeper",
    "Latent",
    "align",
    "joined",
    "preset",
    "surrogate",
]

LOG = logging.getLogger(__name__)


def align(
    backbone: Backbone,
    latent: Latent,
    target: StructuralTarget,
    diffusion: DiffusionSettings,
    settings: AlignmentSettings,
    *,
    generators: Sequence[torch.Generator] = (),
    keeper: Keeper | None = None,
) -> AlignmentResult:
    """Align n images with their decoded structure.

    An image whose loss is no longer a number stops where its best iterate is; a warning
    says which one, and the others go on.

    Parameters
    ----------
    latent : Latent
        What stage 1 started from; zero iterations give stage 1's images to the byte.
    target : StructuralTarget
        Decoded CLIP features.
    diffusion : DiffusionSettings
        Stage 1's complete sampler.
    settings : AlignmentSettings
        From `preset`.
    generators : sequence of torch.Generator
        One per image, after its first noise was drawn; only for fresh noise.
    keeper : Keeper, optional
        Keeps the state every so often, and gives back the one to go on from. The rest
        of the run is the same, to the byte.

    Raises
    ------
    ConfigError
        c is to move, but the sampler's guidance of 0 does not read it.
    DataError
        Fresh noise without one generator per image, latents and targets of another
        number of images, or a stop at a discrepancy level that is not known.
    ModelError
        The gradient does not reach z or c.

    References
    ----------
    MindDiffuser Algorithm 1. The rule for the chosen image is ours, the paper has none:
    the lowest structural loss of the complete sampler's image among iteration 0 and
    `n_candidates` evenly spaced iterations.
    """
    engine = make_engine(backbone, target, diffusion, settings)
    if target.n_images != len(latent.z):
        raise DataError(
            f"There are {len(latent.z)} latents but targets of {target.n_images}"
            " images: pass the same images."
        )
    if settings.noise == "fresh" and len(generators) != len(latent.z):
        raise DataError(
            f"Fresh noise needs one generator per image: {len(generators)} were given"
            f" for {len(latent.z)} images."
        )
    names = latent.names or range(len(latent.z))
    check_shape((len(names),), (len(latent.z),), "names")
    progress = Progress(engine, latent)
    state = keeper.load() if keeper is not None else None
    if state is not None:
        progress.restore(state, generators)
    _optimise(progress, generators, names, keeper)
    return _result(progress)


def joined(parts: Sequence[AlignmentResult]) -> AlignmentResult:
    """Return the results of several calls under the same settings as one."""
    if len(parts) == 1:
        return parts[0]
    tensors = ("images", "trajectory", "z", "c")
    arrays = (
        *("losses", "candidate_losses", "best_iteration", "stopped", "diverged"),
        *("n_unet_evaluations", "n_unet_gradients"),
    )
    found: dict[str, Any] = {
        name: torch.cat([getattr(part, name) for part in parts]) for name in tensors
    }
    found |= {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays
    }
    seconds = np.sum([part.seconds for part in parts], axis=0)
    return replace(parts[0], seconds=seconds, **found)


def _optimise(
    run: Progress,
    generators: Sequence[torch.Generator],
    names: Sequence[object],
    keeper: Keeper | None,
) -> None:
    """Take all steps that are left."""
    settings, began = run.engine.settings, time.perf_counter()
    level = None
    if settings.stop_level > 0:
        level = settings.stop_level * discrepancy(run.engine.target, settings.critic)
    spent = float(run.seconds[run.iteration - 1]) if run.iteration else 0.0
    label = f"stage 2, images {names[0]} to {names[-1]}"
    steps = range(run.iteration, settings.n_iter + 1)
    # a bar is for who looks on; in the kept copy of a notebook it is a heap of lines
    is_kept = read_environment().journal is not None
    bar = tqdm(steps, desc=label, leave=False, mininterval=2.0, disable=is_kept)
    for iteration in bar:
        run.iteration = iteration
        if keeper is not None and iteration % keeper.every == 0 and iteration:
            keeper.save(run.state(generators))
        # 1. candidates come from the complete sampler, under the noise of stage 1
        if iteration in run.candidates[1:]:
            run.consider()
        _iterate(run, generators, names, level)
        run.show()
        run.seconds[iteration] = spent + time.perf_counter() - began
        loss = float(run.losses[:, iteration].nanmean())
        bar.set_postfix(loss=f"{loss:.4g}", moving=int(run.active.sum()))


def _iterate(
    run: Progress,
    generators: Sequence[torch.Generator],
    names: Sequence[object],
    level: Tensor | None,
) -> None:
    """Look at the present iterates and take a step from them."""
    settings, last = run.engine.settings, run.iteration == run.engine.settings.n_iter
    noise = run.start.noise
    if settings.noise == "fresh" and run.iteration > 0:
        noise = draw_noise(run.engine.backbone, generators)
    rows = run.rows
    if not len(rows):
        return
    # 2. latent → generator → encoder → critic
    with torch.set_grad_enabled(not last):
        part = run.latent(rows)
        now = Latent(part.z, part.c, noise[rows])
        images = run.engine.imagine(now)
        loss = run.engine.loss_of(images, rows)
        objective = loss + settings.anchor_c * anchor(now.c, run.start.c[rows])
    run.see(rows, images, loss)
    for row in rows[~run.active[rows]].tolist():
        LOG.warning(
            "image %s: the loss is no longer a number after iteration %d; it keeps its"
            " best iterate until there",
            names[row],
            run.iteration,
        )
    run.stop(level)
    # 3. a gradient step on z and c (Algorithm 1, lines 6 and 7)
    moving = run.active[rows]
    if not last and bool(moving.any()) and run.variables.moving:
        run.variables.move(objective[moving].sum(), loss[moving], run.active)
        run.moved |= run.active
        run.steps[run.rows.cpu()] += 1


def _result(run: Progress) -> AlignmentResult:
    full, short = run.engine.full, run.engine.short
    looking = run.looks * short.n_unet_evaluations
    gradients = run.steps * short.n_unet_gradients
    evaluations = looking + run.finishes * full.n_unet_evaluations
    return AlignmentResult(
        images=run.best.images,
        losses=run.losses.numpy(),
        candidates=run.candidates,
        candidate_losses=run.candidate_losses.numpy(),
        best_iteration=run.best.iteration.numpy(),
        stopped=run.stopped.numpy(),
        diverged=run.diverged.numpy(),
        trajectory=run.frames,
        trajectory_iterations=run.shown,
        z=run.best.z,
        c=run.best.c,
        seconds=run.seconds.numpy(),
        n_unet_evaluations=evaluations.numpy(),
        n_unet_gradients=gradients.numpy(),
    )
