"""Decoders on further test sets: ranks over all draws, scores, and the notebook."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import pytest

from minddiff_utils.core import store
from minddiff_utils.core.errors import DataError
from minddiff_utils.core.places import notebook_path
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.run import Tree
from minddiff_utils.core.run import start as start_run
from minddiff_utils.core.store import read_arrays, read_table
from minddiff_utils.datasets import further_tests as test_sets
from minddiff_utils.datasets.nsd.data_set import Nsd
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.decoding import RidgeGCV, VoxelData, VoxelSelectedRidge, fit
from minddiff_utils.decoding.balanced_identification import (
    balanced_ranks,
    draw_balanced,
)
from minddiff_utils.decoding.feature_selection import Selection
from minddiff_utils.decoding.targets import TargetScaling
from minddiff_utils.models import tiny_backbone
from minddiff_utils.pipeline import graph
from minddiff_utils.preprocessing.further_tests import FurtherResponses
from minddiff_utils.preprocessing.responses import prepare_responses
from minddiff_utils.studies import further_tests
from tests import tiny_further_tests, tiny_nsd

SIZES = {"a": 8, "b": 13, "c": 40}
GROUP = np.repeat(list(SIZES), list(SIZES.values()))
LAYERS = (1, 2)


# --- identification among as many of each class ---------------------------------------


def test_draws_hold_as_many_of_each_class_and_never_the_image_itself() -> None:
    others = draw_balanced(GROUP, 8, 20, np.random.default_rng(1))
    assert others.shape == (61, 20, 23)
    for image, draws in enumerate(others):
        for rows in draws:
            assert image not in rows
            assert len(set(rows.tolist())) == 23
            names, n = np.unique(GROUP[[image, *rows]], return_counts=True)
            assert dict(zip(names, n, strict=True)) == {"a": 8, "b": 8, "c": 8}
    with pytest.raises(DataError, match="there are 8 of one"):
        draw_balanced(GROUP, 9, 1, np.random.default_rng(1))


def test_a_rank_is_the_mean_over_all_draws_not_the_last() -> None:
    """The expected rank is known: each other image is drawn with a known chance."""
    rng = np.random.default_rng(2)
    similarity = rng.standard_normal((61, 61)).round(1)  # with ties
    n_draws = 2000
    ranks = balanced_ranks(similarity, draw_balanced(GROUP, 8, n_draws, rng))
    expected, spread = np.empty(61), np.empty(61)
    for image, row in enumerate(similarity):
        above = (row > row[image]) + (row == row[image]) / 2
        n = np.array([SIZES[name] for name in GROUP])
        own = GROUP[image] == GROUP
        chance = np.where(own, 7 / (n - 1), 8 / n)
        chance[image] = 0
        expected[image] = 1 + (chance * above).sum()
        spread[image] = np.sqrt((chance * (1 - chance) * above**2).sum())
    # five standard errors; drawing without replacement varies less than this
    off = np.abs(ranks.rank - expected)
    assert (off <= 5 * spread / np.sqrt(n_draws) + 1e-12).all()
    whole = ranks.rank % 0.5 == 0  # as the last draw's are
    assert whole.mean() < 0.5
    assert ranks.rank_chance == 12.5
    assert ranks.top_1_chance == 1 / 24


def test_what_knows_nothing_ranks_by_chance_and_what_knows_all_first() -> None:
    rng = np.random.default_rng(3)
    group = np.repeat(list("abcdefgh"), 30)
    others = draw_balanced(group, 8, 20, rng)
    found = balanced_ranks(rng.standard_normal((240, 240)), others)
    assert found.n_candidates == 64
    # SD of a uniform rank over 64 is 18.5; five standard errors of 240 images
    assert abs(found.rank.mean() - 32.5) < 5 * 18.5 / np.sqrt(240)
    assert abs(found.top_1.mean() - 1 / 64) < 5 * np.sqrt(1 / 64 / 240)
    tied = balanced_ranks(np.zeros((240, 240)), others)
    assert (tied.rank == 32.5).all()
    np.testing.assert_allclose(tied.top_1, 1 / 64)
    known = balanced_ranks(np.eye(240), others)
    assert (known.rank == 1).all()
    assert (known.top_1 == 1).all()


# --- stored decoders ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dense", "voxel_selected"])
def test_stored_decoders_predict_what_those_of_notebook_02_did(
    kind: Any, tmp_path: Path
) -> None:
    rng = np.random.default_rng(4)
    X, X_new = (rng.standard_normal((n, 30)).astype(np.float32) for n in (40, 7))
    Y = {"c": X[:, :12] + 3, "clip/1": X @ rng.standard_normal((30, 9))}
    Y = {name: values.astype(np.float32) for name, values in Y.items()}
    Y["c"][:, 5] = 1  # a target that never varies
    one = RidgeGCV() if kind == "dense" else VoxelSelectedRidge(0.15, 5)
    some = Selection.everything(9)
    some = type(some)(**{**vars(some), "selected": np.arange(9) % 2 == 0})
    fitted = fit(dict.fromkeys(Y, one), X, Y, {"clip/1": some})
    held = {"decoders": fitted.arrays()}
    held["decoded"] = fitted.decoded(
        {n: v[:7] for n, v in Y.items()}, fitted.predict(X_new)
    )

    def read(name: str, arrays: list[str]) -> dict[str, Any]:
        return {key: np.asarray(held[name][key]) for key in arrays}

    run: Any = SimpleNamespace(read=read, profile=SimpleNamespace(decoder=kind))
    expected = fitted.predict(X_new)
    for name, stored in further_tests.read_decoders(run, list(Y)):
        selected = fitted[name].selected
        found = further_tests.decode(stored, {"core": X_new})["core"]
        np.testing.assert_allclose(found, expected[name][:, selected], atol=1e-5)
        whole = further_tests.stored_predictions(name, stored, found)
        units = held["decoded"][f"{name}/decoded"]
        key = f"{name}/decoded"
        np.testing.assert_allclose(
            whole[key][:, selected], units[:, selected], atol=1e-4
        )
        mean = np.broadcast_to(fitted[name].scaling.mean, units.shape)
        np.testing.assert_allclose(
            whole[key][:, ~selected], mean[:, ~selected], atol=1e-5
        )


# --- scores ---------------------------------------------------------------------------


class Eight:
    """A test set of 8 classes of 8 stimuli, or of two sets of six."""

    def __init__(self, name: str) -> None:
        self.name = name

    def stimuli(self) -> Any:
        if self.name == "synthetic":
            return SimpleNamespace(group=np.repeat(list("abcdefgh"), 8))
        return SimpleNamespace(group=np.repeat(["A", "B", "C"], 6))


def scored(name: str, signal: float, conditions: tuple[str, ...]) -> Any:
    rng = np.random.default_rng(5)
    n = 64 if name == "synthetic" else 18
    values = rng.standard_normal((n, 50)).astype(np.float32)
    stimulus = np.tile(np.arange(n), len(conditions))
    noise = rng.standard_normal((len(stimulus), 50)).astype(np.float32)
    Y_hat = {"core": signal * values[stimulus] + noise}
    responses = FurtherResponses(
        {}, stimulus, np.repeat(conditions, n), np.full(len(stimulus), 2), {}
    )
    every = np.ones(50, bool)
    scaling = TargetScaling(np.zeros(50), np.ones(50), every)
    decoder: Any = SimpleNamespace(scaling=scaling, selected=every)
    known = np.arange(n) if name == "synthetic" else np.arange(12)
    truth = further_tests.Truth(known, values[known])
    test_set: Any = Eight(name)
    draws = further_tests.Draws.of(test_set, 99, rng)
    return further_tests.score(test_set, responses, Y_hat, truth, decoder, draws)


def test_what_is_decoded_scores_and_what_is_not_does_not() -> None:
    good = scored("synthetic", 1.0, ("vision",)).set_index(["group", "measure"])[
        "value"
    ]
    assert good["all", "pairwise"] > 0.95
    assert good["all", "rank_of_64"] < 3
    bad = scored("synthetic", 0.0, ("vision",)).set_index(["group", "measure"])
    assert abs(bad.loc[("all", "pairwise"), "value"] - 0.5) < 0.1
    assert abs(bad.loc[("all", "rank_of_64"), "value"] - 32.5) < 6
    assert bad.loc[("all", "pairwise"), "p"] > 0.01
    assert bad.loc[("all", "rank_of_64"), ["n_draws", "n_candidates"]].tolist() == [
        *(1000, 64),
    ]
    assert set(bad.index.get_level_values("group")) == {"all", *"abcdefgh"}
    by_class = bad.xs("rank_of_64", level="measure")["value"]
    assert by_class[list("abcdefgh")].mean() == pytest.approx(by_class["all"])


def test_imagery_is_scored_by_condition_and_by_set_where_there_is_a_truth() -> None:
    table = scored("imagery", 1.0, ("attention", "imagery", "vision"))
    assert set(table["condition"]) == {"attention", "imagery", "vision"}
    assert set(table["group"]) == {"all", "A", "B"}  # of C nothing is known
    assert set(table["measure"]) == {"r", "pairwise"}
    n = table.groupby("group")["n_images"].unique()
    assert n["all"] == [12]
    assert n["A"] == n["B"] == [6]
    assert (table["n_trials"] == 2).all()
    assert (table.loc[table["measure"] == "pairwise", "chance"] == 0.5).all()
    assert table["p"].between(1 / 100, 1).all()


# --- the notebook ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def nsd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tiny_nsd.simulate(tmp_path_factory.mktemp("a lab") / "nsd", (1,))
    return tiny_further_tests.write(root)


OVER = {
    "models.backbone": "tiny",
    "models.device": "cpu",
    "models.dtype": "float32",
    "data.sessions": 2,
    "data.n_validation": 50,
    "features.clip_layers": LAYERS,
    "decoding.decoder": "dense",
    "decoding.n_permutations": 9,
    "stage1.n_steps": 3,
    "stage1.encode_index": 2,
    "stage1.decode_steps": 2,
}


def before_a7(nsd: Path) -> None:
    """Write what notebooks 01 and 02 leave: targets are noise."""
    run = start_run("nsd", subject=1, overrides=OVER)
    ready = prepare_responses(Nsd(NsdTree(nsd)), 1, run.profile.data)
    store.write_arrays(run.folder / "responses.h5", ready.arrays(), run=run)
    data = VoxelData.from_responses(ready.arrays())
    backbone, rng = tiny_backbone(), np.random.default_rng(6)
    widths = {
        "c": backbone.n_tokens * backbone.text_dim,
        "z": int(np.prod(backbone.latent_shape)),
        **{f"clip/{k}": backbone.layer_widths[k - 1] for k in LAYERS},
    }

    def drawn(n: int) -> dict[str, Any]:
        return {
            name: rng.standard_normal((n, width)).astype(np.float32)
            for name, width in widths.items()
        }

    fitted = fit(
        dict.fromkeys(widths, RidgeGCV()), data.X_train, drawn(len(data.X_train))
    )
    decoded = fitted.decoded(drawn(len(data.X_test)), fitted.predict(data.X_test))
    store.write_arrays(run.folder / "decoders.h5", fitted.arrays(), run=run)
    store.write_arrays(run.folder / "decoded.h5", decoded, run=run)


def play(root: Path, nsd: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the notebook's code in this process."""
    monkeypatch.setenv("MINDDIFF_ROOT", str(root))
    monkeypatch.setenv("MINDDIFF_NSD_ROOT", str(nsd))
    before_a7(nsd)
    names: dict[str, Any] = {}
    for cell in nbformat.read(notebook_path("A7_further_tests"), as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
            if "parameters" in cell.metadata.get("tags", []):
                names["overrides"] = dict(OVER)
    return names


def test_the_notebook_decodes_what_is_there(
    nsd: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = play(tmp_path, nsd, monkeypatch)
    said = capsys.readouterr().out
    assert "decoded here: NSD-synthetic, NSD-imagery" in said
    assert "NSD-synthetic, vision, rank_of_64 (chance 32.5): z " in said
    folder = names["run"].folder
    table = read_table(folder / "further_tests.csv")
    assert list(table) == list(further_tests.COLUMNS)
    assert set(table["standardised_by"]) == {"core", "own"}
    n = table.groupby(["test_set", "feature"])["n_images"].max()
    assert n["synthetic"].to_dict() == {"clip/1": 284, "clip/2": 284, "z": 284}
    assert n["imagery"].to_dict() == {"c": 11, "clip/1": 12, "clip/2": 12, "z": 12}
    trials = table[table["test_set"] == "imagery"].groupby("condition")["n_trials"]
    assert trials.first().to_dict() == {"attention": 16, "imagery": 16, "vision": 8}
    assert table[["value", "chance", "n_images", "n_trials"]].notna().all().all()
    whole = table[table["group"] == "all"].set_index("measure")
    assert (whole.loc["top_1_of_64", "chance"] == 1 / 64).all()
    for name, n_rows in (("synthetic", 284), ("imagery", 54)):
        decoded = read_arrays(folder / f"decoded_{name}.h5")
        assert len(decoded["stimulus"]) == len(decoded["c/decoded"]) == n_rows
        assert np.isfinite(decoded["z/decoded"]).all()
        kept = read_arrays(folder / f"responses_{name}.h5")
        assert kept["betas/core"].shape == kept["betas/own"].shape
        assert len(kept["n_repeats"]) == n_rows
    figures = tmp_path / "figures" / "nsd"
    for name in ("synthetic", "imagery"):
        drawn = figures / f"further_{name}_subj01.png"
        assert drawn.stat().st_size > 10_000


def test_the_notebook_says_what_is_not_there_and_decodes_nothing(
    nsd: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = tiny_nsd.copy_of(nsd, tmp_path / "a copy")
    for path in root.rglob("betas_nsd*"):
        path.unlink()
    names = play(tmp_path / "run", root, monkeypatch)
    said = capsys.readouterr().out
    assert said.count("is not decoded, because") == 4  # at the start and at the end
    assert "decoded here: nothing" in said
    assert len(read_table(names["run"].folder / "further_tests.csv")) == 0
    assert not list(names["run"].folder.glob("*_synthetic.h5"))
    assert not list((tmp_path / "run" / "figures").rglob("further_*.png"))


def test_stimuli_are_shown_by_a_rule_and_noise_belongs_to_a_stimulus(
    nsd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of each class, all pictures; a condition's images depend on it alone."""
    synthetic, imagery = test_sets.further_tests(NsdTree(nsd))
    group = synthetic.stimuli().group
    shown = further_tests.chosen(synthetic.stimuli())
    assert len(shown) == 16
    for name in set(group):
        of_class = np.flatnonzero(group == name)
        assert set(shown) & set(of_class) == set(of_class[:2])
    assert further_tests.chosen(imagery.stimuli()).tolist() == list(range(12))

    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    run = start_run("nsd", subject=1, overrides=OVER, notebook="A7_further_tests")
    backbone, rng = tiny_backbone(), np.random.default_rng(7)
    stimulus = np.tile(np.arange(18), 3)
    condition = np.repeat(["attention", "imagery", "vision"], 18)
    responses = FurtherResponses({}, stimulus, condition, stimulus + 1, {})
    widths = {"z": int(np.prod(backbone.latent_shape))}
    widths["c"] = backbone.n_tokens * backbone.text_dim
    decoded = {
        f"{name}/decoded": np.tile(rng.standard_normal((18, n)), (3, 1)).astype("f4")
        for name, n in widths.items()
    }
    given = (run, backbone, imagery, responses)
    images = further_tests.reconstruct(*given, decoded)
    assert list(images) == ["shown", "decoded, imagery", "decoded, vision"]
    same = images["decoded, vision"]
    np.testing.assert_array_equal(images["decoded, imagery"], same)
    assert len({image.tobytes() for image in same}) == 12
    decoded["z/decoded"][18:36] *= -1  # imagery alone
    again = further_tests.reconstruct(*given, decoded)
    np.testing.assert_array_equal(again["decoded, vision"], same)
    assert (again["decoded, imagery"] != same).any()


def test_it_runs_where_nsd_may_be_and_again_when_its_files_come(
    nsd: Path, tmp_path: Path
) -> None:
    def jobs(name: str, root: Path) -> dict[str, graph.Job]:
        profile = load_profile(name)
        plan = graph.make_plan(profile, Tree(tmp_path, name, root), {})
        return {job.name: job for job in plan.jobs}

    assert not [
        n for p in ("smoke", "demo", "algonauts") for n in jobs(p, nsd) if "A7" in n
    ]
    found = jobs("nsd", nsd)["A7_further_tests_subj01"]
    assert found.needs[-1] == "02_decoding_subj01"
    names = [name for name in found.facts["files"] if "betas_nsd" in name]
    assert len(names) == 2
    without = jobs("nsd", tmp_path / "nothing")["A7_further_tests_subj01"]
    assert not [name for name in without.facts["files"] if "nsdsynthetic" in name]
