"""Stage 2: gradient steps on z and c until the image shows the decoded structure.

Latent → generator → encoder → loss: the latent (z, c, noise) becomes an image through
the sampler of stage 1 and the autoencoder, the image becomes CLIP features, and the
structural loss compares them with the features decoded from the brain; the gradient
goes all the way back. Images share a batch, never a number: each has its own loss, its
own noise and its own best iterate. It reads no files. The other engine, which steers
the sampling itself, is `guided_sampling`; the settings are in `presets`.

Notation: z, c, ε as in `sampler`; η = step size.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from minddiff_utils.core.errors import DataError, check_shape
from minddiff_utils.core.places import read_environment
from minddiff_utils.core.profile import Stage1Config
from minddiff_utils.generation.alignment_state import (
    Latent,
    Progress,
    State,
    make_objective,
)
from minddiff_utils.generation.presets import AlignmentSettings
from minddiff_utils.generation.sampler import draw_noise
from minddiff_utils.generation.structural_loss import StructuralTarget
from minddiff_utils.models import Backbone

__all__ = [
    "AlignmentResult",
    "Latent",
    "StateStore",
    "align",
    "joined",
]

LOG = logging.getLogger(__name__)
#: Iterations between two states that are kept; a state of the demo takes 10 ms.
KEEP_EVERY = 25


class StateStore(Protocol):
    """Where the state of a run is kept, so that it can go on where it was cut off."""

    def read(self) -> State | None:
        """Return the last state written, None where there is none."""

    def write(self, state: State) -> None:
        """Keep a state, arrays by name, in the place of the one before."""


@dataclass(frozen=True)
class AlignmentResult:
    """What stage 2 found, for n images.

    Attributes
    ----------
    images : Tensor
        Chosen images (n, 3, S, S) in [-1, 1].
    losses : ndarray
        Structural loss that the optimiser saw, (n, n_iter + 1); NaN after an image's
        last step.
    candidates : tuple of int
        Iterations whose images are candidates; 0 is stage 1. An image that has stopped
        shows its last iterate at the later ones.
    candidate_losses : ndarray
        Structural loss of those images, clipped to [-1, 1], (n, number of candidates).
    best_iteration : ndarray
        The chosen candidate of each image: that of the lowest loss, the earlier one on
        a tie; one without a number (the steps diverged) is never chosen over one with.
    stopped : ndarray
        Steps that each image took, (n,); below n_iter where it diverged.
    diverged : ndarray
        Whether its loss lost its number, which ended its steps, bool (n,).
    trajectory : Tensor
        Images along the way, as the optimiser saw them, (n, n_trajectory, 3, S, S).
    trajectory_iterations : tuple of int
        Their iterations.
    z, c : Tensor
        Latents and text of the chosen iterate.
    seconds : ndarray
        Wall time at the end of each iteration, for the whole batch, (n_iter + 1,).
    n_unet_evaluations : ndarray
        U-Net forward passes of each image, optimisation and candidates together, (n,);
        those of stage 1's image count, whoever made it.
    n_unet_gradients : ndarray
        U-Net backward passes of each image, (n,).
    """

    images: Tensor
    losses: npt.NDArray[np.float32]
    candidates: tuple[int, ...]
    candidate_losses: npt.NDArray[np.float32]
    best_iteration: npt.NDArray[np.int64]
    stopped: npt.NDArray[np.int64]
    diverged: npt.NDArray[np.bool_]
    trajectory: Tensor
    trajectory_iterations: tuple[int, ...]
    z: Tensor
    c: Tensor
    seconds: npt.NDArray[np.float64]
    n_unet_evaluations: npt.NDArray[np.int64]
    n_unet_gradients: npt.NDArray[np.int64]


#: Arrays of `AlignmentResult` with a row per image.
PER_IMAGE = (
    *("losses", "candidate_losses", "best_iteration", "stopped", "diverged"),
    *("n_unet_evaluations", "n_unet_gradients"),
)


def align(
    backbone: Backbone,
    latent: Latent,
    target: StructuralTarget,
    diffusion: Stage1Config,
    settings: AlignmentSettings,
    *,
    generators: Sequence[torch.Generator] = (),
    state: StateStore | None = None,
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
    diffusion : Stage1Config
        Stage 1's complete sampler.
    settings : AlignmentSettings
        From `preset`.
    generators : sequence of torch.Generator
        One per image, after its first noise was drawn; only for fresh noise.
    state : StateStore, optional
        Keeps the state every `KEEP_EVERY` iterations, and gives back the one to go on
        from. The rest of the run is the same, to the byte.

    Raises
    ------
    ConfigError
        c is to move, but the sampler's guidance of 0 does not read it.
    DataError
        Fresh noise without one generator per image, or latents and targets of another
        number of images.
    ModelError
        The gradient does not reach z or c.

    References
    ----------
    MindDiffuser Algorithm 1. The rule for the chosen image is ours, the paper has none:
    the lowest structural loss among iteration 0 and `n_candidates` evenly spaced
    iterations, under the noise of stage 1.
    """
    objective = make_objective(backbone, target, diffusion, settings)
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
    progress = Progress(objective, latent)
    kept = state.read() if state is not None else None
    if kept is not None:
        progress.restore(kept, generators)
    _optimise(progress, generators, names, state)
    return _result(progress)


