"""Decoders trained on NSD's core, tried on its further test sets.

What notebook A7 calls. Nothing is fitted here: stored decoders of notebook 02 predict
c, z and Z_CLIP from responses that no decoder has seen, and what is known of the
stimuli says how often a prediction is nearer to its own stimulus than to others.

Which stimuli are shown as stage 1 makes them follows a rule, not the result: the first
two of each class of synthetic stimuli, all pictures of NSD-imagery. The sampler, its
settings and its noise are those of notebook 03; an image's noise is the same whether it
was seen or imagined.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.run import Run
from minddiff_utils.core.types import Array, Doubles, Images, Ints, Mask, Matrix
from minddiff_utils.datasets.further_tests import FurtherTest, further_tests
from minddiff_utils.datasets.further_tests.synthetic import CLASS_SIZE
from minddiff_utils.datasets.further_tests.test_set import Stimuli
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.decoding import RidgeGCV, VoxelSelectedRidge
from minddiff_utils.decoding._linear_decoder import LinearDecoder
from minddiff_utils.decoding.balanced_identification import (
    balanced_ranks,
    draw_balanced,
)
from minddiff_utils.decoding.identification import pairwise, row_products
from minddiff_utils.decoding.targets import TargetScaling
from minddiff_utils.features import image_features, semantic_features
from minddiff_utils.generation.generate import finished_images
from minddiff_utils.models import Backbone
from minddiff_utils.preprocessing.further_tests import FurtherResponses
from minddiff_utils.studies.again import sampled

__all__ = [
    "COLUMNS",
    "Draws",
    "Truth",
    "chosen",
    "conclusions",
    "decode",
    "present",
    "read_decoders",
    "reconstruct",
    "score",
    "stored_predictions",
    "true_features",
]


#: Draws of the candidates, all of which are averaged.
_N_DRAWS = 1000
#: Images encoded at once.
_BATCH = 64
_KINDS: Mapping[str, tuple[type[LinearDecoder], str]] = {
    "dense": (RidgeGCV, "weights intercept alpha band_scales criterion"),
    "voxel_selected": (
        VoxelSelectedRidge,
        "voxels weights intercept residual n_voxels alpha n_feat",
    ),
}
#: Of the table of scores, a row for each score.
COLUMNS = (
    *("test_set", "condition", "group", "standardised_by", "feature", "measure"),
    *("value", "chance", "n_images", "n_trials", "n_candidates", "n_draws", "p"),
)


def present(tree: NsdTree, subject: int) -> tuple[list[FurtherTest], list[str]]:
    """Return the further test sets of a subject, and a sentence on each that is not."""
    found, words = [], []
    for test_set in further_tests(tree):
        absent = test_set.absent_words(subject)
        words += [absent] if absent else []
        found += [] if absent else [test_set]
    return found, words


# --- predictions ----------------------------------------------------------------------


@dataclass(frozen=True)
class StoredDecoder:
    """The decoder of one feature as notebook 02 wrote it: its selected targets.

    `scaling`: of the selected targets; `selected`, (n_targets,) bool: which of the
    feature's targets they are; `mean`, (n_targets,): training mean of all of them.
    """

    decoder: LinearDecoder
    scaling: TargetScaling
    selected: Mask
    mean: Matrix


def read_decoders(
    run: Run, names: Sequence[str]
) -> Iterator[tuple[str, StoredDecoder]]:
    """Give the decoder of each feature, one at a time: they are large."""
    kind, keys = _KINDS[run.profile.decoder]
    for name in names:
        arrays = run.read("decoders", [f"{name}/{key}" for key in keys.split()])
        arrays = {key.removeprefix(f"{name}/"): x for key, x in arrays.items()}
        decoder = kind.from_arrays(arrays)
        known = [f"{name}/{key}" for key in ("mean", "scale", "selected")]
        stored = run.read("decoded", known)
        every, spread, selected = (stored[key] for key in known)
        spread = spread[selected]
        scale = np.where(spread > 0, spread, 1).astype(np.float64)
        scaling = TargetScaling(every[selected].astype(np.float64), scale, spread > 0)
        mean = every.astype(np.float32)
        yield name, StoredDecoder(decoder, scaling, selected, mean)


def decode(one: StoredDecoder, betas: Mapping[str, Matrix]) -> dict[str, Matrix]:
    """Return standardised predictions of the selected targets, by standardisation."""
    return {k: one.decoder.predict(X).astype(np.float32) for k, X in betas.items()}


# --- what is known of the stimuli -----------------------------------------------------


@dataclass(frozen=True)
class Truth:
    """A true feature of those stimuli that have it.

    `stimulus`, (n_known,): their numbers, ascending; `values`, (n_known, n_targets): in
    the feature's own units.
    """

    stimulus: Ints
    values: Matrix


def true_features(
    test_set: FurtherTest,
    subject: int,
    backbone: Backbone,
    layers: Sequence[int],
    n_captions: int,
) -> dict[str, Truth]:
    """Return z and Z_CLIP of the stimuli with a picture, c of those with words.

    Nobody described synthetic stimuli: c is not among what is returned of them.
    """
    pictures = test_set.pictures(subject, backbone.image_size)
    stimulus = np.array(sorted(pictures), np.int64)
    images = np.stack([pictures[number] for number in stimulus.tolist()])
    encoded = image_features(backbone, images, layers, batch_size=_BATCH)
    found = {name: Truth(stimulus, values) for name, values in encoded.items()}
    captions = test_set.captions(n_captions)
    if not captions:
        return found
    numbers = sorted(captions)
    rows = [
        semantic_features(backbone, np.array([captions[n]], object), batch_size=_BATCH)
        for n in numbers
    ]
    return {"c": Truth(np.array(numbers, np.int64), np.concatenate(rows)), **found}


# --- scores ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Draws:
    """What chance does with a test set, the same for all features.

    `others`, int (n_stimuli, n_draws, n_others): among which synthetic stimuli are
    ranked, 8 of each of 8 classes with the stimulus itself, in 1,000 draws; None of
    imagery. `n_permutations`: of the stimuli of a group, drawn by `rng`, for p.
    """

    others: Ints | None
    n_permutations: int
    rng: np.random.Generator

    @classmethod
    def of(
        cls, test_set: FurtherTest, n_permutations: int, rng: np.random.Generator
    ) -> Self:
        """Draw the candidates of a test set."""
        others = None
        if test_set.name == "synthetic":
            group = test_set.stimuli().group
            others = draw_balanced(group, CLASS_SIZE, _N_DRAWS, rng)
        return cls(others, n_permutations, rng)


def score(
    test_set: FurtherTest,
    responses: FurtherResponses,
    predictions: Mapping[str, Matrix],
    truth: Truth,
    one: StoredDecoder,
    draws: Draws,
) -> pd.DataFrame:
    """Score the predictions of one feature, condition by condition.

    Measures: `r`, the mean correlation over targets of decoded and true feature (its
    chance is that with the other stimuli); `pairwise`, how often a decoded feature is
    nearer to its own stimulus than to another of the group; of synthetic stimuli
    `rank_of_64` and `top_1_of_64` among 8 of each of 8 classes, means over 1,000 draws.
    p is one-sided, over permutations of the stimuli of a group. Columns `COLUMNS`,
    without `feature`; NaN where a measure has none of it.
    """
    groups = test_set.stimuli().group
    target = one.scaling.apply(truth.values[:, one.selected])
    rows: list[dict[str, Any]] = []
    for standard, Y_hat in predictions.items():
        for condition in dict.fromkeys(responses.condition.tolist()):
            at = responses.rows(condition)
            at = at[np.isin(responses.stimulus[at], truth.stimulus)]
            if len(at) < 2:
                continue
            stimulus = responses.stimulus[at]
            known = target[np.searchsorted(truth.stimulus, stimulus)]
            similarity = row_products(known, Y_hat[at]).similarity()
            names: dict[str, Any] = {"test_set": test_set.name, "condition": condition}
            names |= {"standardised_by": standard}
            names["n_trials"] = float(responses.n_repeats[at].mean())
            made = _rows(similarity, groups[stimulus], draws)
            rows += [names | row for row in made]
    table = pd.DataFrame(rows)
    return table.reindex(columns=[name for name in COLUMNS if name != "feature"])


def _rows(
    similarity: Doubles, groups: npt.NDArray[np.str_], draws: Draws
) -> Iterator[dict[str, Any]]:
    """Give the scores of a condition: all stimuli together, then by group."""
    every = np.ones(len(groups), bool)
    members = {group: groups == group for group in dict.fromkeys(groups)}
    sets = {"all": every} | (members if len(members) > 1 else {})
    names: dict[str, dict[str, Any]] = {
        group: {"group": group, "n_images": int(rows.sum())}
        for group, rows in sets.items()
    }
    for group, rows in sets.items():
        if rows.sum() > 1:
            some = similarity[np.ix_(rows, rows)]
            yield from (names[group] | row for row in _nearness(some, draws))
    if draws.others is None:
        return
    ranks = balanced_ranks(similarity, draws.others)
    n = {"n_candidates": ranks.n_candidates, "n_draws": ranks.n_draws}
    measures = {
        "rank_of_64": (ranks.rank, ranks.rank_chance),
        "top_1_of_64": (ranks.top_1, ranks.top_1_chance),
    }
    for (group, rows), (measure, (found, chance)) in product(
        sets.items(), measures.items()
    ):
        value = {"measure": measure, "value": float(found[rows].mean())}
        yield names[group] | n | value | {"chance": chance}


def _nearness(similarity: Doubles, draws: Draws) -> Iterator[dict[str, Any]]:
    """Give correlation and pairwise identification with their one-sided p."""
    n = len(similarity)
    own = float(np.diag(similarity).mean())
    other = float((similarity.sum() - np.trace(similarity)) / (n * (n - 1)))
    share = pairwise(similarity)
    higher = np.zeros(2)
    for _ in range(draws.n_permutations):
        permuted = similarity[:, draws.rng.permutation(n)]
        higher += (
            np.diag(permuted).mean() >= own - 1e-12,
            pairwise(permuted) >= share - 1e-12,
        )
    p = ((1 + higher) / (1 + draws.n_permutations)).tolist()
    yield {"measure": "r", "value": own, "chance": other, "p": p[0]}
    yield {"measure": "pairwise", "value": share, "chance": 0.5, "p": p[1]} | {
        "n_candidates": 2
    }


def stored_predictions(
    name: str, one: StoredDecoder, Y_hat: Matrix
) -> dict[str, Array]:
    """Return what `decoded_<test set>.h5` holds of a feature, (n_rows, n_targets).

    As in `decoded.h5`, in the feature's own units. Targets that the decoder does not
    select, whose weights nobody kept, are at their training mean.
    """
    every = np.tile(one.mean, (len(Y_hat), 1))
    every[:, one.selected] = one.scaling.invert(Y_hat)
    return {f"{name}/decoded": every, f"{name}/selected": one.selected}


def conclusions(scores: pd.DataFrame) -> list[str]:
    """Return how each condition fares under the core's statistics, in words."""
    chosen = scores[
        (scores["standardised_by"] == "core")
        & (scores["group"] == "all")
        & scores["measure"].isin(["pairwise", "rank_of_64"])
    ]
    names = ["test_set", "condition", "measure"]
    lines = []
    for (test_set, condition, measure), rows in chosen.groupby(names, sort=False):
        each = ", ".join(
            f"{row.feature} {row.value:.3g} (n = {row.n_images})"
            for row in rows.itertuples()
        )
        lines.append(
            f"NSD-{test_set}, {condition}, {measure} (chance "
            f"{rows['chance'].iloc[0]:.3g}): {each}."
        )
    return lines


