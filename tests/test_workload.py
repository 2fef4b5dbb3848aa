"""What a plan sums is what the notebooks' loop over the table runs, counted."""

from typing import Any

import numpy as np
import pytest

from minddiff_utils.core.conditions import draws, generated
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.generation.presets import uses_posterior
from minddiff_utils.models import Backbone
from minddiff_utils.studies.cost import workloads
from tests.small_subject import Start, backbone, made, start, write_files

__all__ = ["backbone", "start"]  # fixtures


@pytest.mark.parametrize("preset", ["released", "bayes", "paper"])
def test_a_plan_sums_what_the_notebooks_run(
    start: Start, backbone: Backbone, preset: str, count_passes: Any
) -> None:
    n, few = 5, {"stage2__n_images_controls": 2, "ablation__n_images": 2}
    features = write_files(start(stage2__preset=preset, **few), backbone)
    profile = features.run.profile
    planned = {one.name: one for one in workloads(profile, n)}
    passes = count_passes(backbone)
    rows = [*generated(profile, 1), *generated(profile, 2)]
    assert set(planned) == {row.name for row in rows if not row.is_baseline}
    for row in rows:
        before = (passes.forward, passes.backward)
        found = made(features, row)[row.name]
        run = (passes.forward - before[0], passes.backward - before[1])
        if row.is_baseline:
            assert run == (0, 0)
            continue
        one = planned[row.name]
        assert len(found.nsd_id) == one.n_images, row.name
        total = one.work.counts
        each = np.array([total.unet_forwards, total.unet_backwards])
        # images that two conditions share are made once; those that stage 2 starts from
        # are stage 1's, or made where stage 1 has none from this start in this batch
        first = "stage1_posterior" if uses_posterior(row, profile) else "stage1"
        start_too = each + np.array([planned[first].work.counts.unet_forwards, 0])
        expected = {tuple(one.n_images * each), (0, 0)}
        if row.n_draws > 1:  # rows of draws come after it, and take those that it made
            others = [planned[name].work.counts.unet_forwards for name in draws()[1:]]
            expected = {tuple(one.n_images * (each + np.array([sum(others), 0])))}
        begins = (row.c, row.z, row.strength, one.n_images)
        if row.stage == 2 and begins != ("decoded", "decoded", None, n):
            expected.add(tuple(one.n_images * start_too))
        assert run in expected, row.name


def test_a_plan_of_nsd_spends_most_on_one_algorithm_1() -> None:
    profile = load_profile("nsd")
    found = {one.name: one.counts for one in workloads(profile, 982)}
    whole = sum(counts.unet_backwards for counts in found.values())
    # true and shuffled features on 30 images each, and shorter loops on 30
    assert whole < 1.2 * found["stage2"].unet_backwards
