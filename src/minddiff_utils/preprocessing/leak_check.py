"""What could let one subject's test set reach training, gathered to be compared.

`datasets.leaks` compares it.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core.rows import Images
from minddiff_utils.datasets.leaks import leak_report
from minddiff_utils.datasets.nsd.layout import N_SHARED
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.preprocessing.responses import Responses

__all__ = ["find_leaks"]


def find_leaks(
    tree: NsdTree,
    subject: int,
    responses: Responses,
    images: Images,
    captions: npt.NDArray[np.object_],
) -> pd.DataFrame:
    """Return `leak_report` of one subject's responses, their images and captions.

    In-silico captions come from a small grammar, so that many scenes share all of
    theirs; they are compared in measured data only.
    """
    shared_id = tree.design().images[subject - 1, :N_SHARED]
    coco_id = tree.stim_info("cocoId")["cocoId"].to_numpy()[responses.nsd_id]
    texts = captions.tolist() if tree.is_real else None
    return leak_report(responses, images, shared_id, coco_id, texts)
