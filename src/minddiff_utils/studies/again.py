"""What was decoded again, as images: stage 1 from features of a study's own.

Notebooks 07 and 08 fit decoders again to changed data; here is what both need around
that: the training features, the images, and those that the run has made already.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from minddiff_utils.core.condition import Condition
from minddiff_utils.core.rows import Images
from minddiff_utils.core.run import Run
from minddiff_utils.core.types import Array, IntArray, Matrix
from minddiff_utils.evaluation.images import read_condition
from minddiff_utils.evaluation.metrics import ConditionImages
from minddiff_utils.features import image_features, semantic_features
from minddiff_utils.generation import SubjectFeatures, generate
from minddiff_utils.generation.decoded_features import DecodedFeatures, Source
from minddiff_utils.generation.generate import Generated
from minddiff_utils.generation.sampler import draw_noise, make_schedule, sample
from minddiff_utils.models import Backbone

__all__ = [
    "BATCH",
    "Arms",
    "finished_of",
    "images_again",
    "images_made",
    "sampled",
    "training_features",
]

#: Images or captions encoded at once.
BATCH = 64

Features = Mapping[str, Matrix]


def training_features(
    backbone: Backbone, captions: Any, images: Images, layers: Sequence[int] = ()
) -> dict[str, Matrix]:
    """Return c, z and some layers of CLIP of images, (n_images, n_features) each."""
    c = semantic_features(backbone, captions, batch_size=BATCH)
    return {"c": c, **image_features(backbone, images, layers, batch_size=BATCH)}


class Arms(SubjectFeatures):
    """Features of some of the images to reconstruct, as a study's conditions say.

    `chosen`: their rows among those; `again`: by condition, c and z of the chosen ones.
    """

    def __init__(
        self,
        run: Run,
        backbone: Backbone,
        chosen: IntArray,
        again: Mapping[str, Features],
    ) -> None:
        super().__init__(run, backbone)
        self._rows, self._again = chosen.tolist(), again

    def of(self, source: Source) -> DecodedFeatures:
        """Return the features of the chosen images from one source."""
        return super().of(source).rows(self._rows)

    def _systems(self, name: str) -> Matrix:
        condition, _, feature = name.rpartition("/")
        return self._again[condition][feature]


def finished_of(made: Generated, name: str = "") -> ConditionImages:
    """Return the finished images of a condition, under its own name by default."""
    there, name = made.finished, name or made.condition.name
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


def images_made(
    run: Run, names: Sequence[str], nsd_id: IntArray
) -> Iterator[ConditionImages]:
    """Give the images of those conditions that the run has made."""
    for name in names:
        folder = run.tree.stage_dir(run.subject or 0, name)
        found = read_condition(folder, name, nsd_id)
        if found is not None:
            yield found
