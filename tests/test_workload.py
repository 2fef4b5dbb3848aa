"""What a plan sums is what the cells of the notebooks run, with engines that count."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import pytest

from minddiff_utils.core.config import Profile
from minddiff_utils.core.places import project_root
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.generation import ablation, reconstruction, rivals
from minddiff_utils.generation.diffusion import make_schedule
from minddiff_utils.models import Backbone, tiny_backbone
from minddiff_utils.studies import workload
from minddiff_utils.studies.cost import settings_work

Seen = list[tuple[int, int, int]]


class _Rows:
    """Features of so many images, whatever is done with them."""

    def __init__(self, n: int) -> None:
        self.nsd_id = np.arange(n)
        self.target = SimpleNamespace(layers=(1,), selected={})

    def rows(self, index: Any) -> "_Rows":
        return _Rows(len(list(index)))

    def same(self, *_: object) -> "_Rows":
        return self

    without_c = without_z = same


def _cell(stem: str, words: str) -> str:
    path = project_root() / "notebooks" / f"{stem}.ipynb"
    cells = nbformat.read(path, as_version=4).cells
    (found,) = [c.source for c in cells if c.cell_type == "code" and words in c.source]
    return found


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Put engines in place that note images, evaluations and gradients of each."""
    noted: Seen = []

    def stage1(
        run: Any, backbone: Backbone, features: _Rows, use_z: Any = True, **more: Any
    ) -> None:
        settings = None
        if more.get("use_c", True):
            settings = more.get("diffusion")
            settings = settings or reconstruction.diffusion_settings(run.profile.stage1)
            settings = settings if use_z else reconstruction.from_noise(settings)
        n = 0
        if settings is not None:
            n = make_schedule(backbone, settings).n_unet_evaluations
        noted.append((len(features.nsd_id), n, 0))

    def stage2(
        run: Any, backbone: Backbone, features: _Rows, config: Any, **more: Any
    ) -> Any:
        plain = reconstruction.diffusion_settings(run.profile.stage1)
        sampler = more.get("diffusion") or plain
        settings = reconstruction.stage2_settings(config)
        work = settings_work(make_schedule(backbone, sampler), settings).total
        own = (work.unet_forwards, work.unet_backwards)
        noted.append((len(features.nsd_id), *own))
        return SimpleNamespace(made=None)

    for module in (reconstruction, ablation, rivals):
        for name, engine in (("stage1_images", stage1), ("align_images", stage2)):
            monkeypatch.setattr(module, name, engine, raising=False)
    nothing: Callable[..., Any] = lambda *_, **__: {}  # noqa: E731
    for name in ("begin_stage", "write_images"):
        monkeypatch.setattr(reconstruction, name, nothing)
    monkeypatch.setattr(rivals, "read_rivals", nothing)
    monkeypatch.setattr(rivals, "_with", lambda decoded, *_: decoded)
    monkeypatch.setattr(rivals, "replace", lambda own, **_: own)
    monkeypatch.setattr(rivals, "_encode", nothing)
    monkeypatch.setattr(rivals, "read_rivals", lambda *_: {"pixel_ridge": None})
    monkeypatch.setattr(ablation, "with_k", lambda features, *_: features)
    return noted


@pytest.mark.parametrize("name", ["smoke", "demo", "nsd"])
def test_a_plan_sums_what_the_notebooks_cells_run(name: str, seen: Seen) -> None:
    profile: Profile = load_profile(name)
    n = profile.data.n_reconstruct or 982
    given = {
        **{"run": SimpleNamespace(profile=profile), "backbone": tiny_backbone()},
        **{"ablation": ablation, "reconstruction": reconstruction, "rivals": rivals},
        **{"decoded": _Rows(n), "true": _Rows(n), "shuffled": _Rows(n), "n": n},
        **{"path": Path("a"), "rivals_path": Path("b"), "derived": Path("c")},
        **{"paths": [Path("a")] * 3, "layers": (), "stage2": profile.stage2},
        "settings": reconstruction.diffusion_settings(profile.stage1),
        "store": SimpleNamespace(read_arrays=lambda *_: {}),
    }
    for stem, words in (
        ("03_stage1", '"z_only": reconstruction.stage1_images'),
        ("03_stage1", "ablation.cells_without_clip"),
        ("04_stage2", '"stage2_combined": reconstruction.align_images'),
        ("04_stage2", "ablation.ablation_images"),
    ):
        exec(_cell(stem, words), given)
    planned = workload.workloads(profile, n)
    found = sorted(seen)
    expected = sorted(
        (one.n_images, one.work.total.unet_forwards, one.work.total.unet_backwards)
        for one in planned
    )
    assert found == expected


def test_a_plan_of_nsd_spends_most_on_one_algorithm_1() -> None:
    profile = load_profile("nsd")
    found = {one.name: one.counts for one in workload.workloads(profile, 982)}
    whole = sum(counts.unet_backwards for counts in found.values())
    # true and shuffled features on 30 images each, and shorter loops on 30
    assert whole < 1.2 * found["stage2"].unet_backwards
