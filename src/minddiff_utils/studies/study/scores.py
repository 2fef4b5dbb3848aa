"""Scores of the arms' images, and the tables of all subjects.

Place in the flow: above `images`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from minddiff_utils.core import store
from minddiff_utils.core.images import to_torch
from minddiff_utils.core.resampling import Resampling, crossed_bootstrap_interval
from minddiff_utils.core.run import Run
from minddiff_utils.evaluation.metrics import score_condition
from minddiff_utils.evaluation.subject_scores import embed_with
from minddiff_utils.evaluation.summaries import non_inferiority
from minddiff_utils.generation.checkpoints import subject_of
from minddiff_utils.generation.decoded_features import read_decoded
from minddiff_utils.generation.structural_loss import (
    Loss,
    StructuralTarget,
    layer_weights,
    structural_loss,
)
from minddiff_utils.models import Backbone, Judge
from minddiff_utils.studies.study.arms import Part
from minddiff_utils.studies.study.images import decoder_path, n_images_of

__all__ = [
    "ENDPOINTS",
    "confirm",
    "cost_table",
    "pareto_table",
    "score_arms",
    "summarise_pilot",
    "unselected",
]

Images = npt.NDArray[np.uint8]
#: What arms are compared on -> whether more is better.
ENDPOINTS: Mapping[str, bool] = {
    "structural_loss": False,
    "ssim_2d": True,
    "pcc": True,
    "clip_judge": True,
}


def unselected(target: StructuralTarget) -> StructuralTarget | None:
    """Return the target of the features that no arm's loss saw, if there are any."""
    others = {k: ~mask & (target.scale[k] > 0) for k, mask in target.selected.items()}
    if not all(bool(mask.any()) for mask in others.values()):
        return None
    return replace(target, selected=others)


