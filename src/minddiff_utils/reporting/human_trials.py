"""The page of two-alternative trials for people: pictures and script in one file.

`report/human_trials.html` lays it out; which trials are shown, and what answers mean,
is `evaluation.further.human_trials`'s.
"""

import base64
from collections.abc import Sequence

import numpy as np
import pandas as pd

from minddiff_utils.core.errors import StoreError
from minddiff_utils.core.images import encode_png, resize
from minddiff_utils.core.run import Run
from minddiff_utils.core.types import Images
from minddiff_utils.evaluation.further.human_trials import page_of, plan_trials
from minddiff_utils.evaluation.images import read_condition, read_stimuli
from minddiff_utils.reporting.report.page import template

__all__ = ["make_page", "render_page"]

#: Pictures are shown at this size at most, px, and a trial takes so many seconds.
_SIDE, _SECONDS = 256, 6


def make_page(
    run: Run, subject: int, methods: Sequence[str], *, n: int
) -> tuple[pd.DataFrame, str]:
    """Return the trials with their key (`plan_trials`), and the page that shows them.

    `run`, `subject`: whose images by `methods`, conditions, are judged; `n`: trials of
    each method, and of each pair of methods. A method has no images, or not those of
    this run: StoreError.
    """
    truth = read_stimuli(run, subject).truth
    sets = [truth]
    for method in methods:
        folder = run.tree.stage_dir(subject, method)
        made = read_condition(folder, method, truth.nsd_id)
        if made is None:
            raise StoreError(
                f"{folder} holds no images: run notebooks 03 and 04 first, or name a"
                " condition of this run."
            )
        sets.append(made)
    shown = {
        f"{made.method}/{i}": image
        for made in sets
        for i, image in zip(made.nsd_id, made.images[:], strict=True)
    }
    ids = {made.method: made.nsd_id.tolist() for made in sets[1:]}
    trials = plan_trials(ids, n=n, rng=run.stream("human trials", subject, *methods))
    return trials, render_page(trials, shown, f"{run.label}, subject {subject}")


def _png(image: Images) -> str:
    if len(image) > _SIDE:
        image = resize(image[None], _SIDE)[0]
    return base64.b64encode(encode_png(image)).decode()


def render_page(trials: pd.DataFrame, shown: dict[str, Images], label: str) -> str:
    """Return the page: it loads nothing, sends nothing, and holds no key.

    `trials`: from `plan_trials`; `shown`: "method/image" -> picture, uint8 (s, s, 3),
    "truth/image" is the seen one; `label`: what data the pictures come from.
    """
    seen = "truth/" + trials["seen"].astype(str)
    keys = list(zip(seen, trials["left"], trials["right"], strict=True))
    codes, shown_keys = pd.factorize(np.ravel(keys))
    return template("human_trials.html").render(
        label=label,
        page=page_of(trials),
        n_trials=len(trials),
        minutes=max(1, round(len(trials) * _SECONDS / 60)),
        pictures=[_png(shown[key]) for key in shown_keys],
        trials=codes.reshape(-1, 3).tolist(),
    )
