"""What is written of the images: PNGs, a row per image, the way to each image.

Place in the flow: part of `reconstruction`, after `stage1` and `stage2`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core import store
from minddiff_utils.core.config import Profile
from minddiff_utils.core.run import Run
from minddiff_utils.generation.batches import subject_of
from minddiff_utils.generation.reconstruction.stage1 import Made
from minddiff_utils.generation.reconstruction.stage2 import Aligned

__all__ = [
    "FRAMES",
    "TRAJECTORY",
    "stage1_table",
    "stage2_table",
    "trajectory_arrays",
    "write_images",
]

#: Arrays of a condition in `trajectories.h5` -> whether there is a row per image.
TRAJECTORY = {
    "nsd_id": True,
    "losses": True,
    "candidates": False,
    "candidate_losses": True,
    "best_iteration": True,
    "iterations": False,
}
#: Arrays with a row per image whose frames are kept.
FRAMES = ("shown", "images")
#: Columns of the two tables, and their types; Int64 can be missing.
_STAGE1_COLUMNS = {
    "method": "str",
    "nsd_id": "int64",
    "seed": "int64",
    "encode_index": "Int64",
    "decode_steps": "Int64",
    "guidance_scale": "float64",
    "n_unet_evaluations": "int64",
    "finished": "bool",
}
_STAGE2_COLUMNS = {
    "method": "str",
    "nsd_id": "int64",
    "seed": "int64",
    "loss_first": "float64",
    "loss_best": "float64",
    "best_iteration": "int64",
    "stopped": "int64",
    "diverged": "bool",
    "n_unet_evaluations": "int64",
    "n_unet_gradients": "int64",
    "finished": "bool",
}


def write_images(run: Run, made: Mapping[str, Made], *, inputs: Sequence[Path]) -> None:
    """Write each condition's images to its folder, one PNG per finished image."""
    subject = subject_of(run)
    for method, condition in made.items():
        folder = run.tree.stage_dir(subject, method)
        for row in np.flatnonzero(condition.is_finished):
            path = folder / f"{condition.nsd_id[row]}.png"
            store.write_png(path, condition.images[row], run=run, inputs=inputs)


def stage1_table(run: Run, made: Mapping[str, Made]) -> pd.DataFrame:
    """Return a row per condition and image: the sampler's settings and the cost.

    Columns: method, nsd_id, seed, encode_index, decode_steps, guidance_scale,
    n_unet_evaluations and finished (false where half precision gave no image); the
    settings are missing where there was no diffusion.
    """
    rows = [
        {
            "method": method,
            "nsd_id": int(nsd_id),
            "seed": run.profile.seed,
            "encode_index": found.settings.encode_index if found.settings else None,
            "decode_steps": found.settings.decode_steps if found.settings else None,
            "guidance_scale": found.settings.guidance_scale if found.settings else None,
            "n_unet_evaluations": found.n_unet_evaluations,
            "finished": bool(finished),
        }
        for method, found in made.items()
        for nsd_id, finished in zip(found.nsd_id, found.is_finished, strict=True)
    ]
    table = pd.DataFrame(rows, columns=list(_STAGE1_COLUMNS))
    return table.astype(_STAGE1_COLUMNS)


def stage2_table(profile: Profile, aligned: Mapping[str, Aligned]) -> pd.DataFrame:
    """Return a row per condition and image: losses, chosen iteration, cost.

    Columns: method, nsd_id, seed, loss_first, loss_best, best_iteration, stopped,
    diverged, n_unet_evaluations, n_unet_gradients and finished. `loss_first` and
    `loss_best` are those of the complete sampler's image before and after, so that the
    two can be compared.
    """
    frames = [pd.DataFrame(columns=list(_STAGE2_COLUMNS)).astype(_STAGE2_COLUMNS)]
    for method, found in aligned.items():
        if not found.batches:
            continue
        losses = found.stacked("candidate_losses")
        frames.append(
            pd.DataFrame(
                {
                    "method": method,
                    "nsd_id": found.made.nsd_id,
                    "seed": profile.seed,
                    "loss_first": losses[:, 0],
                    "loss_best": np.fmin.reduce(losses, axis=1),  # NaN if all are
                    "best_iteration": found.stacked("best_iteration"),
                    "stopped": found.stacked("stopped"),
                    "diverged": found.stacked("diverged"),
                    "n_unet_evaluations": found.stacked("n_unet_evaluations"),
                    "n_unet_gradients": found.stacked("n_unet_gradients"),
                    "finished": found.made.is_finished,
                }
            )
        )
    return pd.concat(frames, ignore_index=True).astype(_STAGE2_COLUMNS)


def trajectory_arrays(aligned: Mapping[str, Aligned]) -> dict[str, npt.NDArray[Any]]:
    """Return the content of `trajectories.h5`: losses and images along the way.

    Per condition: nsd_id (n,), losses (n, n_iter + 1), candidates (n_candidates,),
    candidate_losses (n, n_candidates), best_iteration (n,); of the first images, whose
    ids are shown (n_shown,), images uint8 (n_shown, n_frames, S, S, 3), and the frames'
    iterations (n_frames,); nothing for a condition without images in this shard.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    for method, found in aligned.items():
        if not found.batches:
            continue
        first = found.batches[0]
        own = {
            "nsd_id": found.made.nsd_id,
            "losses": found.stacked("losses"),
            "candidates": first.candidates,
            "candidate_losses": found.stacked("candidate_losses"),
            "best_iteration": found.stacked("best_iteration"),
            "iterations": first.iterations,
            "shown": _shown(found),
            "images": found.stacked("frames"),
        }
        names = (*TRAJECTORY, *FRAMES)
        arrays |= {f"{method}/{name}": own[name] for name in names}
    return arrays


def _shown(found: Aligned) -> npt.NDArray[np.int64]:
    """Return the ids of the images whose frames were kept."""
    ends = np.cumsum([len(batch.losses) for batch in found.batches])
    ids = np.split(found.made.nsd_id, ends[:-1])
    parts = zip(ids, found.batches, strict=True)
    return np.concatenate([own[: len(batch.frames)] for own, batch in parts])
