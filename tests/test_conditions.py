"""A row of the tables is described once; whatever shows conditions asks that table."""

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import minddiff_utils
from minddiff_utils.core import conditions, contrasts
from minddiff_utils.core.condition import Condition
from minddiff_utils.core.conditions import TABLE
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.evaluation import compare_methods, floor_table, gallery
from minddiff_utils.evaluation.images import condition_images, read_stimuli
from minddiff_utils.evaluation.metrics import score_methods
from minddiff_utils.generation import write_results
from minddiff_utils.models import Backbone
from minddiff_utils.reporting import galleries, tables
from minddiff_utils.studies.cost import workloads
from minddiff_utils.studies.storage import kept
from tests.small_subject import Start, backbone, made, start, write_files

__all__ = ["backbone", "start"]  # fixtures

NAMES = {row.name for row in TABLE}
SOURCES = Path(minddiff_utils.__file__).parent


def test_every_name_is_unique_and_so_is_every_label() -> None:
    assert len(NAMES) == len(TABLE)
    assert len({row.label for row in TABLE}) == len(TABLE)
    for name in ("smoke", "demo", "nsd"):
        every = [row.name for row in conditions.conditions_of(load_profile(name))]
        assert len(set(every)) == len(every)
        run = {row.name for row in TABLE if not row.why_not_run}
        assert run <= set(every)


def test_ceilings_floors_and_contrasts_name_rows_of_the_table() -> None:
    named = {row.ceiling for row in TABLE} | {row.floor for row in TABLE}
    named |= {name for pair in contrasts.CONTRASTS for name in pair}
    assert named - {None} <= NAMES
    assert len(set(contrasts.CONTRASTS)) == len(contrasts.CONTRASTS)


def test_a_ceiling_has_true_features_and_a_floor_those_of_another_brain() -> None:
    rows = conditions.by_name()
    for row in TABLE:
        if row.floor:
            same = replace(
                row, c="shuffled", z="shuffled", clip=row.clip and "shuffled"
            )
            floor = rows[row.floor]
            assert (floor.c, floor.z, floor.clip) == (same.c, same.z, same.clip)
            assert floor.engine == row.engine
        if row.ceiling and row.ceiling != "autoencoder":
            best = rows[row.ceiling]
            assert {best.c, best.z, best.clip} <= {"true", None}
            assert (best.clip is None) == (row.clip is None)


def test_the_pairs_of_a_feature_differ_in_that_feature_alone() -> None:
    cells = conditions.factorial()
    for k, (whole, less) in enumerate(contrasts.FROM_ALL_THREE.values()):
        different = [a != b for a, b in zip(cells[whole], cells[less], strict=True)]
        assert different == [i == k for i in range(3)]


def test_galleries_and_floors_have_their_rows_in_order() -> None:
    assert list(galleries.system_rows("bayes")) == [
        *("truth", "stage2", "stage1", "stage1_posterior", "takagi"),
        *("takagi_minddiffuser", "brain_diffuser_style", "pixel_ridge", "retrieval"),
        *("retrieval_caption", "stage1_best", "category_only"),
    ]
    assert list(galleries.ablation_rows().values()) == [
        *("seen image", "c, z and Z_CLIP", "c and z", "c and Z_CLIP", "z and Z_CLIP"),
        *("c", "z", "Z_CLIP", "nothing"),
    ]
    assert list(conditions.floors()) == [
        *("random_train", "mean_image", "shuffled", "stage2_shuffled"),
        "permuted_voxels",
    ]


# --- no second table ------------------------------------------------------------------


#: Where conditions are described, and which of them are compared.
DESCRIBED = ("core/conditions.py", "core/contrasts.py")


def _literals(path: Path) -> Iterator[tuple[int, set[str]]]:
    """Yield the line and the strings of every tuple, list, set and dict written out."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict):
            inside = [one for one in ast.walk(node) if isinstance(one, ast.Constant)]
            yield node.lineno, {one.value for one in inside if type(one.value) is str}


def test_no_other_module_lists_conditions() -> None:
    found = [
        f"{path.relative_to(SOURCES)}:{line}: {sorted(NAMES & strings)}"
        for path in sorted(SOURCES.rglob("*.py"))
        if path.relative_to(SOURCES).as_posix() not in DESCRIBED
        for line, strings in _literals(path)
        if len(NAMES & strings) >= 3
    ]
    assert found == []


# --- a new row is one edit ------------------------------------------------------------

NEW = Condition(
    "stage2_new",
    "a new engine",
    "method",
    c="decoded",
    z="true",
    clip="decoded",
    engine="bayes",
    ceiling="stage2_true",
    short="new",
)
FLOOR = Condition("blur", "blur: floor", "floor", engine="mean", short="a blur")


@pytest.fixture
def longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a row with a generator and a floor to the table, and nothing elsewhere."""
    monkeypatch.setattr(conditions, "TABLE", (*TABLE, NEW, FLOOR))


@pytest.mark.usefixtures("longer")
def test_a_new_row_has_images_scores_and_its_place_in_tables_and_galleries(
    start: Start, backbone: Backbone
) -> None:
    few = {"data__n_reconstruct": 3, "ablation__n_images": 1}
    run = start(**few, stage2__n_images_controls=None)
    features = write_files(run, backbone)
    # as the one cell of notebooks 03 and 04 does
    for stage in (1, 2):
        rows = conditions.generated(run.profile, stage)
        write_results(run, backbone, features, made(features, *rows))
    truth = read_stimuli(run, 1).truth
    compared = condition_images(run, 1, truth)
    look = {"clip_judge": lambda images: np.asarray(images).reshape(len(images), -1)}
    scores = score_methods(1, compared, truth, look).table
    assert {"stage2_new", "blur"} <= set(scores["method"])
    comparison = compare_methods(scores)
    words = conditions.compared_words(300)
    table = tables.comparison_table(
        comparison,
        who=["1", "all"],
        methods=list(words),
        settings={"pcc": "Pearson"},
        not_run=conditions.not_run(),
    )
    row = table[(table["method"] == "stage2_new") & (table["subject"] == "all")].iloc[0]
    best = table[(table["method"] == "stage2_true") & (table["subject"] == "all")]
    assert np.isfinite(row["value"])
    assert row["ceiling"] == pytest.approx(best["value"].iloc[0])
    assert words["stage2_new"] == "a new engine"
    assert "a blur" in set(floor_table(comparison, 0.5)["floor"])
    shown = galleries.system_rows("bayes")
    assert list(shown)[1:5] == ["stage2", "stage2_new", "stage1", "stage1_posterior"]
    assert "blur" not in shown
    images = gallery(run, 1, shown, n=2)
    assert images["new"].shape == (2, 64, 64, 3)


def test_a_new_row_takes_disk_and_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = load_profile("nsd")
    before, work = kept(profile), workloads(profile, 10)
    n_all = len([row for row in conditions.compared() if row.engine]) - 1  # not paper
    monkeypatch.setattr(conditions, "TABLE", (*TABLE, NEW, FLOOR))
    after, more = kept(profile), workloads(profile, 10)
    assert after["images"] / before["images"] == pytest.approx((n_all + 2) / n_all)
    assert after["trajectories"] > before["trajectories"]
    (new,) = [one for one in more if one.name not in {own.name for own in work}]
    (guided,) = [one for one in work if one.name == "stage2_guided"]
    assert (new.name, new.counts) == ("stage2_new", guided.counts)
