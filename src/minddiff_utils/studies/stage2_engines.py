"""The study of stage 2: whether a cheap engine is no worse than the paper's algorithm.

Two parts, both outside the notebooks' minutes. The pilot tries variants of our engines
on validation images, which no decoder was fitted to; settings are chosen there. The
confirmation runs every arm, with the settings of the profile, on test images, and holds
ours against Algorithm 1 by margins that the profile states. Work is kept arm by arm
(`stage2_arms`), so that a study that was cut off goes on where it was. The command is
`minddiff study`; appendix notebook A3 shows what it found.
"""

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from minddiff_utils.core import store
from minddiff_utils.core.errors import ConfigError
from minddiff_utils.core.images import to_torch
from minddiff_utils.core.locks import end_with_parent
from minddiff_utils.core.resampling import Resampling, crossed_bootstrap_interval
from minddiff_utils.core.run import Run, start
from minddiff_utils.core.surroundings import (
    ended_if_cut_off,
    environment,
    interrupts_held,
    settled,
    visible_gpus,
)
from minddiff_utils.evaluation import resampling
from minddiff_utils.evaluation.metrics import score_condition
from minddiff_utils.evaluation.subject_scores import embed_with
from minddiff_utils.evaluation.summaries import non_inferiority
from minddiff_utils.generation.checkpoints import subject_of
from minddiff_utils.generation.structural_loss import (
    StructuralTarget,
    layer_weights,
    structural_loss,
)
from minddiff_utils.models import Backbone, Judge, load_backbone, load_judge
from minddiff_utils.studies.stage2_arms import (
    ENGINES,
    Part,
    arms_of,
    decoded_path,
    images_of,
    read_features,
)

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

__all__ = [
    "ENDPOINTS",
    "StudyResult",
    "conclusions",
    "confirm",
    "cost_table",
    "pareto_table",
    "read_study",
    "run_study",
    "run_subject",
    "summarise_pilot",
]

Scores = Mapping[str, npt.NDArray[Any]]
#: What arms are compared on -> whether more is better.
ENDPOINTS: Mapping[str, bool] = {
    "structural_loss": False,
    "ssim_2d": True,
    "pcc": True,
    "clip_judge": True,
}
_COSTS = ("n_unet_evaluations", "n_unet_gradients", "seconds", "steps")


# --- running --------------------------------------------------------------------------


def run_study(
    name: str,
    overrides: Mapping[str, Any],
    part: Part,
    *,
    n_jobs: int,
    say: Callable[[str], None],
) -> pd.DataFrame:
    """Run every subject of the profile `name` and write the study's tables.

    Call it again after it was cut off: finished arms are read, the others go on.

    Parameters
    ----------
    name, overrides
        As for `start`.
    part : {"pilot", "confirmation"}
    n_jobs : int
        Subjects at once; on GPUs one each.
    say : callable
        Told of every arm.

    Returns
    -------
    DataFrame
        The pilot's summary, or the verdicts.

    Raises
    ------
    MindDiffError
        As `run_subject`.
    """
    run = start(name, overrides=overrides)
    context = multiprocessing.get_context("spawn")
    on_gpu = run.profile.models.device == "cuda" and n_jobs > 1
    gpus = context.SimpleQueue()
    for gpu in visible_gpus(n_jobs) if on_gpu else ():
        gpus.put(gpu)
    places = {"MINDDIFF_ROOT": run.tree.root, "MINDDIFF_NSD_ROOT": run.tree.nsd}
    with (
        settled(),
        environment({name: str(path) for name, path in places.items()}),
        ProcessPoolExecutor(
            n_jobs, context, _begin_worker, (gpus if on_gpu else None,)
        ) as pool,
        ended_if_cut_off(pool),
    ):
        with interrupts_held():
            futures = {
                pool.submit(_worker, name, subject, dict(overrides), part): subject
                for subject in run.profile.subjects
            }
        tables = {}
        for future in as_completed(futures):
            tables[futures[future]], lines = future.result()
            for line in lines:
                say(line)
    scores = pd.concat([tables[s] for s in run.profile.subjects], ignore_index=True)
    return _write(run, part, scores)


def _begin_worker(gpus: "SimpleQueue[str] | None") -> None:
    """Let this process end with its parent, and take a GPU of its own."""
    end_with_parent()
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus.get()


def _worker(
    name: str, subject: int, overrides: dict[str, Any], part: Part
) -> tuple[pd.DataFrame, list[str]]:
    """Run one subject in a process of its own; return also what there is to say."""
    lines: list[str] = []
    run = start(name, subject=subject, overrides=overrides)
    return run_subject(run, part, lines.append), lines


