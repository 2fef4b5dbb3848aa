"""What is written of the images: PNGs, a row per image, the way to each image.

A shard writes its images; the one that ends last writes the tables and trajectories of
all of them, from the checkpoints of all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core import store
from minddiff_utils.core.conditions import by_name
from minddiff_utils.core.locks import locked
from minddiff_utils.core.run import Run
from minddiff_utils.generation.alignment import PER_IMAGE
from minddiff_utils.generation.checkpoints import subject_of
from minddiff_utils.generation.decoded_features import SubjectFeatures
from minddiff_utils.generation.generate import Generated, generate, is_generated
from minddiff_utils.generation.presets import uses_posterior
from minddiff_utils.models import Backbone

__all__ = ["Results", "write_results", "zero_iterations_equal"]

Made = Mapping[str, Generated]
#: What each stage writes for all images of a subject together, beside its images, and
#: what it reads.
_FILES = {
    1: ("stage1.csv",),
    2: ("stage2.csv", "zero_iterations.csv", "trajectories.h5"),
}
_INPUTS = {
    1: ("decoded.h5", "decoded_systems.h5", "stimuli.h5", "responses.h5"),
    2: ("decoded.h5", "decoded_systems.h5", "decoders.h5"),
}
#: Columns of the two tables, and their types; Int64 can be missing.
_IMAGE = {"method": "str", "nsd_id": "int64", "seed": "int64"}
_COLUMNS = {
    1: {
        **_IMAGE,
        "encode_index": "Int64",
        "decode_steps": "Int64",
        "guidance_scale": "float64",
        "guided_share": "float64",
        "n_unet_evaluations": "int64",
        "finished": "bool",
    },
    2: {
        **_IMAGE,
        "loss_first": "float64",
        "loss_best": "float64",
        "best_iteration": "int64",
        "stopped": "int64",
        "diverged": "bool",
        "n_unet_evaluations": "int64",
        "n_unet_gradients": "int64",
        "finished": "bool",
    },
}


@dataclass(frozen=True)
class Results:
    """What a shard leaves: its own share, or everything where it was the last one.

    Attributes
    ----------
    run : Run
        The run of all images if all of them are there, this shard's run otherwise.
    tables : mapping of DataFrame
        By file name.
    trajectories : mapping of arrays
        As `_trajectories`; empty for stage 1.
    """

    run: Run
    tables: Mapping[str, pd.DataFrame]
    trajectories: Mapping[str, npt.NDArray[Any]]


def write_results(
    run: Run, backbone: Backbone, features: SubjectFeatures, made: Made
) -> Results:
    """Write the images of a stage and, where no shard is missing, its tables.

    Tables of an earlier run with other settings are deleted before images change below
    them.

    Parameters
    ----------
    run, backbone, features
        As for `generate`.
    made : mapping of Generated
        By condition, all of one stage, in the order of the tables.
    """
    (stage,) = {each.condition.stage for each in made.values()}
    folder, whole = run.tree.derived(subject_of(run)), run.whole()
    inputs = [folder / name for name in _INPUTS[stage]]
    paths = [folder / name for name in _FILES[stage]]
    with locked(folder):
        for path in paths:
            store.discard_stale(path, run=run, inputs=inputs)
    _write_images(run, made, inputs)
    with locked(folder):  # else two last shards could each miss the other
        if not run.is_whole:
            rows = [each.condition for each in made.values()]
            if not all(is_generated(whole, backbone, features, row) for row in rows):
                for path in paths:
                    store.mark_part(path, run=run, inputs=inputs)
                return _results(run, backbone, features, made, [run.shard])
            made = {row.name: generate(whole, backbone, features, row) for row in rows}
            _write_images(whole, made, inputs)
        shards = [(k, run.shard[1]) for k in range(run.shard[1])]
        results = _results(whole, backbone, features, made, shards)
        for name, table in results.tables.items():
            store.write_table(folder / name, table, run=whole, inputs=inputs)
        if stage == 2:
            arrays = results.trajectories
            store.write_arrays(paths[-1], arrays, run=whole, inputs=inputs)
        _discard_leftovers(whole, made)
    return results


def _results(
    run: Run,
    backbone: Backbone,
    features: SubjectFeatures,
    made: Made,
    shards: Sequence[tuple[int, int]],
) -> Results:
    """Return the tables and trajectories of what was made, which some shards did."""
    if all(each.condition.stage == 1 for each in made.values()):
        return Results(run, {"stage1.csv": _table(run, made, 1)}, {})
    still = [
        zero_iterations_equal(replace(run, shard=shard), backbone, features)
        for shard in shards
    ]
    tables = {
        "stage2.csv": _table(run, made, 2),
        "zero_iterations.csv": pd.concat(still, ignore_index=True),
    }
    return Results(run, tables, _trajectories(made))


def _write_images(run: Run, made: Made, inputs: Sequence[Path]) -> None:
    """Write each condition's images to its folder, one PNG per finished image."""
    for name, each in made.items():
        folder = run.tree.stage_dir(subject_of(run), name)
        for row in np.flatnonzero(each.finished):
            path = folder / f"{each.nsd_id[row]}.png"
            store.write_png(path, each.images[row], run=run, inputs=inputs)


