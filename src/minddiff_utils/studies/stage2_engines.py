"""The study of stage 2: whether a cheap engine is no worse than the paper's algorithm.

Two parts, both outside the notebooks' minutes. The pilot tries variants of our engine
on validation images, which no decoder was fitted to; settings are chosen there. The
confirmation makes every arm (`stage2_arms`), with the settings of the profile, on test
images, and holds ours by margins that the profile states against both forms of
Algorithm 1 and against the controls without a gradient. Finished batches stay, so that
a study that was cut off goes on where it was. The command is `minddiff study`; appendix
notebook A3 shows what it found.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from minddiff_utils.core import store
from minddiff_utils.core.errors import ConfigError
from minddiff_utils.core.images import to_torch
from minddiff_utils.core.inference import estimate
from minddiff_utils.core.run import Run, start
from minddiff_utils.core.surroundings import environment, in_processes, visible_gpus
from minddiff_utils.core.types import Array, Floats
from minddiff_utils.evaluation.further.naming import all_names, name_by_captions
from minddiff_utils.evaluation.images import rows_of
from minddiff_utils.evaluation.metrics import ConditionImages, score_methods, score_rows
from minddiff_utils.evaluation.subject_scores import embed_with, text_embed_with
from minddiff_utils.evaluation.summaries import Matrices, contrast_table
from minddiff_utils.generation import SubjectFeatures, generate
from minddiff_utils.generation.generate import Generated
from minddiff_utils.generation.presets import settings_of
from minddiff_utils.generation.structural_loss import (
    Loss,
    StructuralLoss,
    StructuralTarget,
)
from minddiff_utils.models import Judge, load_backbone, load_judge
from minddiff_utils.preprocessing import categories_in_captions
from minddiff_utils.studies import discrepancies
from minddiff_utils.studies.again import finished_of
from minddiff_utils.studies.stage2_arms import ENGINES, Part, arms_of

__all__ = [
    "ENDPOINTS",
    "REFERENCES",
    "conclusions",
    "confirm",
    "cost_table",
    "pareto_table",
    "read_study",
    "run_study",
]

#: What arms are compared on -> whether more is better.
ENDPOINTS: Mapping[str, bool] = {
    "structural_loss": False,
    "ssim_2d": True,
    "pcc": True,
    "clip_judge": True,
}
#: What our engine is held against: the paper's algorithm, and what needs no gradient.
REFERENCES = ("paper", "paper_tuned", "released", "best_of_n", "stage1")
#: Whether the judge's word for an image is one of what was seen: shown, no endpoint.
_NAMED = "named_by_judge"
_COSTS = ("n_unet_evaluations", "n_unet_gradients", "seconds", "steps")
#: The validation images of notebook 02, the test images and those of held-out
#: categories, by part.
_DECODED: Mapping[Part, str] = {
    "pilot": "decoded_validation.h5",
    "confirmation": "decoded.h5",
    "heldout": "decoded_second.h5",
    "discrepancies": "decoded.h5",
}


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
    `n_jobs` subjects at once, on GPUs one each; `say` is told of every arm. The
    discrepancies are shown on the first two subjects. Returned is the pilot's summary,
    the verdicts, or the effects; errors as `run_subject`.
    """
    run = start(name, overrides=overrides)
    subjects = run.profile.subjects[: 2 if part == "discrepancies" else None]
    on_gpu = run.profile.models.device == "cuda" and n_jobs > 1
    gpus = visible_gpus(n_jobs) if on_gpu else ()
    places = {"MINDDIFF_ROOT": run.tree.root, "MINDDIFF_NSD_ROOT": run.tree.nsd}
    given = [(name, subject, dict(overrides), part) for subject in subjects]
    tables = {}
    with environment({variable: str(path) for variable, path in places.items()}):
        for subject, table, lines in in_processes(_work, given, n_jobs, gpus):
            tables[subject] = table
            for line in lines:
                say(line)
    scores = pd.concat([tables[s] for s in subjects], ignore_index=True)
    return _write(run, part, scores)


def _work(
    name: str, subject: int, overrides: dict[str, Any], part: Part
) -> tuple[int, pd.DataFrame, list[str]]:
    """Run one subject in a process of its own; return also what there is to say."""
    lines: list[str] = []
    run = start(name, subject=subject, overrides=overrides)
    return subject, run_subject(run, part, lines.append), lines


