"""Batches that are done stay done: each is written when it is made, and found again.

A run of thousands of images is cut off sooner or later. Here every batch of every
condition has a file of its own, named after all that can change it: features, settings,
models, seeds, and the code that makes these images, whichever notebook asks for them. A
second run reads it, so that neither a kill nor another word in a table makes an image
again. Nothing here deletes a batch: what other code made waits until that code is back.
The folder `batches` of a subject may be deleted at any time; it costs the time to make
them.

Place in the flow: layer 7, beside both engines of stage 2; `reconstruction` calls it.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from minddiff_utils.core import provenance, rng, store
from minddiff_utils.core.errors import ConfigError
from minddiff_utils.core.images import to_uint8
from minddiff_utils.core.run import Run, network_files
from minddiff_utils.generation.alignment import AlignmentResult, Keeper
from minddiff_utils.models import Backbone, load_backbone

__all__ = ["Batch", "Recipe", "finished_images", "made_once", "subject_of"]

LOG = logging.getLogger(__name__)

Arrays = Mapping[str, npt.NDArray[Any]]
#: Fields of the models that say where they lie and how they find room.
_PLACE = {"path", "memory", "n_at_once"}
Ids = Sequence[int]


def finished_images(
    backbone: Backbone, x: torch.Tensor, names: Ids
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Return images as uint8 (n, S, S, 3), and which of them are finished, bool (n,).

    A U-Net in half precision can leave the range of its numbers. An image without a
    number is then named, with what to do; it is grey and counts as unfinished, and the
    others go on.

    Raises
    ------
    DataError
        An image has no number although the U-Net computes in float32.
    """
    finite = x.isfinite().flatten(1).all(1)
    if backbone.precision == torch.float32 or bool(finite.all()):
        return to_uint8(x), np.ones(len(x), bool)
    kind = str(backbone.precision).removeprefix("torch.")
    for row in (~finite).nonzero()[:, 0].tolist():
        LOG.warning(
            "image %s: the U-Net in %s gave no number, so there is no image; the others"
            " go on; to have it, set models.dtype to float32 and run again",
            *(names[row], kind),
        )
    images = to_uint8(torch.where(finite[:, None, None, None], x, 0.0))
    return images, finite.cpu().numpy()


@dataclass(frozen=True)
class Batch:
    """What is kept of n images that stage 2 made together, as plain arrays.

    Attributes
    ----------
    images : uint8 (n, S, S, 3)
        The chosen images.
    finished : bool (n,)
        Whether each is an image, from `finished_images`.
    losses, candidate_losses : float32 (n, n_iter + 1), (n, n_candidates)
    candidates, iterations : int64 (n_candidates,), (n_frames,)
    best_iteration, stopped, n_unet_evaluations, n_unet_gradients : int64 (n,)
    diverged : bool (n,)
        As in `AlignmentResult`.
    frames : uint8 (n_shown, n_frames, S, S, 3)
        Images along the way, of the first n_shown images alone: those of a thousand
        images at 512 px would fill a workstation's memory.
    """

    images: npt.NDArray[np.uint8]
    finished: npt.NDArray[np.bool_]
    losses: npt.NDArray[np.float32]
    candidates: npt.NDArray[np.int64]
    candidate_losses: npt.NDArray[np.float32]
    best_iteration: npt.NDArray[np.int64]
    stopped: npt.NDArray[np.int64]
    diverged: npt.NDArray[np.bool_]
    n_unet_evaluations: npt.NDArray[np.int64]
    n_unet_gradients: npt.NDArray[np.int64]
    frames: npt.NDArray[np.uint8]
    iterations: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls, backbone: Backbone, result: AlignmentResult, names: Ids, n_shown: int
    ) -> "Batch":
        """Return what is kept of `result`, with the frames of the first `n_shown`."""
        images, finished = finished_images(backbone, result.images, names)
        shown = result.trajectory[:n_shown]  # (n_shown, n_frames, 3, S, S)
        if not finished.all():
            shown = shown.nan_to_num(nan=0.0)
        flat = to_uint8(shown.reshape(-1, *shown.shape[2:]))
        return cls(
            images=images,
            finished=finished,
            losses=result.losses,
            candidates=np.array(result.candidates, dtype=np.int64),
            candidate_losses=result.candidate_losses,
            best_iteration=result.best_iteration,
            stopped=result.stopped,
            diverged=result.diverged,
            n_unet_evaluations=result.n_unet_evaluations,
            n_unet_gradients=result.n_unet_gradients,
            frames=flat.reshape(*shown.shape[:2], *flat.shape[1:]),
            iterations=np.array(result.trajectory_iterations, dtype=np.int64),
        )

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return all fields by name."""
        return {name: np.asarray(value) for name, value in vars(self).items()}


#: Folder of the states of batches that are being made.
_UNFINISHED = "unfinished"
#: Iterations between two states that are kept; a state of the demo takes 10 ms.
_KEEP_EVERY = 25
#: Makes the networks and the noise, which reach the functions as arguments.
_MODELS = (load_backbone, rng.torch_stream)
#: Hand on what a recipe states by its value, and keep the files.
_CARRIES = tuple(
    f"minddiff_utils.core.{name}"
    for name in (
        *("config", "errors", "locks", "places", "profile_files", "profile_parts"),
        *("provenance", "reach", "run", "signature", "store", "syntax"),
    )
)


@cache
def _weights(models: Path, backbone: str) -> dict[str, str]:
    """Return the digests of the networks' files: a copy of them is the same network."""
    files = network_files(models, backbone)
    return {str(p.relative_to(models)): provenance.digest_file(p) for p in files}