def joined(parts: Sequence[AlignmentResult]) -> AlignmentResult:
    """Return the results of several calls under the same settings as one."""
    if len(parts) == 1:
        return parts[0]
    fields: dict[str, Any] = {}
    for name in ("images", "trajectory", "z", "c"):
        fields[name] = torch.cat([getattr(part, name) for part in parts])
    for name in PER_IMAGE:
        fields[name] = np.concatenate([getattr(part, name) for part in parts])
    fields["seconds"] = np.sum([part.seconds for part in parts], axis=0)
    return replace(parts[0], **fields)


def _optimise(
    run: Progress,
    generators: Sequence[torch.Generator],
    names: Sequence[object],
    state: StateStore | None,
) -> None:
    """Take all steps that are left."""
    settings, began = run.objective.settings, time.perf_counter()
    spent = float(run.seconds[run.iteration - 1]) if run.iteration else 0.0
    label = f"stage 2, images {names[0]} to {names[-1]}"
    steps = range(run.iteration, settings.n_iter + 1)
    # a bar is for who looks on; in the kept copy of a notebook it is a heap of lines
    is_kept = read_environment().journal is not None
    bar = tqdm(steps, desc=label, leave=False, mininterval=2.0, disable=is_kept)
    for iteration in bar:
        run.iteration = iteration
        if state is not None and iteration % KEEP_EVERY == 0 and iteration:
            state.write(run.state(generators))
        # 1. candidates are made under the noise of stage 1
        if iteration in run.candidates[1:]:
            run.consider()
        _iterate(run, generators, names)
        run.show()
        run.seconds[iteration] = spent + time.perf_counter() - began
        loss = float(run.losses[:, iteration].nanmean())
        bar.set_postfix(loss=f"{loss:.4g}", moving=int(run.active.sum()))


def _iterate(
    run: Progress,
    generators: Sequence[torch.Generator],
    names: Sequence[object],
) -> None:
    """Look at the present iterates and take a step from them."""
    settings, last = (
        run.objective.settings,
        run.iteration == run.objective.settings.n_iter,
    )
    noise = run.start.noise
    if settings.noise == "fresh" and run.iteration > 0:
        noise = draw_noise(run.objective.backbone, generators)
    rows = run.rows
    if not len(rows):
        return
    # 2. latent → generator → encoder → loss
    with torch.set_grad_enabled(not last):
        part = run.latent(rows)
        now = Latent(part.z, part.c, noise[rows])
        images = run.objective.imagine(now)
        loss = run.objective.loss_of(images, rows)
    run.see(rows, images, loss)
    for row in rows[~run.active[rows]].tolist():
        LOG.warning(
            "image %s: the loss is no longer a number after iteration %d; it keeps its"
            " best iterate until there",
            names[row],
            run.iteration,
        )
    # 3. a gradient step on z and c (Algorithm 1, lines 6 and 7)
    moving = run.active[rows]
    if not last and bool(moving.any()) and run.variables.moving:
        run.variables.move(loss[moving], run.active)
        run.moved |= run.active
        run.steps[run.rows.cpu()] += 1


def _result(run: Progress) -> AlignmentResult:
    each = run.objective.schedule.n_unet_evaluations
    gradients = run.steps * each
    evaluations = (run.looks + run.finishes) * each
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