def _structure(
    backbone: Backbone,
    images: Images,
    decoded: StructuralTarget,
    true: StructuralTarget,
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the losses of images against decoded features, and held-out ones.

    structural_loss: balanced over all decoded blocks; paper_loss: Algorithm 1's sum;
    heldout_loss: balanced, of the features that were not selected, against those of the
    seen image: it rises where an arm fits what the decoder got wrong.
    """
    x = to_torch(images).to(backbone.device, backbone.dtype)
    with torch.no_grad():
        seen = backbone.clip_layers(x, decoded.layers)
        losses: dict[str, tuple[StructuralTarget, Loss]] = {
            "structural_loss": (decoded, "balanced"),
            "paper_loss": (decoded, "paper"),
        }
        other = unselected(true)
        if other is not None:
            losses["heldout_loss"] = (other, "balanced")
        return {
            name: structural_loss(seen, target, layer_weights(target, loss))
            .double()
            .cpu()
            .numpy()
            for name, (target, loss) in losses.items()
        }


def score_arms(
    run: Run,
    backbone: Backbone,
    judge: Judge,
    part: Part,
    made: Mapping[str, Mapping[str, npt.NDArray[Any]]],
) -> pd.DataFrame:
    """Return a row per arm, image and metric of one subject."""
    n, layers = n_images_of(run.profile, part), run.profile.features.clip_layers
    path = decoder_path(run, part)
    decoded, true = (
        read_decoded(path, backbone, layers, n=n, source=source).target
        for source in ("decoded", "true")
    )
    subject = subject_of(run)
    stimuli = run.tree.derived(subject) / "stimuli.h5"
    seen = store.read_rows(stimuli, "images")
    nsd_id = store.read_arrays(stimuli, ["nsd_id"])["nsd_id"]
    row = {int(i): k for k, i in enumerate(nsd_id)}
    look = embed_with(judge, run.profile.models.batch_size)
    frames = []
    for name, arrays in made.items():
        truth = seen[[row[int(i)] for i in arrays["nsd_id"]]]
        views = {"clip_judge": look(arrays["images"])}, {"clip_judge": look(truth)}
        scores = score_condition(arrays["images"], truth, *views)
        wanted = {k: v for k, v in scores.items() if k in ENDPOINTS}
        wanted |= _structure(backbone, arrays["images"], decoded, true)
        wanted |= {
            key: arrays[key].astype(float)
            for key in ("n_unet_evaluations", "n_unet_gradients", "seconds", "steps")
        }
        frames += [
            pd.DataFrame(
                {
                    "subject": str(subject),
                    "method": name,
                    "nsd_id": arrays["nsd_id"],
                    "metric": metric,
                    "value": values,
                }
            )
            for metric, values in wanted.items()
        ]
    return pd.concat(frames, ignore_index=True)


# --- all subjects ---------------------------------------------------------------------


def cost_table(scores: pd.DataFrame, reference: str = "paper") -> pd.DataFrame:
    """Return each arm's mean cost per image, and its share of the reference's.

    Columns: method, n_unet_evaluations, n_unet_gradients, seconds, steps, share (of the
    reference's U-Net evaluations).
    """
    columns = ["n_unet_evaluations", "n_unet_gradients", "seconds", "steps"]
    costs = scores[scores["metric"].isin(columns)]
    table = costs.pivot_table(
        index="method", columns="metric", values="value", sort=False
    )[columns]
    if reference in table.index:
        evaluations = table["n_unet_evaluations"].astype(float)
        table["share"] = evaluations / evaluations.loc[[reference]].item()
    return table.reset_index().rename_axis(columns=None)


def pareto_table(scores: pd.DataFrame, draws: Resampling) -> pd.DataFrame:
    """Return each arm's endpoints with their interval, and its cost per image.

    Columns: method, metric, value, low, high, cost (U-Net evaluations), n (images of
    all subjects), n_subjects.
    """
    cost = cost_table(scores).set_index("method")["n_unet_evaluations"]
    rows = []
    known = scores[scores["metric"].isin(ENDPOINTS)]
    for (method, metric), block in known.groupby(["method", "metric"], sort=False):
        wide = block.pivot(index="subject", columns="nsd_id", values="value")
        interval = crossed_bootstrap_interval(
            wide.dropna(axis=1),
            rng=draws.stream("pareto", str(method), str(metric)),
            n_bootstrap=draws.n_bootstrap,
            confidence=draws.confidence,
        )
        n = {"n": len(block), "n_subjects": len(wide)}
        low_high = {"low": interval.low, "high": interval.high}
        own = {"method": method, "metric": metric, "value": interval.value}
        rows.append({**own, **low_high, "cost": float(cost[str(method)]), **n})
    return pd.DataFrame(rows)


def summarise_pilot(scores: pd.DataFrame) -> pd.DataFrame:
    """Return each variant's mean endpoints and cost over all images and subjects."""
    table = scores.pivot_table(
        index="method", columns="metric", values="value", sort=False
    )
    wanted = [*ENDPOINTS, "heldout_loss", "n_unet_evaluations", "n_unet_gradients"]
    kept = [name for name in (*wanted, "seconds") if name in table]
    return table[kept].reset_index().rename_axis(columns=None)


def confirm(
    scores: pd.DataFrame,
    margins: Mapping[str, float],
    *,
    resampling: Resampling,
    rivals: Sequence[str] = ("fast", "guided"),
    references: Iterable[str] = ("paper", "paper_tuned", "released", "none"),
) -> pd.DataFrame:
    """Return whether the rivals are no worse than each reference, endpoint by endpoint.

    Parameters
    ----------
    scores : DataFrame
        From `run_subject`, all subjects together.
    margins : mapping of float
        By endpoint: how much worse still counts as no worse; fixed beforehand.

    Returns
    -------
    DataFrame
        As `summaries.non_inferiority`, one block per rival and reference.
    """
    tables = [
        non_inferiority(
            scores, rival, reference, margins, ENDPOINTS, resampling=resampling
        )
        for rival in rivals
        for reference in references
    ]
    return pd.concat(tables, ignore_index=True)