def run_subject(run: Run, part: Part, say: Callable[[str], None]) -> pd.DataFrame:
    """Run or read every arm of one subject; return the scores of all images.

    Parameters
    ----------
    run : Run
        Of one subject, all images.
    part : {"pilot", "confirmation"}
        Variants on validation images, or the arms on test images.
    say : callable
        Told of each arm as it is done.

    Returns
    -------
    DataFrame
        Columns subject, method, nsd_id, metric, value.

    Raises
    ------
    ConfigError
        The profile has no study.
    StoreError
        Notebook 02 has not run for this subject, or decoded fewer images.
    """
    if run.profile.study.n_images == 0:
        raise ConfigError(
            f"Profile {run.profile.name} has no study: set study.n_images above 0."
        )
    store.read_arrays(decoded_path(run, part), ["nsd_id"])  # says if it is not there
    models = run.profile.models
    backbone = load_backbone(models, run.tree.models)
    judge = load_judge(run.tree.models, kind=models.backbone, device=models.device)
    made = {}
    for arm in arms_of(run.profile, part):
        began = time.perf_counter()
        made[arm.name] = images_of(run, backbone, part, arm)
        say(f"subject {run.subject}, {arm.name}: {time.perf_counter() - began:.0f} s")
    return _score_arms(run, backbone, judge, part, made)


# --- scores of one subject ------------------------------------------------------------


def _score_arms(
    run: Run, backbone: Backbone, judge: Judge, part: Part, made: Mapping[str, Scores]
) -> pd.DataFrame:
    """Return a row per arm, image and metric of one subject."""
    decoded = read_features(run, backbone, part, "decoded").target
    true = read_features(run, backbone, part, "true").target
    subject = subject_of(run)
    stimuli = run.tree.derived(subject) / "stimuli.h5"
    seen = store.read_rows(stimuli, "images")
    nsd_id = store.read_arrays(stimuli, ["nsd_id"])["nsd_id"]
    row = {int(i): k for k, i in enumerate(nsd_id)}
    look = embed_with(judge, run.profile.models.batch_size)
    frames = []
    for name, arrays in made.items():
        images, truth = arrays["images"], seen[[row[int(i)] for i in arrays["nsd_id"]]]
        views = {"clip_judge": look(images)}, {"clip_judge": look(truth)}
        scores = score_condition(images, truth, *views)
        kept = {metric: v for metric, v in scores.items() if metric in ENDPOINTS}
        kept |= _losses(backbone, images, decoded, true)
        kept |= {key: arrays[key].astype(float) for key in _COSTS}
        index = {"subject": str(subject), "method": name, "nsd_id": arrays["nsd_id"]}
        frames += [
            pd.DataFrame({**index, "metric": metric, "value": values})
            for metric, values in kept.items()
        ]
    return pd.concat(frames, ignore_index=True)


