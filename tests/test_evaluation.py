"""Evaluation reads the right images, pairs them rightly and refuses what is incomplete.

The models are made up: an image's embedding is its mean colour, so that every score can
be computed beside it by numpy alone.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from torch import Tensor

from minddiff_utils import evaluation
from minddiff_utils.core import store
from minddiff_utils.core.contrasts import CONTRASTS
from minddiff_utils.core.errors import MindDiffError, StoreError
from minddiff_utils.core.rng import stream
from minddiff_utils.core.run import Run, start
from minddiff_utils.core.types import Images
from minddiff_utils.evaluation import claims, metrics, subject_scores
from minddiff_utils.evaluation.images import read_stimuli
from minddiff_utils.evaluation.metrics import METRICS
from minddiff_utils.evaluation.metrics.embeddings import frechet_distance
from minddiff_utils.evaluation.subject_tables import Completeness
from minddiff_utils.models import Judge

#: The stimuli's rows; test images are those of `decoded.h5`, in its order.
IDS = np.array([40, 7, 300, 12, 99, 81, 5])
SPLIT = ["train", "test", "train", "test", "validation", "test", "test"]
DECODED = np.array([81, 7, 5, 12])
NEAREST = np.array([300, 40, 40, 300])
N = 3  # images to reconstruct
SMALL = {
    "subjects": (1, 2),
    "data.n_reconstruct": N,
    "models.batch_size": 2,
    "evaluation.n_bootstrap": 20,
}
GENERATED = ("stage1", "stage2", "z_only", "c_only", "true_features", "shuffled")
GENERATED += ("stage2_true", "stage2_shuffled", "stage2_guided")
GENERATED += ("takagi", "takagi_minddiffuser", "brain_diffuser_style")
GENERATED += ("permuted_voxels", "retrieval", "random_train", "mean_image")
GENERATED += ("pixel_ridge", "autoencoder", "stage1_best", "category_only")
GENERATED += ("stage1_posterior", "retrieval_caption", "posterior_image")
GENERATED += ("stage1_draw_2", "stage1_draw_3")
#: Captions of the stimuli, a row per image: cats and dogs.
CAPTIONS = np.array(
    [["a cat"], ["a dog"], ["a cat"], ["a cat"], ["x"], ["a cat"], ["a dog"]]
)


def _colour(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3)) + 1  # (n, 3)


class Eye:
    def image_embed(self, x: Tensor) -> Tensor:
        return _colour(x)


class MirroredBackbone:
    """An autoencoder that loses nothing, and a CLIP that sees green alone doubled."""

    device = torch.device("cpu")

    def at_once(self, n: int) -> int:
        return n

    def clip_image_embed(self, x: Tensor) -> Tensor:
        return _colour(x) * torch.tensor([1.0, 2.0, 1.0])

    def encode_images(self, x: Tensor) -> Tensor:
        return x.flip(3)

    def decode_latents(self, z: Tensor) -> Tensor:
        return z.flip(3)


BACKBONE: Any = MirroredBackbone()
EYE: Any = Eye()
MODELS = subject_scores.Models(BACKBONE, Judge("made up", EYE))


def _images(*names: str | int, n: int = len(IDS)) -> Images:
    rng = stream(3, "tests", *names)
    base = rng.integers(0, 200, (n, 1, 1, 3))
    return (base + rng.integers(0, 56, (n, 16, 16, 3))).astype(np.uint8)


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    monkeypatch.setattr("os.fsync", lambda _: None)  # hundreds of files, none to keep

    def begins(subject: int | None = None, shard: str = "0/1", **over: Any) -> Run:
        overrides = SMALL | {k.replace("__", "."): v for k, v in over.items()}
        return start("smoke", subject=subject, shard=shard, overrides=overrides)

    return begins


def _write_subject(run: Run, subject: int) -> None:
    """Write what notebooks 01 to 04 leave of one subject, with made-up images."""
    folder = run.tree.derived(subject)
    shown = {"images": _images("seen"), "nsd_id": IDS, "captions": CAPTIONS}
    found = {"nsd_id": DECODED, "retrieval_nsd_id": NEAREST}
    store.write_arrays(folder / "stimuli.h5", shown, run=run)
    store.write_arrays(folder / "responses.h5", {"split": SPLIT}, run=run)
    for name in ("decoded.h5", "decoded_systems.h5"):
        store.write_arrays(folder / name, found, run=run)
    for method in GENERATED:
        for nsd_id, image in zip(DECODED, _images(subject, method, n=N), strict=False):
            path = run.tree.stage_dir(subject, method) / f"{nsd_id}.png"
            store.write_png(path, image, run=run)
    for stage in ("stage1", "stage2"):
        methods = [stage] * N + ["other"] * N
        ids = [*DECODED[:N], *DECODED[:N]]
        table = pd.DataFrame({"method": methods, "nsd_id": ids, "loss": range(2 * N)})
        store.write_table(folder / f"{stage}.csv", table, run=run)


@pytest.fixture
def run(begin: Callable[..., Run]) -> Run:
    """Give the run of two subjects whose notebooks 01 to 04 are done."""
    started = begin()
    for subject in (1, 2):
        _write_subject(started, subject)
    return started


def _seen(ids: npt.NDArray[np.int64]) -> Images:
    return _images("seen")[[IDS.tolist().index(i) for i in ids]]


def _sentence(error: pytest.ExceptionInfo[MindDiffError]) -> str:
    text = str(error.value)
    assert text.endswith(".")
    assert "\n" not in text
    return text


# --- stimuli ------------------------------------------------------------------------


def test_stimuli_are_matched_by_image_number_not_by_row(run: Run) -> None:
    stimuli = read_stimuli(run, 1)
    assert stimuli.truth.nsd_id.tolist() == [81, 7, 5]
    np.testing.assert_array_equal(stimuli.truth.images, _seen(DECODED[:N]))
    np.testing.assert_array_equal(stimuli.test, _images("seen")[[1, 3, 5, 6]])


@pytest.mark.parametrize(
    ("name", "arrays"),
    [
        ("decoded.h5", {"nsd_id": DECODED + 1, "retrieval_nsd_id": NEAREST}),
        ("responses.h5", {"split": SPLIT[1:]}),
    ],
)
def test_artefacts_that_do_not_belong_together_are_refused_in_one_sentence(
    run: Run, name: str, arrays: Mapping[str, Any]
) -> None:
    store.write_arrays(run.tree.derived(1) / name, arrays, run=run)
    with pytest.raises(StoreError) as error:
        read_stimuli(run, 1)
    assert "do not belong together" in _sentence(error)


# --- scores -------------------------------------------------------------------------


def _cosine(a: Images, b: Images, weights: tuple[float, ...]) -> npt.NDArray[Any]:
    """Return cosines of mean colours, 0 to 2, weighted: by hand, without torch."""
    first, second = (
        x.mean(axis=(1, 2)) / 127.5 * weights
        for x in (a.astype(float), b.astype(float))
    )
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.asarray((first * second).sum(axis=1) / norms)


def _values(table: pd.DataFrame, method: str, metric: str) -> npt.NDArray[Any]:
    rows = table[(table["method"] == method) & (table["metric"] == metric)]
    assert rows["nsd_id"].tolist() == DECODED[:N].tolist()
    return rows["value"].to_numpy()


def test_scores_are_those_of_each_method_s_images_with_the_seen_ones(
    run: Run,
) -> None:
    scores, _ = subject_scores.score_subject(run, 2, MODELS)
    seen, made = _seen(DECODED[:N]), _images(2, "stage2", n=N)
    correlations = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(made, seen, strict=True)
    ]
    # float32 in the embeddings, float64 here
    found = _values(scores.table, "stage2", "pcc")
    np.testing.assert_allclose(found, correlations, rtol=1e-6)
    for metric, weights in (("clip_judge", (1, 1, 1)), ("clip_method", (1, 2, 1))):
        found = _values(scores.table, "stage2", metric)
        np.testing.assert_allclose(found, _cosine(made, seen, weights), rtol=1e-5)


def test_a_method_that_was_not_run_has_no_row_and_the_others_have(
    run: Run,
) -> None:
    scores, _ = subject_scores.score_subject(run, 1, MODELS)
    assert set(scores.table["method"]) == set(GENERATED)
    assert "stage2_paper" not in scores.sets["fid_judge"]


def test_the_judge_sees_all_test_images_in_batches(run: Run) -> None:
    _, reference = subject_scores.score_subject(run, 1, MODELS)
    expected = _images("seen")[[1, 3, 5, 6]].mean(axis=(1, 2)) / 127.5
    # float32 means
    np.testing.assert_allclose(reference["fid_judge"], expected, rtol=1e-5)


def _score(run: Run, subjects: Sequence[int], models: Any = MODELS) -> Any:
    """Return the scores of subjects and their distances, without further measures."""
    each = {s: subject_scores.score_subject(run, s, models) for s in subjects}
    return subject_scores.join_subjects(run, each)


def test_all_subjects_are_scored_and_compared_with_the_shared_test_images(
    run: Run,
) -> None:
    table, frechet = _score(run, (1, 2))
    assert set(table["subject"].astype(str)) == {"1", "2"}
    assert set(frechet["subject"]) == {"1", "2", "all"}
    scores, reference = subject_scores.score_subject(run, 2, MODELS)
    row = frechet[(frechet["subject"] == "2") & (frechet["method"] == "stage1")]
    expected = frechet_distance(
        scores.sets["fid_judge"]["stage1"], reference["fid_judge"]
    )
    assert row["value"].item() == expected
    both = frechet[(frechet["subject"] == "all") & (frechet["method"] == "stage1")]
    assert both["n"].item() == 2 * N


def test_subjects_scored_at_once_have_the_scores_of_one_process(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    overrides = {**SMALL, "models.backbone": "tiny"}
    tiny = start("smoke", overrides=overrides)
    work = subject_scores.score_subject
    each = subject_scores.each_subject(tiny, (1, 2), work)
    together = subject_scores.join_subjects(tiny, each)
    alone = _score(tiny, (1, 2), subject_scores.load_models(tiny))
    for first, second in zip(together, alone, strict=True):
        pd.testing.assert_frame_equal(first, second, check_exact=True)


@pytest.mark.parametrize("name", ["stage1.csv", "stage2.csv"])
def test_images_of_some_shards_are_never_evaluated(
    run: Run, begin: Callable[..., Run], name: str
) -> None:
    path = run.tree.derived(2) / name
    store.discard(path)
    part = begin(subject=2, shard="0/2")
    store.mark_part(path, run=part, inputs=[])
    with pytest.raises(StoreError) as error:
        _score(run, (1, 2))
    assert "shard 1/2 is missing" in _sentence(error)


@pytest.mark.parametrize("n", [2, 4])
def test_images_of_a_run_of_another_size_are_refused_in_one_sentence(
    run: Run, begin: Callable[..., Run], n: int
) -> None:
    with pytest.raises(StoreError) as error:
        subject_scores.score_subject(begin(data__n_reconstruct=n), 1, MODELS)
    assert "stage1.csv tells of 3 images" in _sentence(error)


def test_a_lost_image_is_refused(run: Run) -> None:
    (run.tree.stage_dir(1, "stage1") / "7.png").unlink()
    with pytest.raises(StoreError, match="holds 2 of 3 images"):
        subject_scores.score_subject(run, 1, MODELS)


# --- intervals ----------------------------------------------------------------------


def _scores() -> pd.DataFrame:
    """Return scores by hand: method k of `ALL` has k + image / 8 in both subjects."""
    methods = list(dict.fromkeys(m for pair in CONTRASTS for m in pair))
    rows = [
        (subject, method, image, "pcc", k + image / 8, 0.25)
        for subject in (1, 2)
        for k, method in enumerate(methods)
        for image in range(3)
    ]
    columns = ["subject", "method", "nsd_id", "metric", "value", "floor"]
    return pd.DataFrame(rows, columns=columns)


def test_a_method_s_ceiling_is_the_method_that_had_true_features(
    run: Run,
) -> None:
    scores = _scores()
    table = evaluation.compare_methods(scores)
    means = scores.groupby("method")["value"].mean()
    pooled = table[table["subject"] == "all"].set_index("method")
    assert pooled.loc["stage1", "value"] == means["stage1"]
    assert pooled.loc["stage1", "ceiling"] == means["true_features"]
    assert pooled.loc["stage2", "ceiling"] == means["stage2_true"]
    assert pooled.loc["stage2", "floor"] == 0.25


def test_contrasts_are_the_pairs_of_the_claims_in_order_and_signed() -> None:
    scores = _scores()
    table = evaluation.contrast_table(scores)
    pooled = table[table["subject"] == "all"]
    pairs = list(zip(pooled["method"], pooled["reference"], strict=True))
    assert pairs == list(CONTRASTS)
    means = scores.groupby("method")["value"].mean()
    expected = [means[a] - means[b] for a, b in CONTRASTS]
    assert pooled["value"].tolist() == expected  # eighths: exact in binary


# --- tables of all subjects ---------------------------------------------------------


def test_a_gathered_table_names_its_subject_in_front(run: Run) -> None:
    paths = {s: run.tree.derived(s) / "t.csv" for s in (1, 2)}
    for subject, path in paths.items():
        table = pd.DataFrame({"x": [subject * 10], "subject": ["wrong"]})
        store.write_table(path, table, run=run)
    table = evaluation.gather(run, "t.csv")
    assert list(table.columns) == ["subject", "x"]
    assert table.to_numpy().tolist() == [["1", 10], ["2", 20]]
    store.discard(paths[2])
    with pytest.raises(StoreError, match=r"subj02/t\.csv does not exist"):
        evaluation.gather(run, "t.csv")


def test_evidence_holds_every_table_and_names_who_is_missing(
    run: Run, begin: Callable[..., Run]
) -> None:
    names = ("accuracy", "image_accuracy", "k_selection", "weights")
    for subject in (1, 2):
        for name in names:
            table = pd.DataFrame({"name": [name], "value": [subject]})
            path = run.tree.derived(subject) / f"{name}.csv"
            store.write_table(path, table, run=run)
    scores = pd.DataFrame({"subject": [1, 2], "value": [0.1, 0.2]})
    evidence = claims.collect_evidence(run, scores)
    assert evidence.table("scores")["subject"].tolist() == ["1", "2"]
    for name in names:
        assert evidence.table(name)["name"].tolist() == [name] * 2
        assert evidence.table(name)["subject"].tolist() == ["1", "2"]
    assert evidence.table("study").empty
    assert evidence.in_silico
    assert not evidence.missing
    study = pd.DataFrame({"subject": [1], "method": ["paper"]})
    store.write_table(run.tree.study / "scores.csv", study, run=run)
    evidence = claims.collect_evidence(run, scores, subjects=[1])
    assert evidence.table("study")["subject"].tolist() == ["1"]
    assert evidence.missing == [2]
    real = begin()
    for subject in (1, 2):
        path = real.tree.derived(subject) / "responses.h5.manifest.json"
        path.write_text(path.read_text().replace('"in silico"', '"measured"'))
    assert not claims.collect_evidence(real, scores).in_silico


def test_costs_and_times_are_those_of_the_files(run: Run) -> None:
    for stage, extra in (("stage1", {}), ("stage2", {"n_unet_gradients": [3]})):
        rows = {"method": [stage], "nsd_id": [7], "n_unet_evaluations": [2], **extra}
        path = run.tree.derived(1) / f"{stage}.csv"
        store.write_table(path, pd.DataFrame(rows), run=run)
    costs = evaluation.gather_costs(run, [1])
    assert costs["n_unet_evaluations"].tolist() == [2, 2]
    assert np.isnan(costs["n_unet_gradients"].iloc[0])
    assert costs["n_unet_gradients"].iloc[1] == 3
    assert evaluation.notebook_seconds(run).empty
    run.tree.notebooks.mkdir(parents=True)
    for stem, seconds in (("04_stage2_subj01", 2.5), ("05_evaluation", 1.0)):
        path = run.tree.notebooks / f"{stem}.run.json"
        path.write_text(f'{{"seconds": {seconds}}}', encoding="utf-8")
    times = evaluation.notebook_seconds(run)
    assert times["notebook"].tolist() == ["04_stage2", "05_evaluation"]
    assert times["seconds"].tolist() == [2.5, 1.0]


def test_floors_are_the_rows_that_know_nothing_and_the_category_s_expectation() -> None:
    columns = ["subject", "method", "metric", "value", "ci_low", "ci_high", "floor"]
    rows = [
        ("all", "stage1", "pcc", 0.6, 0.5, 0.7, 0.1),
        ("all", "mean_image", "pcc", 0.2, 0.1, 0.3, 0.2),
        ("1", "mean_image", "pcc", 0.9, 0.9, 0.9, 0.2),
        ("all", "stage1", "two_way_by_truth", 0.8, 0.7, 0.9, 0.5),
    ]
    table = pd.DataFrame(rows, columns=columns).assign(n_images=4, n_subjects=2)
    floors = evaluation.floor_table(table, 0.75)
    assert floors["value"].tolist() == [0.1, 0.2, 0.5, 0.75]
    assert floors["floor"].str.contains("category").tolist() == [False] * 3 + [True]


def test_every_score_comes_with_its_definition() -> None:
    table = pd.DataFrame({"metric": ["pcc", "ssim_2d"], "value": [0.1, 0.2]})
    settings = metrics.with_settings(table)["settings"]
    assert settings.tolist() == [METRICS[m].settings for m in ("pcc", "ssim_2d")]
    assert settings.str.len().min() > 0
    no_metric = pd.DataFrame({"claim": ["C1"]})
    assert metrics.with_settings(no_metric) is no_metric


def test_the_category_s_expectation_follows_the_captions(run: Run) -> None:
    # images 81, 7 and 5 show "x", a dog and a dog: each dog has one other of its kind
    # in two, so s = (0 + 1/2 + 1/2) / 3 and the score is s / 2 + 1 - s
    assert evaluation.category_floor(run, 1) == pytest.approx(1 - 1 / 6)


# --- which subjects are there -------------------------------------------------------


def _finish(run: Run, subject: int) -> None:
    for name in (
        *("accuracy", "image_accuracy", "k_selection"),
        *("weights", "zero_iterations"),
    ):
        path = run.tree.derived(subject) / f"{name}.csv"
        store.write_table(path, pd.DataFrame({"x": [1]}), run=run)
    path = run.tree.derived(subject) / "trajectories.h5"
    store.write_arrays(path, {"x": np.zeros(1)}, run=run)


def test_a_half_finished_subject_is_named_as_missing_and_the_others_go_on(
    run: Run,
) -> None:
    with pytest.raises(StoreError) as error:  # no subject is finished yet
        evaluation.check_completeness(run)
    assert "accuracy.csv does not exist" in _sentence(error)
    for subject in (1, 2):
        _finish(run, subject)
    completeness = evaluation.check_completeness(run)
    assert completeness.complete == (1, 2)
    table = completeness.table().set_index("subject")
    assert table["n_reconstructed"].tolist() == [N, N]
    assert table["n_test"].tolist() == [len(DECODED)] * 2
    assert completeness.image_words() == f"{N} of {len(DECODED)} test images"
    store.discard(run.tree.stage_dir(2, "stage2") / f"{DECODED[1]}.png")
    completeness = evaluation.check_completeness(run)
    assert completeness.complete == (1,)
    assert f"stage2 holds {N - 1} of {N} images" in completeness.missing[2]
    store.discard(run.tree.derived(2) / "stage2.csv")
    completeness = evaluation.check_completeness(run)
    assert completeness.complete == (1,)
    state = completeness.table().set_index("subject")["state"]
    assert state["1"] == "complete"
    assert state["2"].startswith("missing: ")
    assert "stage2.csv does not exist" in state["2"]
    table, _ = _score(run, completeness.complete)
    assert set(table["subject"]) == {"1"}


def test_subjects_with_other_numbers_of_images_are_told_apart() -> None:
    completeness = Completeness({1: (982, 1000), 4: (907, 907)}, {3: "why"})
    assert completeness.image_words() == (
        "subject 1: 982 of 1000, subject 4: 907 of 907 test images"
    )
    assert completeness.table()["n_test"].tolist() == [1000, 907, pd.NA]


# --- pictures -----------------------------------------------------------------------


def test_a_gallery_has_the_first_images_under_the_words_given(run: Run) -> None:
    words = {"stage2": "two", "truth": "seen", "retrieval": "near"}
    rows = evaluation.gallery(run, 1, words, n=2)
    assert list(rows) == ["two", "seen", "near"]
    np.testing.assert_array_equal(rows["two"], _images(1, "stage2", n=N)[:2])
    np.testing.assert_array_equal(rows["seen"], _seen(DECODED[:2]))
    np.testing.assert_array_equal(rows["near"], _images(1, "retrieval", n=N)[:2])


def test_a_gallery_of_picked_images_keeps_their_order(run: Run) -> None:
    words = {"truth": "seen", "stage1": "one", "pixel_ridge": "pixels"}
    rows = evaluation.gallery(run, 1, words, n=2, picked=[5, 81])
    np.testing.assert_array_equal(rows["seen"], _seen(np.array([5, 81])))
    np.testing.assert_array_equal(rows["one"], _images(1, "stage1", n=N)[[2, 0]])
    assert rows["pixels"].shape == (2, 16, 16, 3)


def test_a_gallery_of_more_images_than_there_are_shows_all(run: Run) -> None:
    rows = evaluation.gallery(run, 1, {"truth": "seen", "stage1": "one"}, n=12)
    assert [len(images) for images in rows.values()] == [N, N]


def test_a_gallery_leaves_out_an_optional_method_that_was_not_run(
    run: Run,
) -> None:
    words = {"truth": "seen", "stage2_paper": "paper"}
    assert list(evaluation.gallery(run, 1, words, n=2)) == ["seen"]


def test_a_shard_s_gallery_shows_its_own_images(
    run: Run, begin: Callable[..., Run]
) -> None:
    words = {"truth": "seen", "stage1": "one", "retrieval": "near"}
    for nsd_id in DECODED[:2]:  # of the other shard, and not made yet
        (run.tree.stage_dir(1, "stage1") / f"{nsd_id}.png").unlink()
    rows = evaluation.gallery(begin(subject=1, shard="1/2"), 1, words, n=8)
    np.testing.assert_array_equal(rows["seen"], _seen(DECODED[2:3]))
    np.testing.assert_array_equal(rows["one"], _images(1, "stage1", n=N)[2:3])
    np.testing.assert_array_equal(rows["near"], _images(1, "retrieval", n=N)[2:3])