def run_subject(run: Run, part: Part, say: Callable[[str], None]) -> pd.DataFrame:
    """Make or read the images of every arm of one subject; return all their scores.

    `run` is of one subject and all images: validation ones for the pilot's variants,
    test ones for the arms and for discrepancies, whose decoding is scored too, those of
    held-out categories for ours; `say` is told of each arm. Without a study in the
    profile, ConfigError; where notebook 02 has not run for this subject, StoreError.
    """
    if run.profile.study.n_images == 0:
        raise ConfigError(
            f"Profile {run.profile.name} has no study: set study.n_images above 0."
        )
    decoded = run.folder / _DECODED[part]
    store.read_arrays(decoded, ["nsd_id"])  # says if it is not there
    models = run.profile.models
    backbone = load_backbone(models, run.tree.models)
    judge = load_judge(run.tree.models, kind=models.backbone, device=models.device)
    study = run.profile.study
    n = study.n_images if part == "confirmation" else study.n_images_pilot
    features = SubjectFeatures(run, backbone, decoded=decoded.name, n=n)
    others: dict[str, SubjectFeatures] = {}
    tables = []
    if part == "discrepancies":
        given = (run, backbone, run.profile.ablation.n_images)
        features, others["imagenet"], scores = discrepancies.read_again(*given)
        tables.append(scores)
    made = []
    for arm in arms_of(run.profile, part):
        began, own = time.perf_counter(), others.get(arm.name, features)
        made.append(generate(own.run, own.backbone, own, arm))
        say(f"subject {run.subject}, {arm.name}: {time.perf_counter() - began:.0f} s")
        lost = made[-1].nsd_id[~made[-1].finished].tolist()
        if lost:
            say(f"left out, as {models.dtype} gave no number: images {lost}")
    return pd.concat([score_arms(features, judge, made), *tables])


# --- scores of one subject ------------------------------------------------------------


def score_arms(
    features: SubjectFeatures, judge: Judge, made: Sequence[Generated]
) -> pd.DataFrame:
    """Return a row per arm, finished image and metric: scores, losses and costs."""
    run, ids, stimuli = features.run, features.nsd_id, features.path("stimuli.h5")
    stored = store.read_arrays(stimuli, ["nsd_id", "captions"])
    rows = rows_of(stimuli.parent, ids, stored["nsd_id"])
    truth = ConditionImages("truth", ids, store.read_rows(stimuli, "images")[rows])
    shows = categories_in_captions(stored["captions"])
    names, shown_in = all_names(shows), dict(zip(ids, rows, strict=True))
    words: list[pd.DataFrame] = []

    def name(shown: ConditionImages, _network: str, seen: Floats) -> None:
        """Say whether the judge names what is on each image of an arm."""
        if shown.method == "truth" or not names:
            return
        said = name_by_captions(seen, names, text_embed_with(judge))
        both = zip(said, shown.nsd_id, strict=True)
        right = [float(word in shows[shown_in[i]]) for word, i in both]
        rows = score_rows(shown.method, shown.nsd_id, _NAMED, right)
        words.append(rows.assign(subject=str(run.subject)))

    arms = map(finished_of, made)
    look = {"clip_judge": embed_with(judge, run.profile.models.batch_size)}
    table = score_methods(run.subject or 0, arms, truth, look, seen_by=name).table
    table = table[table["metric"].isin(ENDPOINTS)]
    columns = ["subject", "method", "nsd_id", "metric", "value"]
    return pd.concat([table[columns], *words, *_losses_and_costs(features, made)])


@torch.no_grad()
def _losses_and_costs(
    features: SubjectFeatures, made: Sequence[Generated]
) -> Iterator[pd.DataFrame]:
    """Yield each arm's losses, in the columns of its scores, and what an image cost.

    structural_loss: balanced over all decoded blocks; paper_loss: Algorithm 1's sum;
    heldout_loss: balanced, of the features that were not selected, against those of the
    seen image: it rises where an arm fits what the decoder got wrong.
    """
    decoded = features.of("decoded").target
    targets: list[tuple[str, StructuralTarget, Loss]] = [
        ("structural_loss", decoded, "balanced"),
        ("paper_loss", decoded, "paper"),
    ]
    if (other := unselected(features.of("true").target)) is not None:
        targets.append(("heldout_loss", other, "balanced"))
    backbone = features.backbone
    for arm in made:
        kept = np.flatnonzero(arm.finished).tolist()
        x = to_torch(arm.images[kept]).to(backbone.device, backbone.dtype)
        layers = backbone.clip_layers(x, decoded.layers)
        values = {name: each[kept].astype(float) for name, each in _costs(arm).items()}
        for name, target, kind in targets:
            loss = StructuralLoss.of(target.rows(kept), kind)(layers)
            values[name] = loss.double().cpu().numpy()
        index = {"subject": str(features.run.subject), "method": arm.condition.name}
        table = pd.DataFrame({**index, "nsd_id": arm.nsd_id[kept], **values})
        yield table.melt([*index, "nsd_id"], var_name="metric")


