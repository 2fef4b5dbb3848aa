"""Wrong use gets one sentence and a non-zero exit."""

import pytest

from minddiff_utils.cli import main


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--profile", "dmeo"], "does not exist"),
        (["run", "--profile", "nsd"], "--nsd-root"),
        (["run", "--profile", "nsd", "--nsd-root", "/nowhere"], "not found"),
        (["run", "--subjects", "9"], "subjects"),
        (["run", "--subjects", "one"], "with commas"),
        (["run", "--set", "stage2.n_iter"], "KEY=VALUE"),
        (["run", "--set", "stage2.n_iter=many"], "n_iter"),
        (["run", "--only", "42"], "No notebook has the number"),
        (["run", "--set", "stage2.n_iter=[1"], "not valid YAML"),
        (["run", "--jobs", "0"], "--jobs is 0, but must be 1 or more"),
        (["run", "--shards", "2"], "16 images in batches of 16 make 1 to 1"),
        (["run", "--shards", "0"], "There are to be 0 shards"),
    ],
)
def test_wrong_use_gets_one_sentence_and_exit_code_one(
    arguments: list, words: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert "Traceback" not in error


def test_claims_of_a_run_that_never_was_are_not_invented(
    tmp_path: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    assert main(["claims"]) == 1
    assert "claims.csv does not exist" in capsys.readouterr().err


def test_dry_run_says_what_would_run_and_runs_nothing(
    tmp_path: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    assert main(["run", "--profile", "smoke", "--dry-run"]) == 0
    assert "00_insilico_nsd: would run" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_dry_run_tells_the_shards_of_each_subject(
    tmp_path: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    sizes = ["--set", "models.batch_size=4", "--subjects", "1,2", "--only", "02,03"]
    assert main(["run", "--dry-run", "--shards", "4", *sizes]) == 0
    said = capsys.readouterr().out.splitlines()[1:]
    assert said[:2] == [f"02_decoding_subj0{s}: would run" for s in (1, 2)]
    assert said[2:] == [
        f"03_stage1_subj0{s}_shard{i}of4: would run" for s in (1, 2) for i in range(4)
    ]
    assert list(tmp_path.iterdir()) == []


def test_help_tells_how_to_shard(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "--shards N run notebooks 03 and 04 as N jobs per subject" in said
    assert "INDEX/N" in said
