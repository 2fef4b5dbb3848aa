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