def _costs(arm: Generated) -> dict[str, Array]:
    """Return what each image of an arm cost, by name."""
    n = len(arm.nsd_id)
    evaluations, none = np.full(n, arm.n_unet_evaluations), np.zeros(n)
    costs = {"n_unet_evaluations": evaluations, "n_unet_gradients": none, "steps": none}
    if arm.condition.stage == 2:
        names = {"steps": "stopped"}
        costs = {name: arm.stacked(names.get(name, name)) for name in costs}
    return costs | {"seconds": arm.seconds}


def unselected(target: StructuralTarget) -> StructuralTarget | None:
    """Return the target of the features that no arm's loss saw, if there are any."""
    others = {k: ~mask & (target.scale[k] > 0) for k, mask in target.selected.items()}
    if not all(bool(mask.any()) for mask in others.values()):
        return None
    return replace(target, selected=others)


# --- tables of all subjects -----------------------------------------------------------


def cost_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Return each arm's mean costs per image, and the share of `paper`'s."""
    table = _means(scores, _COSTS)
    evaluations = table["n_unet_evaluations"]
    whole = evaluations[table["method"] == "paper"]
    return table.assign(share=evaluations / float(whole.iloc[0]))


def _means(scores: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Return the mean of each method (rows) in some metrics (columns)."""
    table = scores.pivot_table(
        index="method", columns="metric", values="value", sort=False
    )
    kept = [name for name in metrics if name in table]
    return table[kept].reset_index().rename_axis(columns=None)


