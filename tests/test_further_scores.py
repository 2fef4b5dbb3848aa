"""Further scores of a run: each image with its own captions, brain and names."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from torch import Tensor

from minddiff_utils.core import store
from minddiff_utils.core.areas import AREAS
from minddiff_utils.core.conditions import conditions_of
from minddiff_utils.core.rng import stream
from minddiff_utils.core.run import Run, start
from minddiff_utils.evaluation import subject_scores
from minddiff_utils.evaluation.further import all_scores, captions
from minddiff_utils.evaluation.subject_scores import Models
from minddiff_utils.models import Judge

#: An image is flat; its colour says which of the four it shows.
NAMES = ("cat", "dog", "horse", "sheep")
COLOURS = np.array([[250, 5, 5], [5, 250, 5], [5, 5, 250], [250, 250, 5]], np.uint8)
N_TRAIN, N_TEST, N_VOXELS = 48, 8, 25


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True)


class Eye:
    """Embeds a flat image by its colour, and a caption by its animal's colour."""

    def image_embed(self, x: Tensor) -> Tensor:
        return _unit(x.mean(dim=(2, 3)))

    def text_embed(self, texts: Sequence[str]) -> Tensor:
        rows = [COLOURS[NAMES.index(text.split()[-1])] / 127.5 - 1 for text in texts]
        return _unit(torch.tensor(np.array(rows), dtype=torch.float32))


def _network(images: Any) -> npt.NDArray[np.float32]:
    rows = np.asarray(images[:]).reshape(len(images), -1)[:, :48].astype(np.float32)
    return rows + np.arange(48, dtype=np.float32)


def _pictures(kinds: npt.NDArray[np.int64], *names: str) -> npt.NDArray[np.uint8]:
    noise = stream(1, *names).integers(-5, 6, (len(kinds), 12, 12, 3))
    return np.clip(COLOURS[kinds][:, None, None] + noise, 0, 255).astype(np.uint8)


def _write(run: Run, method: str, nsd_id: Any, kinds: npt.NDArray[np.int64]) -> None:
    for number, image in zip(nsd_id, _pictures(kinds, method), strict=True):
        store.write_png(run.tree.stage_dir(1, method) / f"{number}.png", image, run=run)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Give a run whose stage 1 shows what was seen, and stage 2 always a cat."""
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    monkeypatch.setattr(captions, "semantic_features", _read)
    over = {"subjects": (1,), "data.n_reconstruct": N_TEST, "models.batch_size": 4}
    run = start("smoke", overrides=over)
    rng = stream(2, "kinds")
    kinds = np.concatenate([rng.integers(0, 4, N_TRAIN), np.arange(N_TEST) % 4])
    ids = rng.permutation(1000)[: len(kinds)]
    folder = run.tree.derived(1)
    texts = np.array([[f"a {NAMES[k]} on the grass"] for k in kinds])
    shown = {"images": _pictures(kinds, "seen"), "nsd_id": ids, "captions": texts}
    store.write_arrays(folder / "stimuli.h5", shown, run=run)
    evoked = COLOURS[kinds] @ rng.normal(size=(3, N_VOXELS)) / 100
    measured = evoked + 0.1 * rng.normal(size=evoked.shape)
    brain = {
        "betas": measured.astype(np.float32),
        "split": np.array(["train"] * N_TRAIN + ["test"] * N_TEST),
        "roi": np.zeros(N_VOXELS, np.int32),
        "roi_names": np.array(AREAS),
        "voxel_ijk": np.arange(3 * N_VOXELS).reshape(-1, 3),
    }
    store.write_arrays(folder / "responses.h5", brain, run=run)
    test = ids[N_TRAIN:][::-1]  # another order than in stimuli.h5
    true = _meaning(texts[N_TRAIN:][::-1])
    decoded = {"nsd_id": test, "c/true": true, "c/decoded": true[::-1]}
    store.write_arrays(folder / "decoded.h5", decoded, run=run)
    for condition in conditions_of(run.profile):
        if condition.engine and condition.n_images == "all":
            made = (
                0 * kinds[N_TRAIN:] if condition.name == "stage2" else kinds[N_TRAIN:]
            )
            _write(run, condition.name, test, made[::-1])
    for stage in ("stage1", "stage2"):
        made_of = pd.DataFrame({"method": stage, "nsd_id": test})
        store.write_table(folder / f"{stage}.csv", made_of, run=run)
    return run


def _meaning(texts: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    kinds = [NAMES.index(row[0].split()[1]) for row in texts]
    return np.eye(6, dtype=np.float32)[kinds] + 1


def _read(_backbone: Any, texts: npt.NDArray[Any], **_size: int) -> Any:
    return _meaning(texts)


def _load(_run: Run) -> Models:
    eye: Any = Eye()
    networks = dict.fromkeys(("lite0_early", "lite0_middle", "lite0_late"), _network)
    return Models(_backbone(), Judge("made up", eye), networks)


def _scored(run: Run, load: Any = _load, **more: Any) -> Any:
    """Return all scores of subject 1 by models that are not the run's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject_scores, "load_models", load)
        return all_scores(run, [1], **more)


