"""The study of stage 2: whether a cheap engine is no worse than the paper's algorithm.

Two parts, both outside the notebooks' ten minutes. The pilot tries variants of our
engines on validation images, which no decoder was fitted to; settings are chosen there.
The confirmation runs every arm, with the settings of the profile, on test images, and
holds ours against Algorithm 1 by margins that the profile states. Work is
kept arm by arm, so that a study that was cut off goes on where it was. Not here: the
engines (`alignment`, `guided_sampling`) and single scores (`metrics`). Command
`minddiff study`; appendix notebook A3 shows what it found.

`arms` says what is compared, `images` makes and keeps it, `scores` measures it; here
all of them are run, subject by subject.
"""

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from minddiff_utils.core import store
from minddiff_utils.core.errors import ConfigError
from minddiff_utils.core.locks import end_with_parent
from minddiff_utils.core.run import Run, start
from minddiff_utils.core.surroundings import (
    ended_if_cut_off,
    environment,
    interrupts_held,
    settled,
    visible_gpus,
)
from minddiff_utils.evaluation import resampling
from minddiff_utils.models import load_backbone, load_judge
from minddiff_utils.studies.study.arms import (
    SHOWN,
    Arm,
    Part,
    arms_of,
    confirmation_arms,
    pilot_arms,
)
from minddiff_utils.studies.study.images import decoder_path, images_of
from minddiff_utils.studies.study.scores import (
    ENDPOINTS,
    confirm,
    cost_table,
    pareto_table,
    score_arms,
    summarise_pilot,
)

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

__all__ = [
    "ENDPOINTS",
    "SHOWN",
    "Arm",
    "Part",
    "StudyResult",
    "conclusions",
    "confirm",
    "confirmation_arms",
    "cost_table",
    "pareto_table",
    "pilot_arms",
    "read",
    "run_study",
    "run_subject",
    "summarise_pilot",
]


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
    store.read_arrays(decoder_path(run, part), ["nsd_id"])  # says if it is not there
    models = run.profile.models
    backbone = load_backbone(models, run.tree.models)
    judge = load_judge(run.tree.models, kind=models.backbone, device=models.device)
    made = {}
    for arm in arms_of(run.profile, part):
        began = time.perf_counter()
        made[arm.name] = images_of(run, backbone, part, arm)
        say(f"subject {run.subject}, {arm.name}: {time.perf_counter() - began:.0f} s")
    return score_arms(run, backbone, judge, part, made)


def _worker(name: str, subject: int, overrides: dict[str, Any], part: Part) -> Any:
    """Run one subject in a process of its own."""
    run = start(name, subject=subject, overrides=overrides)
    told: list[str] = []
    return run_subject(run, part, told.append), told


def _begin_worker(gpus: "SimpleQueue[str] | None") -> None:
    """Let this process end with its parent, and take a GPU of its own."""
    end_with_parent()
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus.get()


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
            futures = [
                pool.submit(_worker, name, subject, dict(overrides), part)
                for subject in run.profile.subjects
            ]
        tables = []
        for future in as_completed(futures):
            table, told = future.result()
            tables.append(table)
            for words in told:
                say(words)
    order = [str(subject) for subject in run.profile.subjects]
    scores = pd.concat(tables, ignore_index=True)
    rank = scores["subject"].map(order.index)
    scores = scores.iloc[np.argsort(rank, kind="stable")].reset_index(drop=True)
    return _write(run, part, scores)


def _write(run: Run, part: Part, scores: pd.DataFrame) -> pd.DataFrame:
    """Write what a part found, with its settings; return its main table."""
    folder = run.tree.study
    if part == "pilot":
        found = summarise_pilot(scores)
        store.write_table(folder / "pilot.csv", found, run=run)
    else:
        found = confirm(scores, run.profile.study.margins, resampling=resampling(run))
        store.write_table(folder / "scores.csv", scores, run=run)
        store.write_table(folder / "costs.csv", cost_table(scores), run=run)
        store.write_table(folder / "verdicts.csv", found, run=run)
    store.write_text(folder / f"{part}.json", _settings(run, part), run=run)
    return found


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


def read(run: Run) -> StudyResult | None:
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
            cost, engine = float(share[name] / share[reference]), SHOWN.get(name, name)
            lines.append(
                f"{engine} against {SHOWN[reference]}, at {cost:.1%} of its U-Net"
                f" evaluations: {told}."
            )
    points = result.points[result.points["method"].isin(SHOWN)]
    for metric, block in points.groupby("metric", sort=False):
        values = block.set_index("method")["value"]
        best = str(values.idxmax() if ENDPOINTS[str(metric)] else values.idxmin())
        lines.append(
            f"Best mean of {metric}: {SHOWN[best]} ({values[best]:.3f});"
            f" stage 1 alone {values['none']:.3f}."
        )
    return lines


def _settings(run: Run, part: Part) -> str:
    """Return the command, the profile and every arm's settings as JSON."""
    words = {
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
    return json.dumps(words, indent=1) + "\n"
