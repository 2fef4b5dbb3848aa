"""Stage 1 from responses to a further test set: images to look at.

Which stimuli are shown follows a rule, not the result: the first two of each class of
synthetic stimuli, all pictures of NSD-imagery. The sampler, its settings and its noise
are those of notebook 03; an image's noise is the same whether it was seen or imagined.
"""

from collections.abc import Mapping

import numpy as np
import torch

from minddiff_utils.core.run import Run
from minddiff_utils.core.types import Array, Images, Ints
from minddiff_utils.datasets.further_tests import FurtherTest
from minddiff_utils.datasets.further_tests.test_set import Stimuli
from minddiff_utils.generation.generate import finished_images
from minddiff_utils.generation.sampler import draw_noise, make_schedule, sample
from minddiff_utils.models import Backbone
from minddiff_utils.preprocessing.further_tests import FurtherResponses

__all__ = ["chosen", "reconstruct"]

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
        z = z.reshape(-1, *backbone.latent_shape)
        c = c.reshape(-1, backbone.n_tokens, backbone.text_dim)
        found[f"decoded, {condition}"] = _stage1(run, backbone, (z, c), numbers)
    return found


def _stage1(
    run: Run, backbone: Backbone, features: tuple[Array, Array], numbers: Ints
) -> Images:
    """Return stage 1's images of decoded z and c, (n, S, S, 3)."""
    schedule = make_schedule(backbone, run.profile.stage1)
    size = backbone.at_once(run.profile.models.batch_size)
    images = []
    for first in range(0, len(numbers), size):
        part = slice(first, first + size)
        parts = (torch.from_numpy(np.ascontiguousarray(x[part])) for x in features)
        z, c = (x.to(backbone.device, backbone.dtype) for x in parts)
        names, who = numbers[part].tolist(), run.subject or 0
        streams = [run.torch_stream("further noise", who, name) for name in names]
        x = sample(backbone, z, c, draw_noise(backbone, streams), schedule)
        images.append(finished_images(backbone, x, names)[0])
    return np.concatenate(images)