def pareto_table(scores: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Return each arm's endpoints with their interval, and its cost per image.

    Columns: method, metric, value, low, high, cost (U-Net evaluations), n_images,
    n_subjects.
    """
    cost = cost_table(scores).set_index("method")["n_unet_evaluations"]
    rows = []
    made = Matrices(scores[scores["metric"].isin(ENDPOINTS)])
    for method, metric in made.pairs:
        values = made.matrix(method, metric).dropna(axis=1)
        mean = estimate(values, confidence=confidence)
        counts = (float(cost[method]), mean.n_images, mean.n_subjects)
        rows.append((method, metric, mean.value, mean.low, mean.high, *counts))
    columns = ["method", "metric", "value", "low", "high", "cost"]
    return pd.DataFrame(rows, columns=[*columns, "n_images", "n_subjects"])


def confirm(
    scores: pd.DataFrame, margins: Mapping[str, float], confidence: float
) -> pd.DataFrame:
    """Return whether our engine is no worse than each reference, by endpoint.

    As `contrast_table` of the scores of all subjects, with margin (by endpoint: how
    much worse still counts as no worse; fixed beforehand) and verdict. A difference is
    counted so that above 0 means better: "better" where its interval lies above 0, "no
    worse" above minus the margin, "worse" below 0 and not above minus the margin, else
    "not shown".
    """
    known = scores[scores["metric"].isin(margins)]
    sign = known["metric"].map({m: 1.0 if up else -1.0 for m, up in ENDPOINTS.items()})
    signed = known.assign(value=known["value"] * sign)
    pairs = [("bayes", other) for other in REFERENCES]
    table = contrast_table(signed, pairs, confidence=confidence)
    table["margin"] = table["metric"].map(margins)
    is_worse, is_better = table["ci_high"] < 0, table["ci_low"] > 0
    table["verdict"] = np.select(
        [is_better, table["ci_low"] > -table["margin"], is_worse],
        ["better", "no worse", "worse"],
        "not shown",
    )
    return table


# --- what is written, and read again --------------------------------------------------


def _write(run: Run, part: Part, scores: pd.DataFrame) -> pd.DataFrame:
    """Write the tables of a part, with its settings; return the main one."""
    if part == "pilot":
        names = (*ENDPOINTS, _NAMED, "heldout_loss", *_COSTS)
        tables = {"pilot": _means(scores, names)}
    elif part == "heldout":
        known = scores[scores["metric"].isin((*ENDPOINTS, _NAMED))]
        arms = [arm.name for arm in arms_of(run.profile, part)]
        pairs = [(arm, "stage1") for arm in arms if arm != "stage1"]
        sure = run.profile.evaluation.confidence
        tables = {"heldout": contrast_table(known, pairs, confidence=sure)}
    elif part == "discrepancies":
        tables = {"discrepancies": discrepancies.effects(scores, run.profile)}
    else:
        result = study_of(run, scores)
        tables = {"verdicts": result.verdicts, "scores": scores, "costs": result.costs}
    for name, table in tables.items():
        store.write_table(run.tree.study / f"{name}.csv", table, run=run)
    store.write_text(run.tree.study / f"{part}.json", _settings(run, part), run=run)
    return next(iter(tables.values()))


def _settings(run: Run, part: Part) -> str:
    """Return the command, the profile and every arm with its settings, as JSON."""
    profile, arms = run.profile, {}
    for arm in arms_of(profile, part):
        used = asdict(settings_of(arm, profile)) if arm.stage == 2 else None
        arms[arm.name] = asdict(arm) | {"settings": used}
    facts = {
        "command": f"minddiff study --profile {profile.name} --part {part}",
        "note": run.label,
        "arms": arms,
        "profile": profile.model_dump(mode="json"),
    }
    return json.dumps(facts, indent=1) + "\n"


@dataclass(frozen=True)
class StudyResult:
    """What the last study of a profile found.

    `pilot`: means of each variant, None where it has not been run; the rest from
    `pareto_table`, `cost_table` and `confirm`, all at one confidence.
    """

    pilot: pd.DataFrame | None
    points: pd.DataFrame
    costs: pd.DataFrame
    verdicts: pd.DataFrame
    confidence: float


def study_of(run: Run, scores: pd.DataFrame) -> StudyResult:
    """Return what the scores of a confirmation show, under the run's profile."""
    pilot, sure = run.tree.study / "pilot.csv", run.profile.evaluation.confidence
    return StudyResult(
        pilot=store.read_table(pilot) if pilot.is_file() else None,
        points=pareto_table(scores, sure),
        costs=cost_table(scores),
        verdicts=confirm(scores, run.profile.study.margins, sure),
        confidence=sure,
    )


def read_study(run: Run) -> StudyResult | None:
    """Return the confirmation of our engine, None where it has not been run.

    All follows from the scores of the images, so that a study that was published before
    a reference was added is held against that one, too. Arms that a study no longer has
    are left out. Damaged, StoreError.
    """
    path = run.tree.study / "scores.csv"
    if not path.is_file():
        return None
    scores = store.read_table(path).astype({"subject": str})
    # an early one calls stage 1 so
    scores = scores.replace({"method": {"none": "stage1"}})
    arms = [arm.name for arm in arms_of(run.profile, "confirmation")]
    known = scores[scores["method"].isin(arms)]
    return study_of(run, known) if "bayes" in set(known["method"]) else None


def conclusions(result: StudyResult) -> list[str]:
    """Return what the confirmation shows over all subjects, a sentence per line.

    First ours against each reference, then the arm with the best mean of
    each endpoint, among those that see the decoded features of the right brain.
    """
    whole = result.verdicts[result.verdicts["subject"] == "all"]
    cost = result.costs.set_index("method")["n_unet_evaluations"].astype(float)
    lines = []
    for names, block in whole.groupby(["reference", "method"], sort=False):
        other, ours = map(str, names)
        verdicts = block.groupby("verdict", sort=False)["metric"].agg(", ".join)
        told = "; ".join(f"{verdict}: {on}" for verdict, on in verdicts.items())
        share = float(cost[ours] / cost[other])
        lines.append(
            f"{ENGINES[ours]} against {ENGINES[other]}, at {share:.1%} of its U-Net"
            f" evaluations: {told}."
        )
    points = result.points[result.points["method"].isin(ENGINES)]
    for metric, block in points.groupby("metric", sort=False):
        values = block.set_index("method")["value"]
        best = str(values.idxmax() if ENDPOINTS[str(metric)] else values.idxmin())
        lines.append(
            f"Best mean of {metric}: {ENGINES[best]} ({values[best]:.3f});"
            f" stage 1 alone {values['stage1']:.3f}."
        )
    return lines
