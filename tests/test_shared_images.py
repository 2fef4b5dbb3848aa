"""The images seen three times by all: counted from NSD's design alone."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from minddiff_utils.core.run import start
from minddiff_utils.datasets import NsdTree
from minddiff_utils.datasets.nsd.experiment import Design
from minddiff_utils.evaluation import further
from minddiff_utils.evaluation.further.shared_images import seen_three_times
from minddiff_utils.evaluation.summaries import compare_methods
from tests import tiny_nsd


def test_an_image_counts_where_its_third_time_comes_in_the_sessions_of_all(
    rng: np.random.Generator,
) -> None:
    order = rng.permutation(np.repeat(np.arange(10_000), 3))
    images = np.tile(rng.permutation(73_000)[:10_000], (8, 1))
    ids = seen_three_times(Design(order, images), 30)
    seen = order[: 30 * 750].tolist()
    expected = [k for k in range(1000) if seen.count(k) == 3]
    assert ids.tolist() == sorted(images[0][expected].tolist())
    # three of 30 sessions in 40: (3/4)^3 of the shared images, as in NSD about half
    assert 350 < len(ids) < 500
    assert len(seen_three_times(Design(order, images), 40)) == 1000


def test_a_run_knows_them_from_its_design_and_keeps_their_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    run = start("smoke", notebook="05_evaluation")
    root = tiny_nsd.simulate(run.tree.nsd, (1,))
    tree = NsdTree(root, run.profile.data.betas_version)
    trials = tree.trials(1, 2)
    tested = np.unique(trials.image_id[trials.place < 1000])
    ids = further.shared515(run)
    assert len(tested) == 30
    assert set(tested) <= set(ids)


def test_methods_are_compared_again_only_where_an_image_is_left_out() -> None:
    scores = pd.DataFrame(
        {
            "subject": "1",
            "method": "stage1",
            "nsd_id": [1, 2, 3],
            "metric": "pcc",
            "value": [0.1, 0.2, 0.9],
            "floor": 0.0,
        }
    )
    whole = compare_methods(scores)
    none = further.compare_on(np.array([], int), scores, whole)
    assert list(none) == list(whole)
    assert none.empty
    same = further.compare_on(np.array([1, 2, 3, 4]), scores, whole)
    pd.testing.assert_frame_equal(same, whole)
    part = further.compare_on(np.array([2, 1]), scores, whole)
    assert part["value"].tolist() == pytest.approx([0.15, 0.15])
    assert set(part["n_images"]) == {2}


def test_a_data_set_of_other_images_has_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    run = start("laion_fmri", notebook="05_evaluation")
    assert len(further.shared515(run)) == 0
