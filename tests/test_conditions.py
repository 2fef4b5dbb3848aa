"""A row of the tables is described once; whatever shows conditions asks that table."""

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import minddiff_utils
from minddiff_utils.core import conditions, store
from minddiff_utils.core.conditions import TABLE, Condition
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.run import start
from minddiff_utils.evaluation import baselines, compare_methods, floor_table
from minddiff_utils.evaluation.metrics import ConditionImages, score_methods
from minddiff_utils.evaluation.summaries import resampling
from minddiff_utils.reporting import summary, tables
from minddiff_utils.studies.storage import kept
from minddiff_utils.studies.workload import workloads

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
    named |= {name for pair in conditions.CONTRASTS for name in pair}
    assert named - {None} <= NAMES
    assert len(set(conditions.CONTRASTS)) == len(conditions.CONTRASTS)


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
    for k, (whole, less) in enumerate(conditions.FROM_ALL_THREE.values()):
        different = [a != b for a, b in zip(cells[whole], cells[less], strict=True)]
        assert different == [i == k for i in range(3)]


def test_galleries_and_floors_have_their_rows_in_order() -> None:
    assert list(summary.system_rows()) == [
        *("truth", "stage2", "stage2_guided", "stage1", "takagi"),
        *("takagi_minddiffuser", "brain_diffuser_style", "pixel_ridge", "retrieval"),
    ]
    assert list(summary.ablation_rows().values()) == [
        *("seen image", "c, z and Z_CLIP", "c and z", "c and Z_CLIP", "z and Z_CLIP"),
        *("c", "z", "Z_CLIP", "nothing"),
    ]
    assert list(conditions.floors()) == [
        *("random_train", "mean_image", "shuffled", "stage2_shuffled"),
        "permuted_voxels",
    ]


# --- no second table ------------------------------------------------------------------


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
        if path.relative_to(SOURCES).as_posix() != "core/conditions.py"
        for line, strings in _literals(path)
        if len(NAMES & strings) >= 3
    ]
    assert found == []


# --- a new row is one edit ------------------------------------------------------------

IDS = np.array([900, 12, 345])
NEW = Condition(
    "stage2_new",
    "a new engine",
    "method",
    c="decoded",
    z="decoded",
    clip="decoded",
    engine="guided",
    ceiling="stage2_true",
    short="new",
)
FLOOR = Condition("gray", "gray: floor", "floor", short="a gray image")


@pytest.fixture
def longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a generated row and a floor to the table."""
    monkeypatch.setattr(conditions, "TABLE", (*TABLE, NEW, FLOOR))


def _images(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    return rng.integers(0, 256, (len(IDS), 12, 12, 3), dtype=np.uint8)


@pytest.mark.usefixtures("longer")
def test_a_new_row_is_scored_and_stands_in_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    run = start("smoke", subject=1)
    truth = ConditionImages("truth", IDS, _images(rng))
    generated = [row.name for row in conditions.compared() if row.engine]
    for name in generated:
        for nsd_id, image in zip(IDS, _images(rng), strict=True):
            path = run.tree.stage_dir(1, name) / f"{nsd_id}.png"
            store.write_png(path, image, run=run)
    made = {"gray": np.full_like(truth.images, 128)}
    compared = baselines.conditions(run.tree, 1, truth, made)
    look = {"clip_judge": lambda images: np.asarray(images).reshape(len(images), -1)}
    scores = score_methods(1, compared, truth, look).table
    assert {"stage2_new", "gray"} <= set(scores["method"])
    comparison = compare_methods(scores, resampling(run))
    words = conditions.compared_words(300)
    table = tables.comparison_table(
        comparison,
        subjects=[1],
        methods=list(words),
        settings={"pcc": "Pearson"},
        not_run=conditions.not_run(),
    )
    row = table[(table["method"] == "stage2_new") & (table["subject"] == "all")].iloc[0]
    best = table[(table["method"] == "stage2_true") & (table["subject"] == "all")]
    assert np.isfinite(row["value"])
    assert row["ceiling"] == pytest.approx(best["value"].iloc[0])
    assert words["stage2_new"] == "a new engine"
    floors = floor_table(comparison, 0.5)
    assert "a gray image" in set(floors["floor"])


@pytest.mark.usefixtures("longer")
def test_a_new_row_is_in_the_gallery_and_a_floor_is_not() -> None:
    rows = summary.system_rows()
    assert list(rows)[1:5] == ["stage2", "stage2_guided", "stage2_new", "stage1"]
    assert rows["stage2_new"] == "new"
    assert "gray" not in rows


def test_a_new_row_takes_disk_and_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = load_profile("nsd")
    before, work = kept(profile).parts, workloads(profile, 10)
    n_all = len([row for row in conditions.compared() if row.engine]) - 1  # not paper
    monkeypatch.setattr(conditions, "TABLE", (*TABLE, NEW, FLOOR))
    after, more = kept(profile).parts, workloads(profile, 10)
    assert after["images"] / before["images"] == pytest.approx((n_all + 1) / n_all)
    assert after["trajectories"] > before["trajectories"]
    (new,) = [one for one in more if one.name not in {own.name for own in work}]
    (guided,) = [one for one in work if one.name == "stage2_guided"]
    assert (new.name, new.counts) == ("stage2_new", guided.counts)
