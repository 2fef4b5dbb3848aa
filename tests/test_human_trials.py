"""Trials for people: what is shown, what answers mean, what is refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import comb

from minddiff_utils.core import store
from minddiff_utils.core.errors import DataError
from minddiff_utils.core.run import Run, start
from minddiff_utils.evaluation.further.human_trials import (
    evaluate_answers,
    page_of,
    plan_trials,
)
from minddiff_utils.pipeline.cli import main
from minddiff_utils.reporting.human_trials import render_page

IDS = list(range(100, 112))
HEAD = "page,rater,trial,answer\n"


def _trials(rng: np.random.Generator, n: int = 10) -> pd.DataFrame:
    return plan_trials({"stage1": IDS, "stage2": IDS[:8]}, n=n, rng=rng)


def _text(
    trials: pd.DataFrame, rater: str, said: Callable[[Any], str], *, page: str = ""
) -> str:
    page = page or page_of(trials)
    return HEAD + "".join(
        f"{page},{rater},{row.trial},{said(row)}\n" for row in trials.itertuples()
    )


def _other(side: str) -> str:
    return "left" if side == "right" else "right"


# --- trials -------------------------------------------------------------------------


def test_each_trial_has_its_mate_on_the_side_of_the_key(
    rng: np.random.Generator,
) -> None:
    trials = _trials(rng)
    assert trials["kind"].value_counts().to_dict() == {
        "mate": 18, "methods": 8, "catch": 3,
    }  # fmt: skip
    assert trials["trial"].tolist() == list(range(1, 30))
    for row in trials.itertuples():
        mate = row.left if row.answer == "left" else row.right
        other = row.right if row.answer == "left" else row.left
        method, _, image = mate.partition("/")
        assert int(image) == row.seen
        if row.kind == "methods":
            assert row.method == "stage1 over stage2"
            assert (method, other) == ("stage1", f"stage2/{row.seen}")
        else:
            assert method == row.method
            assert other.startswith(f"{method}/")
            assert other != mate
    assert 5 < (trials["answer"] == "left").sum() < 24  # sides are drawn
    assert trials["kind"].iloc[:18].nunique() > 1  # and so is the order


def test_the_same_stream_gives_the_same_page_and_another_another() -> None:
    one, same, other = (_trials(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert page_of(one) == page_of(same) != page_of(other)
    with pytest.raises(DataError, match="name a method with two images or more"):
        plan_trials({"stage1": [7]}, n=3, rng=np.random.default_rng(1))


# --- answers ------------------------------------------------------------------------


def test_shares_have_exact_binomial_intervals(rng: np.random.Generator) -> None:
    trials = _trials(rng)
    mates = trials[(trials["kind"] == "mate") & (trials["method"] == "stage1")]
    wrong = set(mates["trial"].iloc[:1])
    text = _text(
        trials, "Ann", lambda r: _other(r.answer) if r.trial in wrong else r.answer
    )
    table = evaluate_answers(trials, {"ann.csv": text})
    row = table.set_index("method").loc["stage1"]
    assert (row["n"], row["n_right"], row["share"]) == (10, 9, 0.9)
    assert row["p"] == pytest.approx(2 * (comb(10, 9) + 1) / 2**10)
    # Clopper and Pearson: what would give 9 or more, and 9 or fewer, in 2.5 %
    low, high = row["ci_low"], row["ci_high"]
    more = sum(comb(10, k) * low**k * (1 - low) ** (10 - k) for k in (9, 10))
    assert more == pytest.approx(0.025)
    assert 1 - high**10 == pytest.approx(0.025)
    assert set(table["state"]) == {"counted"}
    assert set(table["kind"]) == {"mate", "methods"}


def test_who_fails_catch_trials_is_named_and_left_out(rng: np.random.Generator) -> None:
    trials = _trials(rng)
    blind = _text(trials, "Bob", lambda r: _other(r.answer))
    good = _text(trials, "Ann", lambda r: r.answer)
    table = evaluate_answers(trials, {"both.csv": good + blind})
    bob = table[table["rater"] == "Bob"]
    assert bob["state"].tolist() == ["left out: 0 of 3 catch trials right"]
    assert bob["share"].isna().all()
    assert (table[table["rater"] == "Ann"]["share"] == 1).all()
    few = "\n".join(good.splitlines()[:3])  # catch trials not answered count as wrong
    assert "left out" in evaluate_answers(trials, {"few.csv": few})["state"].iloc[0]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t: t.replace(t.split(",")[3].split("\n")[1], "00000000"), "page"),
        (lambda t: t + "one,two\n", "line 31 is no line of page, rater"),
        (lambda t: t.replace(",1,", ",99,", 1), "names trial '99'"),
        (lambda t: t.replace("left", "top", 1), "the answer is 'top'"),
        (lambda _: HEAD, "holds no answers"),
        (lambda t: t + t.replace("left", "right"), "twice, differently"),
    ],
)
def test_what_is_no_answer_is_one_sentence(
    spoil: Callable[[str], str], words: str, rng: np.random.Generator
) -> None:
    trials = _trials(rng)
    text = spoil(_text(trials, "Ann", lambda r: r.answer))
    with pytest.raises(Exception, match=words) as error:
        evaluate_answers(trials, {"ann.csv": text})
    assert type(error.value).__module__ == "minddiff_utils.core.errors"
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


# --- the page -----------------------------------------------------------------------


def test_the_page_is_one_file_that_loads_nothing_and_holds_no_key(
    rng: np.random.Generator,
) -> None:
    trials = _trials(rng)
    keys = {*trials["left"], *trials["right"], *("truth/" + trials["seen"].astype(str))}
    shown = {k: rng.integers(0, 256, (8, 8, 3), dtype=np.uint8) for k in sorted(keys)}
    page = render_page(trials, shown, "profile <smoke>")
    assert "profile &lt;smoke&gt;" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "default-src 'none'" in page
    for word in ("stage1", "stage2", "catch", "mate"):
        assert word not in page
    rows = json.loads(re.findall(r"TRIALS = (.*);", page)[0])
    assert len(rows) == len(trials)
    assert len(json.loads(re.findall(r"PICTURES = (.*);", page)[0])) == len(keys)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Give a run with four images of stage 1 and stage 2."""
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    run = start("smoke")
    folder, ids = run.tree.derived(1), np.array([7, 3, 9, 5])
    pictures = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    store.write_arrays(
        folder / "stimuli.h5", {"images": pictures, "nsd_id": ids}, run=run
    )
    store.write_arrays(folder / "responses.h5", {"split": ["test"] * 4}, run=run)
    store.write_arrays(folder / "decoded.h5", {"nsd_id": ids}, run=run)
    for method in ("stage1", "stage2"):
        for nsd_id, image in zip(ids, pictures, strict=True):
            path = run.tree.stage_dir(1, method) / f"{nsd_id}.png"
            store.write_png(path, image, run=run)
    return run


def test_the_command_writes_the_page_and_evaluates_what_comes_back(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["human-trials", "--profile", "smoke", "--n", "3"]
    assert main(command) == 0
    assert "human_trials.html" in capsys.readouterr().out
    assert (run.tree.figures / "human_trials.html").is_file()
    trials = store.read_table(run.tree.tables / "human_trials.csv")
    page = re.findall(
        r'PAGE = "(\w+)"', (run.tree.figures / "human_trials.html").read_text()
    )
    back = tmp_path / "ann.txt"
    back.write_text(_text(trials, "Ann", lambda r: r.answer, page=page[0]))
    assert main([*command, "--answers", str(back)]) == 0
    assert "stage1 over stage2" in capsys.readouterr().out
    table = store.read_table(run.tree.tables / "T9_human_trials.csv")
    assert (table["share"] == 1).all()
    back.write_text("nothing of use\n")
    assert main([*command, "--answers", str(back)]) == 1
    assert "ann.txt, line 1 is no line" in capsys.readouterr().err
    assert main([*command, "--methods", "stage9"]) == 1
    assert "holds no images" in capsys.readouterr().err
