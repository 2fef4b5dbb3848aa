"""Naming, caption words and brain correlation of every image of a run.

The measures themselves are in `naming`, `captions` and `brain_correlation`; here is
what they are made from: what the judge and EfficientNet-Lite0, which the probe and the
encoding model share, see in each image while its scores are made.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from minddiff_utils.core import store
from minddiff_utils.core.areas import AREAS
from minddiff_utils.core.conditions import by_name
from minddiff_utils.core.run import Run
from minddiff_utils.core.types import Floats, IntArray
from minddiff_utils.evaluation.further import brain_correlation, naming
from minddiff_utils.evaluation.further.caption_metrics import load_caption_scores
from minddiff_utils.evaluation.further.captions import caption_scores
from minddiff_utils.evaluation.images import rows_of, wanted_ids
from minddiff_utils.evaluation.metrics import METRICS, ConditionImages, score_rows
from minddiff_utils.evaluation.metrics.registry import LITE0
from minddiff_utils.evaluation.subject_scores import (
    Models,
    Scored,
    each_subject,
    join_subjects,
    score_subject,
    text_embed_with,
)
from minddiff_utils.preprocessing import categories_in_captions

__all__ = ["NAMED_BY", "ROLES", "all_scores"]


#: Images to responses (n, n_voxels); what Lite0 sees in them may be given.
Respond = Callable[..., Floats]
ReadBrain = Callable[[Path, int, IntArray], Respond | None]
#: A metric, and embeddings (n, n_features) to n names.
Namer = tuple[str, Callable[[Floats], list[str]]]

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

    `naming`: its floor is how often the name would be right for the other images;
    `brain`: its floor is the responses to the other images, metrics are `brain_` and an
    area set, in silico `true_brain_` and a set of several areas, too; `captions`: as
    `caption_scores`. `categories`: what is on each evaluated image, by its captions;
    `captions_absent`: scores of captions whose files are not here -> the sentence that
    says so.
    """

    naming: pd.DataFrame
    brain: pd.DataFrame
    captions: pd.DataFrame
    categories: Mapping[int, frozenset[str]]
    captions_absent: Mapping[str, str]


@dataclass
class _Look:
    """What is asked of each condition's images beside their scores.

    Called with what a network sees in them, so that no image is looked at again.
    """

    folder: Path
    nsd_id: IntArray
    categories: Sequence[frozenset[str]]
    betas: Floats
    namers: Mapping[str, Namer]
    encoder: brain_correlation.Encoder | None
    sets: Mapping[str, Any]
    true_brain: Respond | None
    layers: list[Floats] = field(default_factory=list)
    named: list[pd.DataFrame] = field(default_factory=list)
    evoked: list[pd.DataFrame] = field(default_factory=list)

    def __call__(self, shown: ConditionImages, network: str, seen: Floats) -> None:
        """Take what `network` sees in the images of a condition, (n, n_features)."""
        row = by_name().get(shown.method)
        if shown.method != "truth" and (row is None or row.n_images == "ablation"):
            return
        rows = rows_of(self.folder, shown.nsd_id, self.nsd_id)
        if network in self.namers:
            metric, namer = self.namers[network]
            said, own = namer(seen), [self.categories[row] for row in rows]
            right = [float(word in one) for word, one in zip(said, own, strict=True)]
            both = (right, naming.chance_of_names(said, own))
            self.named.append(score_rows(shown.method, shown.nsd_id, metric, *both))
        if network in LITE0 and self.encoder is not None:
            self.layers.append(seen)
            if len(self.layers) == len(LITE0):
                evoked: dict[str, Floats] = {"brain": self.encoder.predict(self.layers)}
                if self.true_brain is not None:
                    images = np.asarray(shown.images[:])
                    evoked["true_brain"] = self.true_brain(images, self.layers)
                self.layers.clear()
                self._compare(shown, evoked, self.betas[rows])

    def _compare(
        self, shown: ConditionImages, evoked: Mapping[str, Floats], measured: Floats
    ) -> None:
        for (name, predicted), (area, mask) in product(
            evoked.items(), self.sets.items()
        ):
            if name == "true_brain" and area in AREAS:
                continue  # the encoding model tells the areas apart
            patterns = predicted[:, mask], measured[:, mask]
            r = brain_correlation.pattern_correlation(*patterns)
            who = shown.method, shown.nsd_id, f"{name}_{area}"
            self.evoked.append(score_rows(*who, np.diag(r), naming.mean_of_others(r)))


