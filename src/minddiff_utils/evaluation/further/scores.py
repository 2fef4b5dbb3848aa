"""Naming, caption words and brain correlation of every image of a run.

The measures themselves are in `naming`, `captions` and `brain_correlation`; here is
what they look at: the images of each method once, by the judge and by EfficientNet-
Lite0, which the probe and the encoding model share.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from minddiff_utils.core import store
from minddiff_utils.core.conditions import by_name
from minddiff_utils.core.run import Run
from minddiff_utils.core.types import Doubles, Floats, Matrix
from minddiff_utils.evaluation.further.brain_correlation import (
    area_sets,
    fit_encoder,
    pattern_correlation,
)
from minddiff_utils.evaluation.further.captions import caption_scores
from minddiff_utils.evaluation.further.naming import (
    Probe,
    all_names,
    chance_of_names,
    fit_probe,
    name_by_captions,
)
from minddiff_utils.evaluation.images import condition_images, read_stimuli, rows_of
from minddiff_utils.evaluation.metrics import METRICS, ConditionImages
from minddiff_utils.evaluation.metrics.registry import LITE0
from minddiff_utils.evaluation.subject_scores import Models, each_subject, embed_with
from minddiff_utils.preprocessing import categories_in_captions

__all__ = [
    "NAMED_BY",
    "ROLES",
    "FurtherScores",
    "further_scores",
    "subject_further_scores",
]


#: Features of images, layer by layer.
Layers = Sequence[Floats]

_COLUMNS = ["subject", "method", "nsd_id", "metric", "value", "floor"]
#: Metric -> who names, in words.
NAMED_BY: Mapping[str, str] = {
    "named_by_judge": "named by the judge CLIP, zero-shot",
    "named_by_probe": "named by a linear probe on EfficientNet-Lite0",
}
#: Who says so -> what its network does elsewhere.
ROLES: Mapping[str, str] = {
    "named_by_judge": METRICS["clip_judge"].judge_role,
    "named_by_probe": METRICS["lite0_late"].judge_role,
    "brain": METRICS["lite0_late"].judge_role,
}


@dataclass(frozen=True)
class FurtherScores:
    """Scores of each image; tables have columns subject, method, nsd_id, metric, value.

    Attributes
    ----------
    naming : DataFrame
        And floor: how often the name would be right for the other images.
    brain : DataFrame
        And floor: the responses to the other images.
    captions : DataFrame
        And floor, caption; methods are "decoded c" and "true c".
    categories : mapping of int to frozenset of str
        What is on each evaluated image, by its captions.
    """

    naming: pd.DataFrame
    brain: pd.DataFrame
    captions: pd.DataFrame
    categories: Mapping[int, frozenset[str]]


def _shown(run: Run, subject: int, truth: ConditionImages) -> Iterator[ConditionImages]:
    """Yield the true images, then all conditions but those of the ablation alone."""
    yield truth
    rows = by_name()
    for condition in condition_images(run, subject, truth):
        row = rows.get(condition.method)
        if row is not None and row.n_images != "ablation":
            yield condition


def _frame(
    subject: int, shown: ConditionImages, metric: str, **columns: object
) -> pd.DataFrame:
    table = pd.DataFrame({"nsd_id": shown.nsd_id, **columns})
    table.insert(0, "subject", str(subject))
    table.insert(1, "method", shown.method)
    table.insert(3, "metric", metric)
    return table


def _namers(
    run: Run, models: Models, names: list[str], probe: Probe | None
) -> dict[str, Callable[[ConditionImages, Layers], list[str]]]:
    """Return who can name images: the judge, and the probe where there is one."""
    if not names:
        return {}
    embed = embed_with(models.judge, run.profile.models.batch_size)

    def embed_texts(texts: Sequence[str]) -> Matrix:
        return models.judge.text_embed(texts).float().cpu().numpy()

    namers: dict[str, Callable[[ConditionImages, Layers], list[str]]] = {
        "named_by_judge": lambda shown, _: name_by_captions(
            embed(shown.images), names, embed_texts
        )
    }
    if probe is not None:
        namers["named_by_probe"] = lambda _, layers: probe.name(layers[-1])
    return namers


def _without(matrix: Doubles) -> Doubles:
    """Return each row's mean without the diagonal; NaN of a single image."""
    n = len(matrix)
    others = matrix.sum(axis=1) - np.diag(matrix)
    return np.asarray(others / (n - 1 if n > 1 else np.nan))


def subject_further_scores(run: Run, subject: int, models: Models) -> FurtherScores:
    """Return the further scores of one subject.

    Without captions that name a category there are no names, without Lite0's package
    neither probe nor brain correlation, and without 20 voxels no brain correlation:
    these rows are then missing.

    Raises
    ------
    StoreError
        An artefact is missing, or two of them do not belong together.
    """
    folder = run.tree.derived(subject)
    truth = read_stimuli(run, subject).truth
    stored = store.read_arrays(folder / "stimuli.h5", ["nsd_id", "captions"])
    images = store.read_rows(folder / "stimuli.h5", "images")
    names = ["split", "betas", "roi", "roi_names"]
    brain = store.read_arrays(folder / "responses.h5", names)
    categories = categories_in_captions(stored["captions"])
    train = np.flatnonzero(brain["split"] == "train")
    look = [models.networks[name] for name in LITE0 if name in models.networks]
    known = [network(images.of(train)) for network in look]
    words, probe = all_names(categories), None
    if known and words:
        probe = fit_probe(known[-1], [categories[row] for row in train])
    sets = area_sets(brain["roi"], [str(name) for name in brain["roi_names"]])
    encoder = None
    if known and sets:
        encoder = fit_encoder(known, brain["betas"][train], seed=run.profile.seed)
    del known  # before the images are looked at
    namers, named, evoked = _namers(run, models, words, probe), [], []
    for shown in _shown(run, subject, truth):
        rows = rows_of(folder, shown.nsd_id, stored["nsd_id"])
        layers = [network(shown.images) for network in look]
        own = [categories[row] for row in rows]
        for metric, namer in namers.items():
            said = namer(shown, layers)
            right = [float(w in o) for w, o in zip(said, own, strict=True)]
            chance = chance_of_names(said, own)
            named.append(_frame(subject, shown, metric, value=right, floor=chance))
        if encoder is None:
            continue
        predicted, measured = encoder.predict(layers), brain["betas"][rows]
        for area, mask in sets.items():
            r = pattern_correlation(predicted[:, mask], measured[:, mask])
            both = {"value": np.diag(r), "floor": _without(r)}
            evoked.append(_frame(subject, shown, f"brain_{area}", **both))
    seen = rows_of(folder, truth.nsd_id, stored["nsd_id"])
    return FurtherScores(
        _together(named),
        _together(evoked),
        caption_scores(run, subject, models),
        {int(stored["nsd_id"][row]): categories[row] for row in seen},
    )


def _together(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    if not tables:
        return pd.DataFrame(columns=_COLUMNS)
    return pd.concat(tables, ignore_index=True)


def further_scores(
    run: Run,
    subjects: Sequence[int],
    *,
    load: Callable[[Run], Models] | None = None,
) -> FurtherScores:
    """Return the further scores of all subjects, on a CPU several subjects at once."""
    done = list(each_subject(run, subjects, subject_further_scores, load=load).values())
    categories: dict[int, frozenset[str]] = {}
    for scores in done:
        categories |= scores.categories
    naming, brain, captions = (
        _together([table for x in done if len(table := getattr(x, name))])
        for name in ("naming", "brain", "captions")
    )
    return FurtherScores(naming, brain, captions, categories)