def _discard_leftovers(run: Run, made: Made) -> None:
    """Delete images that this run did not make: an earlier one may have made more."""
    for name, each in made.items():
        ids = set(map(str, each.nsd_id[each.finished].tolist()))
        for path in run.tree.stage_dir(subject_of(run), name).glob("*.png"):
            if path.stem not in ids:
                store.discard(path)


def zero_iterations_equal(
    run: Run, backbone: Backbone, features: SubjectFeatures
) -> pd.DataFrame:
    """Compare stage 2 without any iteration to the files of its start, pixel by pixel.

    That is stage 1, of the preset `bayes` the row without Z_CLIP.

    Of the shard's first batch alone: it goes through everything that could differ, and
    the whole set costs as much as a stage of its own.

    Returns
    -------
    DataFrame
        Columns nsd_id, equal.

    Raises
    ------
    DataError
        An image of its start has another size.
    """
    still = replace(by_name()["stage2"], n_iter=0)
    made = generate(run, backbone, features, still, n_batches=1)
    start = "stage1_posterior" if uses_posterior(still, run.profile) else "stage1"
    folder = run.tree.stage_dir(subject_of(run), start)
    ids = made.nsd_id[made.finished]
    equal = [
        np.array_equal(image, store.read_png(folder / f"{nsd_id}.png"))
        for nsd_id, image in zip(ids, made.images[made.finished], strict=True)
    ]
    return pd.DataFrame({"nsd_id": ids, "equal": np.array(equal, bool)})


# --- tables ---------------------------------------------------------------------------


def _table(run: Run, made: Made, stage: int) -> pd.DataFrame:
    """Return a row per condition and image: how it was made, and at what cost.

    Of stage 1 the sampler's settings, missing where there was no diffusion; of stage 2
    the losses of the complete sampler's image before and after, so that the two can be
    compared. `finished` is false where half precision gave no image.
    """
    columns = _COLUMNS[stage]
    frames = [
        pd.DataFrame(
            {
                "method": method,
                "nsd_id": each.nsd_id,
                "seed": run.profile.seed,
                "n_unet_evaluations": each.n_unet_evaluations,
                "finished": each.finished,
                **(each.sampler.model_dump() if each.sampler else {}),
                **(_losses(each) if stage == 2 else {}),
            }
        ).reindex(columns=list(columns))
        for method, each in made.items()
        if len(each.nsd_id)
    ]
    if not frames:
        return pd.DataFrame(columns=list(columns)).astype(columns)
    return pd.concat([frame.astype(columns) for frame in frames], ignore_index=True)


def _losses(made: Generated) -> dict[str, npt.NDArray[Any]]:
    losses = made.stacked("candidate_losses")
    one_each = {name: made.stacked(name) for name in PER_IMAGE if name in _COLUMNS[2]}
    best = np.fmin.reduce(losses, axis=1)  # NaN if all are
    return {"loss_first": losses[:, 0], "loss_best": best, **one_each}


def _trajectories(made: Made) -> dict[str, npt.NDArray[Any]]:
    """Return the content of `trajectories.h5`: losses and images along the way.

    Per condition: nsd_id (n,), losses (n, n_iter + 1), candidates (n_candidates,),
    candidate_losses (n, n_candidates), best_iteration (n,); of the first images, whose
    ids are shown (n_shown,), images uint8 (n_shown, n_frames, S, S, 3), and the frames'
    iterations (n_frames,); nothing for a condition without images in this shard.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    for method, each in made.items():
        if not each.batches:
            continue
        first = each.batches[0]
        own = {
            "nsd_id": each.nsd_id,
            "losses": each.stacked("losses"),
            "candidates": first["candidates"],
            "candidate_losses": each.stacked("candidate_losses"),
            "best_iteration": each.stacked("best_iteration"),
            "iterations": first["iterations"],
            "shown": _shown(each),
            "images": each.stacked("frames"),
        }
        arrays |= {f"{method}/{name}": values for name, values in own.items()}
    return arrays


def _shown(made: Generated) -> npt.NDArray[np.int64]:
    """Return the ids of the images whose frames were kept."""
    ends = np.cumsum([len(batch["losses"]) for batch in made.batches])
    ids = np.split(made.nsd_id, ends[:-1])
    parts = zip(ids, made.batches, strict=True)
    return np.concatenate([own[: len(batch["frames"])] for own, batch in parts])