def _namers(
    models: Models, names: list[str], probe: naming.Probe | None
) -> dict[str, Namer]:
    """Return, by network, who can name images: the judge, and the probe if any."""
    if not names:
        return {}

    def judge(seen: Floats) -> list[str]:
        return naming.name_by_captions(seen, names, text_embed_with(models.judge))

    namers: dict[str, Namer] = {"clip_judge": ("named_by_judge", judge)}
    if probe is not None:
        namers["lite0_late"] = ("named_by_probe", probe.name)
    return namers


def _fit_look(
    run: Run, subject: int, models: Models, true_brain: ReadBrain | None
) -> _Look:
    """Fit the probe and the encoding model of a subject to its training images.

    Without captions that name a category there are no names, without Lite0's package
    neither probe nor brain correlation, and without 20 voxels no brain correlation:
    these rows are then missing.
    """
    folder = run.tree.derived(subject)
    stored = store.read_arrays(folder / "stimuli.h5", ["nsd_id", "captions"])
    images = store.read_rows(folder / "stimuli.h5", "images")
    names = ["split", "betas", "roi", "roi_names"]
    brain = store.read_arrays(folder / "responses.h5", names)
    categories = categories_in_captions(stored["captions"])
    train = np.flatnonzero(brain["split"] == "train")
    look = [models.networks[name] for name in LITE0 if name in models.networks]
    known = [network(images.of(train)) for network in look]
    words, probe, encoder = naming.all_names(categories), None, None
    if known and words:
        probe = naming.fit_probe(known[-1], [categories[row] for row in train])
    sets = brain_correlation.area_sets(
        brain["roi"], [str(name) for name in brain["roi_names"]]
    )
    if known and sets:
        encoder = brain_correlation.fit_encoder(
            known, brain["betas"][train], seed=run.profile.seed
        )
    return _Look(
        folder,
        stored["nsd_id"],
        categories,
        brain["betas"],
        _namers(models, words, probe),
        encoder,
        sets,
        _true_voxels(run, subject, true_brain),
    )


def _true_voxels(
    run: Run, subject: int, true_brain: ReadBrain | None
) -> Respond | None:
    """Return the subject's true brain, None where its responses were measured."""
    if true_brain is None or replace(run, subject=subject).origin != "in silico":
        return None
    stored = run.tree.derived(subject) / "responses.h5"
    voxels = store.read_arrays(stored, ["voxel_ijk"])  # measured ones may be vertices
    return true_brain(run.tree.nsd, subject, voxels["voxel_ijk"])


def _score_subject(
    run: Run, subject: int, models: Models, *, true_brain: ReadBrain | None = None
) -> tuple[Scored, FurtherScores]:
    """Return the scores and the further scores of one subject."""
    look = _fit_look(run, subject, models, true_brain)
    scored = score_subject(run, subject, models, seen_by=look)
    seen = rows_of(look.folder, wanted_ids(run, subject), look.nsd_id)
    naming, evoked = (
        _together(tables).assign(subject=str(subject))[_COLUMNS]
        for tables in (look.named, look.evoked)
    )
    categories = {int(look.nsd_id[row]): look.categories[row] for row in seen}
    published = load_caption_scores(run.tree.models, device=run.profile.models.device)
    captions = caption_scores(run, subject, models, published.scores)
    return scored, FurtherScores(naming, evoked, captions, categories, published.absent)


def _together(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the tables that have rows, one below the other."""
    found = [table for table in tables if len(table)]
    return (
        pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=_COLUMNS)
    )


def all_scores(
    run: Run,
    subjects: Sequence[int],
    *,
    true_brain: ReadBrain | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, FurtherScores]:
    """Return the scores, the Fréchet distances and the further scores of subjects.

    On a CPU several subjects at once; each network looks at each image once. The first
    two tables are those of `join_subjects`; `true_brain`, of a module
    (`insilico.read_brain`): folder of the data, subject and places of voxels to a
    function from images to responses, or None where there is none. It is asked where
    the responses are in silico, and looks at images by itself. An artefact is missing,
    or two of them do not belong together: StoreError.
    """
    done = each_subject(run, subjects, partial(_score_subject, true_brain=true_brain))
    scores, distances = join_subjects(run, {s: both[0] for s, both in done.items()})
    further = [both[1] for both in done.values()]
    joined: dict[str, Any] = {
        name: _together([getattr(part, name) for part in further])
        for name in ("naming", "brain", "captions")
    }
    categories = {i: own for part in further for i, own in part.categories.items()}
    whole = replace(further[0], categories=categories, **joined)
    return scores, distances, whole