#: Stimuli of a class that are shown, where there are many.
_N_EACH, _MANY = 2, 20


def chosen(stimuli: Stimuli) -> Ints:
    """Return the numbers of the stimuli that are shown, ascending.

    All that have a picture; of more than 20 the first two of each class.
    """
    pictured = np.flatnonzero(stimuli.has_picture)
    if len(pictured) <= _MANY:
        return pictured
    of_class = [pictured[stimuli.group[pictured] == g] for g in set(stimuli.group)]
    return np.sort(np.concatenate([rows[:_N_EACH] for rows in of_class]))


def reconstruct(
    run: Run,
    backbone: Backbone,
    test_set: FurtherTest,
    responses: FurtherResponses,
    decoded: Mapping[str, Array],
) -> dict[str, Images]:
    """Return the stimuli that are shown, and what stage 1 makes of each condition.

    `decoded`: with `c/decoded` and `z/decoded`, (n_rows, n_targets), rows as those of
    `responses`. "shown", then a row for each condition but attention: uint8 (n_shown,
    S, S, 3) each.
    """
    numbers = chosen(test_set.stimuli())
    pictures = test_set.pictures(run.subject or 0, backbone.image_size)
    found = {"shown": np.stack([pictures[int(number)] for number in numbers])}
    for condition in sorted(set(responses.condition.tolist()) - {"attention"}):
        at = responses.rows(condition)
        rows = at[np.searchsorted(responses.stimulus[at], numbers)]
        z, c = (decoded[f"{name}/decoded"][rows] for name in ("z", "c"))
        found[f"decoded, {condition}"] = _stage1(run, backbone, (z, c), numbers)
    return found


def _stage1(
    run: Run, backbone: Backbone, features: tuple[Array, Array], numbers: Ints
) -> Images:
    """Return stage 1's images of decoded z and c, (n, S, S, 3)."""
    size = backbone.at_once(run.profile.models.batch_size)
    images = []
    for first in range(0, len(numbers), size):
        part = slice(first, first + size)
        names, who = numbers[part].tolist(), run.subject or 0
        streams = [run.torch_stream("further noise", who, name) for name in names]
        x = sampled(run, backbone, [x[part] for x in features], streams)
        images.append(finished_images(backbone, x, names)[0])
    return np.concatenate(images)
