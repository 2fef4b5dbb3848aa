"""The images a subject saw and their captions, and what the captions name."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from minddiff_utils.core.images import resize
from minddiff_utils.core.rows import Rows
from minddiff_utils.core.types import IntArray
from minddiff_utils.datasets.protocol import DataSet

__all__ = ["COCO_CATEGORIES", "categories_in_captions", "prepare_stimuli"]


_COCO = (
    "person bicycle car motorcycle airplane bus train truck boat traffic_light "
    "fire_hydrant stop_sign parking_meter bench bird cat dog horse sheep cow elephant "
    "bear zebra giraffe backpack umbrella handbag tie suitcase frisbee skis snowboard "
    "sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket "
    "bottle wine_glass cup fork knife spoon bowl banana apple sandwich orange "
    "broccoli carrot hot_dog pizza donut cake chair couch potted_plant bed "
    "dining_table toilet tv laptop mouse remote keyboard cell_phone microwave oven "
    "toaster sink refrigerator book clock vase scissors teddy_bear hair_drier "
    "toothbrush "
)
#: The 80 object categories of COCO (Lin et al. 2014), by their published names.
COCO_CATEGORIES = tuple(name.replace("_", " ") for name in _COCO.split())
#: Plurals of theirs that do not end in s.
_PLURALS = {"people": "person", "knives": "knife", "mice": "mouse"}


def prepare_stimuli(
    data_set: DataSet, nsd_id: IntArray, size: int, n_captions: int
) -> dict[str, npt.NDArray[Any] | Rows]:
    """Return the content of `stimuli.h5`: images at `size` px, nsd_id, captions.

    Images are read and resized when they are asked for, so that none needs to be held.
    """
    images = Rows(
        lambda rows: resize(data_set.images(nsd_id[rows]), size),
        (len(nsd_id), size, size, 3),
        np.dtype(np.uint8),
    )
    captions = data_set.captions(nsd_id, n_captions)
    return {"images": images, "nsd_id": nsd_id, "captions": captions}


def categories_in_captions(
    captions: npt.NDArray[Any], names: Sequence[str] = COCO_CATEGORIES
) -> list[frozenset[str]]:
    """Return the object categories that the captions of each image name.

    A name counts where it stands as a word, singular or plural, in any caption; inside
    a longer name it does not count ("dog" in "hot dog"). People write "puppy" too:
    on real captions a category can be present without its name.

    Parameters
    ----------
    captions : (n_images, n_captions) str
        Captions, English.
    names : sequence of str
        Categories to look for.

    >>> found = categories_in_captions(np.array([["two hot dogs and a Cat"]]))
    >>> sorted(found[0])
    ['cat', 'hot dog']
    """
    plurals = {many: one for many, one in _PLURALS.items() if one in names}
    longest_first = sorted([*names, *plurals], key=len, reverse=True)
    either = "|".join(re.escape(name) for name in longest_first)
    pattern = re.compile(rf"\b({either})(?:e?s)?\b", re.IGNORECASE)
    return [
        frozenset(
            plurals.get(found.lower(), found.lower())
            for text in texts
            for found in pattern.findall(str(text))
        )
        for texts in captions
    ]
