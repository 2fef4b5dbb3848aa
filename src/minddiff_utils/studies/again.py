"""What was decoded again, as images: stage 1 from features of a study's own.

Notebooks 07 and 08 and the study of discrepancies fit decoders again to changed data;
here is what they need around that: a subject's data, and the images.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch

from minddiff_utils.core.condition import Condition
from minddiff_utils.core.rows import Rows
from minddiff_utils.core.run import Run
from minddiff_utils.core.types import Array, Floats, IntArray, Matrix
from minddiff_utils.datasets import open_data_set
from minddiff_utils.decoding import VoxelData
from minddiff_utils.decoding.functional_alignment import TrainedSubject
from minddiff_utils.decoding.targets import TargetScaling
from minddiff_utils.evaluation.metrics import ConditionImages
from minddiff_utils.features import image_features, semantic_features
from minddiff_utils.generation import SubjectFeatures, generate
from minddiff_utils.generation.decoded_features import DecodedFeatures, Source
from minddiff_utils.generation.generate import Generated
from minddiff_utils.generation.sampler import draw_noise, make_schedule, sample
from minddiff_utils.models import Backbone
from minddiff_utils.preprocessing.image_trials import ImageTrials, image_trials

__all__ = [
    "BATCH",
    "Arms",
    "Features",
    "Subject",
    "finished_of",
    "images_again",
    "sampled",
]

#: Images or captions encoded at once.
BATCH = 64

#: By name, (n_images, n_features) each.
Features = Mapping[str, Matrix]


@dataclass(frozen=True)
class Subject(TrainedSubject):
    """Responses and features of a subject's training images, and what else is known.

    `run`: of the subject; `stored`: content of `responses.h5`; `captions`, `images`: of
    all its rows, the latter unread; `train`, `test`: rows of the training images and of
    those to reconstruct; `X_test`: responses to these.
    """

    run: Run
    stored: Mapping[str, Any]
    captions: Array
    images: Rows
    train: IntArray
    test: IntArray
    X_test: Matrix

    @classmethod
    def read(
        cls, run: Run, subject: int, backbone: Backbone, layers: Sequence[int] = ()
    ) -> Self:
        """Read a subject; features are c, z and some layers of CLIP."""
        own = replace(run, subject=subject)
        stored, images = own.read("responses"), own.rows("stimuli", "images")
        captions = own.read("stimuli", ["captions"])["captions"]
        train, test = (np.flatnonzero(stored["split"] == s) for s in ("train", "test"))
        seen, some = images.of(train), slice(run.profile.data.n_reconstruct)
        c = semantic_features(backbone, captions[train], batch_size=BATCH)
        Y = {"c": c, **image_features(backbone, seen, layers, batch_size=BATCH)}
        X = VoxelData.from_responses(stored)
        at = (train, test[some], X.X_test[some])
        return cls(X.X_train, Y, own, stored, captions, images, *at)

    def features(self, side: str) -> dict[str, Matrix]:
        """Return the "true" or "decoded" features of the images to reconstruct."""
        kept = self.run.read("decoded", [f"{name}/{side}" for name in self.Y])
        return {name: kept[f"{name}/{side}"][: len(self.test)] for name in self.Y}

    def trials(self, split: str) -> ImageTrials:
        """Return the single trials of the images of a split."""
        run, data = self.run, self.run.profile.data
        asked = (run.tree.nsd, data.betas_version, data.split)
        data_set = open_data_set(run.profile.data_set, *asked)
        return image_trials(data_set, run.subject or 0, data, self.stored, split)


class Arms(SubjectFeatures):
    """Features of some of the images to reconstruct, as a study's conditions say.

    `chosen`: their rows among those; `again`: by condition, c and z of the chosen ones,
    other conditions have notebook 02's; `clip`: decoded Z_CLIP of the chosen ones by
    layer, with the training mean and SD of each target, in the place of notebook 02's.
    """

    def __init__(
        self,
        run: Run,
        backbone: Backbone,
        chosen: IntArray,
        again: Mapping[str, Features],
        clip: Mapping[int, tuple[Matrix, TargetScaling]] | None = None,
    ) -> None:
        super().__init__(run, backbone)
        self._rows, self._again, self._clip = chosen.tolist(), again, clip or {}

    def of(self, source: Source) -> DecodedFeatures:
        """Return the features of the chosen images from one source."""
        found = super().of(source).rows(self._rows)
        if source != "decoded" or not self._clip:
            return found
        like, parts = found.target.features, self._clip.items()

        def tensor(values: Floats, k: int) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(like[k])

        target = replace(
            found.target,
            features={k: tensor(Y, k) for k, (Y, _) in parts},
            mean={k: tensor(scaling.mean, k) for k, (_, scaling) in parts},
            scale={k: tensor(s.scale * s.varies, k) for k, (_, s) in parts},
            likelihood={},
        )
        return replace(found, target=target)

    def _systems(self, name: str) -> Matrix:
        condition, _, feature = name.rpartition("/")
        if condition in self._again:
            return self._again[condition][feature]
        return np.asarray(super()._systems(name))


def finished_of(
    made: Generated, name: str = "", among: IntArray | None = None
) -> ConditionImages:
    """Return the finished images of a condition, under its own name by default.

    `among`: images, of which it may be; default: all.
    """
    there, name = made.finished, name or made.condition.name
    if among is not None:
        there = there & np.isin(made.nsd_id, among)
    return ConditionImages(name, made.nsd_id[there], made.images[there])


def images_again(
    run: Run, backbone: Backbone, chosen: IntArray, again: Mapping[str, Features]
) -> Iterator[ConditionImages]:
    """Give stage 1's images of each condition; parameters as of `Arms`.

    The noise of an image is that of the run's own stage 1.
    """
    arms = Arms(run, backbone, chosen, again)
    for name, features in again.items():
        sources: dict[str, Any] = dict.fromkeys(features, "own")
        row = Condition(name, name, "part", engine="sampler", **sources)
        yield finished_of(generate(run, backbone, arms, row))


@torch.no_grad()
def sampled(
    run: Run,
    backbone: Backbone,
    features: Sequence[Array],
    streams: Sequence[torch.Generator],
) -> torch.Tensor:
    """Return stage 1 of z and c, (n, n_features) each, as the sampler leaves it.

    `streams`: of the noise of each image.
    """
    noise = draw_noise(backbone, streams)
    z, c = (torch.from_numpy(np.ascontiguousarray(x)).to(noise) for x in features)
    c = c.reshape(len(c), backbone.n_tokens, -1)
    schedule = make_schedule(backbone, run.profile.stage1)
    return sample(backbone, z.reshape_as(noise), c, noise, schedule)
