"""From trials to the responses and stimuli of notebook 01.

`trials` scales and averages, `splits` says which images validate, `noise_ceiling` how
well a voxel could be predicted; `responses` and `stimuli` put them together for one
subject of any data set, `leak_check` makes sure that the test set stays unseen.
`repeats` reads single trials to look at, `noise_structure` how their noise hangs
together.
"""

from minddiff_utils.core.areas import AREAS
from minddiff_utils.preprocessing.leak_check import check_leaks, find_leaks
from minddiff_utils.preprocessing.repeats import read_repeats
from minddiff_utils.preprocessing.responses import (
    Responses,
    area_table,
    compare_ncsnr,
    count_areas,
    prepare_responses,
)
from minddiff_utils.preprocessing.stimuli import (
    categories_in_captions,
    prepare_stimuli,
)

__all__ = [
    "AREAS",
    "Responses",
    "area_table",
    "categories_in_captions",
    "check_leaks",
    "compare_ncsnr",
    "count_areas",
    "find_leaks",
    "prepare_responses",
    "prepare_stimuli",
    "read_repeats",
]
