"""Batches that are done stay done: the one cache of images.

A run of thousands of images is cut off sooner or later. Every finished batch of every
condition is a checkpoint: a file of its own, named by all that can change it (images,
features, settings, models, seeds, and the code that makes these images), whichever
notebook, study or shard asks for it. The state of a loop that takes hours is kept
beside it. Nothing here deletes a finished batch: what other code made waits until that
code is back. The folder `checkpoints` of a subject may be deleted at any time; it costs
the time to make the images again.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from minddiff_utils.core import provenance, rng, store
from minddiff_utils.core.errors import ConfigError
from minddiff_utils.core.run import Run, network_files
from minddiff_utils.models import load_backbone

__all__ = ["Arrays", "Checkpoint", "checkpoint_of", "subject_of"]

Arrays = Mapping[str, npt.NDArray[Any]]
#: Fields of the models that say where they lie and how they find room.
_PLACE = {"path", "memory", "n_at_once"}
#: Makes the networks and the noise, which reach the functions as arguments.
_MODELS = (load_backbone, rng.torch_stream)
#: Hand on what a checkpoint's name states by its value, and keep the files.
_CARRIES = (
    __name__,
    *(
        f"minddiff_utils.core.{name}"
        for name in (
            *("condition", "conditions", "profile", "errors", "locks", "places"),
            *("profile_files", "profile_parts", "provenance", "reach", "run"),
            *("signature", "store"),
        )
    ),
)
_FINISHED, _UNFINISHED = "checkpoints", "unfinished"


@cache
def _weights(models: Path, backbone: str) -> dict[str, str]:
    """Return the digests of the networks' files: a copy of them is the same network."""
    files = network_files(models, backbone)
    return {str(p.relative_to(models)): provenance.digest_file(p) for p in files}


def subject_of(run: Run) -> int:
    """Return the run's subject; raise ConfigError where it has none."""
    if run.subject is None:
        raise ConfigError("Images belong to a subject: start the run with one.")
    return run.subject


@dataclass(frozen=True)
class Checkpoint:
    """The file of one batch, or of the state of a part of it while it is made.

    Attributes
    ----------
    run : Run
    nsd_id : tuple of int
        The images; with the profile's seed and the subject they give the noise.
    facts : mapping
        All that can change the arrays; the file's name is their digest.
    part : tuple of int or None
        Images whose state this is; None: the finished batch.
    """

    run: Run
    nsd_id: tuple[int, ...]
    facts: Mapping[str, Any]
    part: tuple[int, ...] | None = None

    def _path(self, folder: str, suffix: str) -> Path:
        name = f"{self.nsd_id[0]}_{provenance.digest_json(self.facts)}{suffix}"
        return self.run.tree.derived(subject_of(self.run)) / folder / name

    @property
    def path(self) -> Path:
        """Return where the arrays lie."""
        if self.part is None:
            return self._path(_FINISHED, ".h5")
        return self._path(_UNFINISHED, f"_{'_'.join(map(str, self.part))}.h5")

    @property
    def is_there(self) -> bool:
        """Return whether the file is there, undamaged."""
        return store.is_current(self.path, run=self.run, facts=self.facts)

    def read(self) -> Arrays | None:
        """Return the arrays, None where there are none."""
        return store.read_arrays(self.path) if self.is_there else None

    def write(self, arrays: Arrays, *, began: float | None = None) -> None:
        """Keep the arrays; `began` is when they began to be made."""
        store.write_arrays(
            self.path, arrays, run=self.run, facts=self.facts, began=began
        )

    @property
    def seconds(self) -> float:
        """Return how long the making took, without what an earlier try did."""
        return float(provenance.read_manifest(self.path).get("seconds") or np.nan)

    def state_of(self, nsd_id: Sequence[int]) -> "Checkpoint":
        """Return where the state of some of the batch's images is kept meanwhile."""
        return replace(self, part=tuple(nsd_id))

    def made_once(self, make: Callable[[], Arrays]) -> Arrays:
        """Return the arrays, from an earlier run's file if it is whole."""
        arrays = self.read()
        if arrays is None:
            began = time.time()
            arrays = make()
            self.write(arrays, began=began)
        for state in self._path(_UNFINISHED, "").parent.glob(
            f"{self._path(_UNFINISHED, '').name}_*.h5"
        ):
            store.discard(state)
        return arrays


def checkpoint_of(
    run: Run,
    nsd_id: Sequence[int],
    make: Callable[..., Arrays],
    *,
    settings: str,
    tensors: Sequence[torch.Tensor],
) -> Checkpoint:
    """Return the checkpoint of a batch.

    Parameters
    ----------
    run : Run
    nsd_id : sequence of int
        The batch's images.
    make : callable
        The function that makes the images: what it reaches is the code that counts.
    settings : str
        Of sampler and engine, as their `repr` shows them, and what is kept.
    tensors : sequence of Tensor
        The decoded features, masks and scales.
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(np.ascontiguousarray(tensor.float().cpu().numpy()).tobytes())
    ids = tuple(int(i) for i in nsd_id)
    facts = {
        "models": run.profile.models.model_dump(mode="json", exclude=_PLACE),
        "weights": _weights(run.tree.models, run.profile.models.backbone),
        "seed": run.profile.seed,
        "subject": subject_of(run),
        "nsd_id": list(ids),
        "settings": settings,
        "features": digest.hexdigest(),
        "code": provenance.digest_of(*_MODELS, make, without=_CARRIES),
    }
    return Checkpoint(run, ids, facts)