def _losses(
    backbone: Backbone,
    images: npt.NDArray[np.uint8],
    decoded: StructuralTarget,
    true: StructuralTarget,
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the losses of images against decoded features, and held-out ones.

    structural_loss: balanced over all decoded blocks; paper_loss: Algorithm 1's sum;
    heldout_loss: balanced, of the features that were not selected, against those of the
    seen image: it rises where an arm fits what the decoder got wrong.
    """
    balanced = layer_weights(decoded, "balanced")
    targets = {
        "structural_loss": (decoded, balanced),
        "paper_loss": (decoded, layer_weights(decoded, "paper")),
    }
    other = unselected(true)
    if other is not None:
        targets["heldout_loss"] = (other, layer_weights(other, "balanced"))
    x = to_torch(images).to(backbone.device, backbone.dtype)
    with torch.no_grad():
        seen = backbone.clip_layers(x, decoded.layers)
        losses = {k: structural_loss(seen, *target) for k, target in targets.items()}
    return {k: loss.double().cpu().numpy() for k, loss in losses.items()}


def unselected(target: StructuralTarget) -> StructuralTarget | None:
    """Return the target of the features that no arm's loss saw, if there are any."""
    others = {k: ~mask & (target.scale[k] > 0) for k, mask in target.selected.items()}
    if not all(bool(mask.any()) for mask in others.values()):
        return None
    return replace(target, selected=others)


# --- tables of all subjects -----------------------------------------------------------


def cost_table(scores: pd.DataFrame, reference: str = "paper") -> pd.DataFrame:
    """Return each arm's mean cost per image, and its share of the reference's.

    Columns: method, n_unet_evaluations, n_unet_gradients, seconds, steps, share (of the
    reference's U-Net evaluations).
    """
    table = _means(scores, _COSTS)
    evaluations = table.set_index("method")["n_unet_evaluations"].astype(float)
    if reference in evaluations.index:
        table["share"] = (evaluations / evaluations[reference]).to_numpy()
    return table


def summarise_pilot(scores: pd.DataFrame) -> pd.DataFrame:
    """Return each variant's mean endpoints and cost over all images and subjects."""
    return _means(scores, (*ENDPOINTS, "heldout_loss", *_COSTS[:3]))


def _means(scores: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Return the mean of each method (rows) in some metrics (columns)."""
    table = scores.pivot_table(
        index="method", columns="metric", values="value", sort=False
    )
    kept = [name for name in metrics if name in table]
    return table[kept].reset_index().rename_axis(columns=None)


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
        facts = (interval.value, interval.low, interval.high, float(cost[str(method)]))
        rows.append((method, metric, *facts, len(block), len(wide)))
    columns = ["method", "metric", "value", "low", "high", "cost", "n", "n_subjects"]
    return pd.DataFrame(rows, columns=columns)


def confirm(
    scores: pd.DataFrame,
    margins: Mapping[str, float],
    *,
    resampling: Resampling,
    engines: Sequence[str] = ("fast", "guided"),
    references: Sequence[str] = ("paper", "paper_tuned", "released", "none"),
) -> pd.DataFrame:
    """Return whether our engines are no worse than each reference, by endpoint.

    Parameters
    ----------
    scores : DataFrame
        From `run_subject`, all subjects together.
    margins : mapping of float
        By endpoint: how much worse still counts as no worse; fixed beforehand.

    Returns
    -------
    DataFrame
        As `summaries.non_inferiority`, one block per engine and reference.
    """
    tables = [
        non_inferiority(
            scores, engine, reference, margins, ENDPOINTS, resampling=resampling
        )
        for engine in engines
        for reference in references
    ]
    return pd.concat(tables, ignore_index=True)


# --- what is written, and read again --------------------------------------------------


def _write(run: Run, part: Part, scores: pd.DataFrame) -> pd.DataFrame:
    """Write the tables of a part, with its settings; return the main one."""
    folder = run.tree.study
    if part == "pilot":
        main = summarise_pilot(scores)
        tables = {"pilot": main}
    else:
        margins = run.profile.study.margins
        main = confirm(scores, margins, resampling=resampling(run))
        tables = {"scores": scores, "costs": cost_table(scores), "verdicts": main}
    for name, table in tables.items():
        store.write_table(folder / f"{name}.csv", table, run=run)
    store.write_text(folder / f"{part}.json", _settings(run, part), run=run)
    return main


def _settings(run: Run, part: Part) -> str:
    """Return the command, the profile and every arm's settings as JSON."""
    facts = {
        "command": f"minddiff study --profile {run.profile.name} --part {part}",
        "note": run.label,
        "arms": {
            arm.name: {
                "words": arm.words,
                "source": arm.source,
                "layers": arm.layers,
                "n_draws": arm.n_draws,
                "settings": asdict(arm.settings) if arm.settings else None,
            }
            for arm in arms_of(run.profile, part)
        },
        "profile": run.profile.model_dump(mode="json"),
    }
    return json.dumps(facts, indent=1) + "\n"


@dataclass(frozen=True)
class StudyResult:
    """What the last study of a profile found.

    Attributes
    ----------
    pilot : DataFrame or None
        From `summarise_pilot`; None where it has not been run.
    points, costs, verdicts : DataFrame
        From `pareto_table`, `cost_table` and `confirm`.
    confidence : float
        Of intervals and verdicts.
    """

    pilot: pd.DataFrame | None
    points: pd.DataFrame
    costs: pd.DataFrame
    verdicts: pd.DataFrame
    confidence: float


def read_study(run: Run) -> StudyResult | None:
    """Return the confirmation of the run's profile, None where it has not been run.

    Raises
    ------
    StoreError
        A table is damaged or missing beside the others.
    """
    folder = run.tree.study
    if not (folder / "scores.csv").is_file():
        return None
    scores = store.read_table(folder / "scores.csv")
    scores["subject"] = scores["subject"].astype(str)
    pilot = folder / "pilot.csv"
    return StudyResult(
        pilot=store.read_table(pilot) if pilot.is_file() else None,
        points=pareto_table(scores, resampling(run)),
        costs=store.read_table(folder / "costs.csv"),
        verdicts=store.read_table(folder / "verdicts.csv"),
        confidence=run.profile.evaluation.confidence,
    )


def conclusions(result: StudyResult) -> list[str]:
    """Return what the confirmation shows over all subjects, a sentence per line.

    First each engine of ours against each form of Algorithm 1, endpoint by endpoint and
    with its share of the evaluations; then the arm with the best mean of each endpoint,
    among those that see the decoded features of the right brain.
    """
    whole = result.verdicts[result.verdicts["subject"] == "all"]
    share = result.costs.set_index("method")["share"]
    lines = []
    for reference in ("paper", "paper_tuned"):
        own = whole[whole["reference"] == reference]
        for method, block in own.groupby("method", sort=False):
            verdicts = block.groupby("verdict", sort=False)["metric"].agg(", ".join)
            told = "; ".join(f"{verdict}: {on}" for verdict, on in verdicts.items())
            name = str(method)
            cost, engine = (
                float(share[name] / share[reference]),
                ENGINES.get(name, name),
            )
            lines.append(
                f"{engine} against {ENGINES[reference]}, at {cost:.1%} of its U-Net"
                f" evaluations: {told}."
            )
    points = result.points[result.points["method"].isin(ENGINES)]
    for metric, block in points.groupby("metric", sort=False):
        values = block.set_index("method")["value"]
        best = str(values.idxmax() if ENDPOINTS[str(metric)] else values.idxmin())
        lines.append(
            f"Best mean of {metric}: {ENGINES[best]} ({values[best]:.3f});"
            f" stage 1 alone {values['none']:.3f}."
        )
    return lines