@dataclass(frozen=True)
class Recipe:
    """All that can change a batch's images.

    Attributes
    ----------
    nsd_id : tuple of int
        The images; with the profile's seed and the subject they give the noise.
    settings : str
        Of sampler and engine, as their `repr` shows them, and what is kept.
    tensors : sequence of Tensor
        The decoded features, masks and scales.
    make : callable
        The function that makes the images: what it reaches is the code that counts.
    """

    nsd_id: tuple[int, ...]
    settings: str
    tensors: Sequence[torch.Tensor]
    make: Callable[..., Arrays]

    def facts(self, run: Run) -> dict[str, Any]:
        """Return what stands in the place of profile and code in the file's key."""
        digest = hashlib.sha256()
        for tensor in self.tensors:
            digest.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
            digest.update(tensor.float().cpu().numpy().tobytes())
        return {
            "models": run.profile.models.model_dump(mode="json", exclude=_PLACE),
            "weights": _weights(run.tree.models, run.profile.models.backbone),
            "seed": run.profile.seed,
            "subject": subject_of(run),
            "nsd_id": list(self.nsd_id),
            "settings": self.settings,
            "features": digest.hexdigest(),
            "code": provenance.digest_of(*_MODELS, self.make, without=_CARRIES),
        }

    def path(self, run: Run, folder: str) -> Path:
        """Return the file in `folder` of the subject, named after all facts."""
        name = f"{self.nsd_id[0]}_{provenance.digest_json(self.facts(run))}.h5"
        return run.tree.derived(subject_of(run)) / folder / name

    def keeper(self, run: Run) -> Keeper:
        """Return what keeps the state of a batch that takes hours while it is made."""
        path, facts = self.path(run, _UNFINISHED), self.facts(run)

        def load() -> Arrays | None:
            there = store.is_current(path, run=run, facts=facts)
            return store.read_arrays(path) if there else None

        def save(state: Arrays) -> None:
            store.write_arrays(path, state, run=run, facts=facts)

        return Keeper(load, save, _KEEP_EVERY)


def subject_of(run: Run) -> int:
    """Return the run's subject; raise ConfigError where it has none."""
    if run.subject is None:
        raise ConfigError("Images belong to a subject: start the run with one.")
    return run.subject


def made_once(run: Run, recipe: Recipe, /, **given: Any) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays that `recipe.make` gives, from an earlier run's file if whole.

    `given` are the arguments of `recipe.make`. A file that is damaged is made again.
    """
    path, facts = recipe.path(run, "batches"), recipe.facts(run)
    if store.is_current(path, run=run, facts=facts):
        arrays = store.read_arrays(path)
    else:
        arrays = dict(recipe.make(**given))
        store.write_arrays(path, arrays, run=run, facts=facts)
    store.discard(recipe.path(run, _UNFINISHED))
    return arrays