def _backbone() -> Any:
    return SimpleNamespace(clip_image_embed=Eye().image_embed)


def test_each_image_meets_its_own_captions_and_responses(run: Run) -> None:
    _, _, seen = _scored(run)
    shares = seen.naming.groupby(["metric", "method"])["value"].mean()
    for metric in ("named_by_judge", "named_by_probe"):
        assert shares[metric, "truth"] == shares[metric, "stage1"] == 1
        assert shares[metric, "stage2"] == 0.25  # "cat", always: one in four
    chance = seen.naming.groupby("method")["floor"].mean()
    assert chance["stage2"] == pytest.approx(0.25)
    r = (
        seen.brain[seen.brain["metric"] == "brain_V1"]
        .groupby("method")
        .mean(numeric_only=True)
    )
    assert r.loc["stage1", "value"] > 0.9
    assert r.loc["stage1", "value"] > r.loc["stage1", "floor"] + 0.5
    assert r.loc["stage2", "value"] == pytest.approx(r.loc["stage2", "floor"], abs=0.3)
    assert set(seen.brain["metric"]) == {"brain_all", "brain_LVC", "brain_V1"}
    assert len(seen.categories) == N_TEST
    found = seen.captions.groupby(["metric", "method"])["value"].mean()
    assert found["object_words", "true c"] == 1
    assert found["object_words", "decoded c"] == 0  # the order was turned round
    assert found["setting_words", "decoded c"] == 1  # all on the grass
    assert found["rouge_1", "true c"] == 1
    assert found["rouge_1", "decoded c"] == pytest.approx(0.8)  # all but the animal


def _bare() -> tuple[Any, Any]:
    return _backbone(), Judge("made up", cast(Any, Eye()))


def test_each_network_looks_once_at_the_images_of_a_condition(run: Run) -> None:
    models, looked = _load(run), []

    def network(images: Any) -> npt.NDArray[np.float32]:
        looked.append(np.asarray(images[:]).tobytes())
        return _network(images)

    once = {**models.networks, "lite0_early": network}
    whole = Models(models.backbone, models.judge, once)
    scores, _, seen = _scored(run, lambda _: whole)
    assert set(seen.brain["method"]) == {"truth", *scores["method"].unique()}
    assert len(looked) == len(set(looked)) == 2 + scores["method"].nunique()


def test_in_silico_the_true_brain_is_asked_for_the_same_images(run: Run) -> None:
    measured = store.read_arrays(run.tree.derived(1) / "responses.h5", ["betas"])
    means = {}

    def read_brain(folder: Path, subject: int, voxel_ijk: Any) -> Any:
        assert (folder, subject) == (run.tree.nsd, 1)
        assert voxel_ijk[1].tolist() == [3, 4, 5]
        return respond

    def respond(images: Any, depths: Any) -> Any:
        assert [len(depth) for depth in depths] == [len(images)] * 3
        seen = np.abs(images.mean(axis=(1, 2))[:, None] - COLOURS).sum(-1).argmin(1)
        return means["by kind"][seen]

    kinds = store.read_arrays(run.tree.derived(1) / "stimuli.h5", ["captions"])
    kind = np.array([NAMES.index(t[0].split()[1]) for t in kinds["captions"]])
    means["by kind"] = np.stack(
        [measured["betas"][kind == k].mean(0) for k in range(4)]
    )
    _, _, seen = _scored(run, true_brain=read_brain)
    kinds = set(seen.brain["metric"])
    assert {"brain_V1", "true_brain_all", "true_brain_LVC"} <= kinds
    assert "true_brain_V1" not in kinds  # sets of areas alone
    own = seen.brain[seen.brain["metric"] == "true_brain_LVC"]
    r = own.groupby("method")["value"].mean()
    assert r["stage1"] == pytest.approx(r["truth"])
    assert r["truth"] > 0.9 > r["stage2"]  # it shows a cat always


def test_what_cannot_be_asked_of_a_run_has_no_rows(run: Run) -> None:
    folder = run.tree.derived(1)
    shown = store.read_arrays(folder / "stimuli.h5")
    shown["captions"] = np.array([["a thing"]] * len(shown["nsd_id"]))
    store.write_arrays(folder / "stimuli.h5", shown, run=run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captions, "semantic_features", lambda *_a, **_k: np.eye(48, 6))
        _, _, seen = _scored(run, lambda _: Models(*_bare()))
    assert seen.naming.empty  # no caption names a category
    assert seen.brain.empty  # no network but the judge
    assert set(seen.captions["metric"]) == {"rouge_1", "rouge_l"}
