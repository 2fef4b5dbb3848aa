"""Wrong use gets one sentence and a non-zero exit."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from minddiff_utils.core.areas import AREAS, HVC
from minddiff_utils.core.rng import stream
from minddiff_utils.evaluation.claims import CLAIMS, evaluate_claims, vacuity_table
from minddiff_utils.evaluation.claims.evidence import Claim, Evidence, Outcome
from minddiff_utils.pipeline.cli import main
from minddiff_utils.pipeline.cluster import dask_workers


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--profile", "dmeo"], "does not exist"),
        (["run", "--profile", "nsd"], "--nsd-root"),
        (["run", "--profile", "nsd", "--nsd-root", "/nowhere"], "not found"),
        (["run", "--subjects", "9"], "subjects"),
        (["run", "--subjects", "one"], "with commas"),
        (["run", "--set", "stage2.fast.n_iter"], "KEY=VALUE"),
        (["run", "--set", "stage2.fast.n_iter=many"], "n_iter"),
        (["run", "--only", "42"], "No notebook has the number"),
        (["run", "--set", "stage2.fast.n_iter=[1"], "not valid YAML"),
        (["run", "--jobs", "0"], "--jobs is 0, but must be 1 or more"),
        (["run", "--models", "/nowhere"], "The models' folder"),
        (["fetch", "nsd", "--jobs", "0"], "--jobs is 0, but must be 1 or more"),
        (["fetch", "nsd", "--subjects", "9"], "subjects"),
        (["run", "--shards", "2"], "12 images in batches of 16 make 1 to 1"),
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


@pytest.mark.parametrize(
    ("arguments", "package", "words"),
    [
        (
            ["run", "--executor", "dask"],
            "distributed",
            "--executor dask needs distributed",
        ),
    ],
)
def test_a_command_whose_extra_is_missing_says_what_to_install(
    arguments: list[str],
    package: str,
    words: str,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith(words)
    assert error.count("\n") == 1
    _, command, _ = error.split("`")
    python, *install, lock = shlex.split(command)
    assert (python, install) == (sys.executable, ["-m", "pip", "install", "-r"])
    assert f"\n{package}==" in f"\n{Path(lock).read_text(encoding='utf-8')}"


def test_claims_of_a_run_that_never_was_are_not_invented(
    tmp_path: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    assert main(["claims"]) == 1
    assert "claims.csv does not exist" in capsys.readouterr().err


def _weights() -> pd.DataFrame:
    """Return voxel weights in which c leans on high areas, the others on low ones."""
    rows = [
        ("1", feature, area, 2.0 if (area in HVC) == (feature == "c") else 1.0, 50)
        for feature in ("c", "z", "clip/1")
        for area in AREAS
    ]
    columns = ["subject", "feature", "area", "weight", "n_voxels"]
    return pd.DataFrame(rows, columns=columns)


def _write_ledger(root: Path, claims: Sequence[Claim]) -> Path:
    """Write what notebook 05 writes; return the table of nulls."""
    folder = root / "figures" / "demo"
    (folder / "tables").mkdir(parents=True)
    evidence = Evidence({"weights": _weights()}, in_silico=True, profile="demo")
    ledger = evaluate_claims(evidence, label="in silico")
    ledger.to_csv(folder / "claims.csv", index=False)
    path = folder / "tables" / "claims_null.csv"
    rng = stream(0, "nulls")
    table = vacuity_table(evidence, rng=rng, label="in silico", claims=claims)
    table.to_csv(path, index=False)
    return path


def test_claims_prints_the_ledger_and_is_content_where_every_check_can_fail(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    _write_ledger(tmp_path, CLAIMS)
    assert main(["claims"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == len(CLAIMS) + 1  # and the profile
    assert said[8].startswith("  C9  holds (in silico, direction only): ")
    assert said[9].startswith(" C10  cannot be said here (in silico, direction only)")


def test_claims_fails_where_a_check_holds_on_its_null(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    blind = [
        replace(c, evaluate=lambda _evidence: Outcome("holds", "always"))
        if c.claim == "C9"
        else c
        for c in CLAIMS
    ]
    _write_ledger(tmp_path, blind)
    assert main(["claims"]) == 1
    said, error = capsys.readouterr()
    last = said.splitlines()[-1]
    assert last.startswith(
        "C9 is vacuous: its rule holds on 20 of 20 draws of its null"
    )
    assert error.count("\n") == 1
    assert "decides C9: that verdict means nothing" in error


def test_claims_without_nulls_says_how_to_make_them(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    _write_ledger(tmp_path, CLAIMS).unlink()
    assert main(["claims"]) == 1
    said, error = capsys.readouterr()
    assert "  C9  holds" in said  # the ledger all the same
    assert error.endswith("minddiff run --profile demo --only 05 --force.\n")
    assert error.count("\n") == 1


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
    assert main(["run", "--dry-run", "--shards", "3", *sizes]) == 0
    said = capsys.readouterr().out.splitlines()[1:]
    assert said[:2] == [f"02_decoding_subj0{s}: would run (new)" for s in (1, 2)]
    assert said[2:] == [
        f"03_stage1_subj0{s}_shard{i}of3: would run (new)"
        for s in (1, 2)
        for i in range(3)
    ]
    assert list(tmp_path.iterdir()) == []


def test_help_tells_how_to_shard(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "--shards N run notebooks 03 and 04 as N jobs per subject" in said
    assert "INDEX/N" in said


@pytest.mark.parametrize(
    ("arguments", "n_jobs"),
    [
        ([], 2),
        (["--set", "models.device=cuda"], 1),
        (["--set", "models.device=cuda", "--jobs", "3"], 3),
        (["--jobs", "1"], 1),
    ],
)
def test_a_gpu_gets_one_job_at_a_time_unless_asked_for_more(
    arguments: list, n_jobs: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[int] = []

    def run_plan(*_: object, **given: object) -> None:
        seen.append(given["n_jobs"])

    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    monkeypatch.setattr("minddiff_utils.pipeline.commands.run_plan", run_plan)
    assert main(["run", "--profile", "smoke", "--only", "01", *arguments]) == 0
    assert seen == [n_jobs]


def test_the_former_name_of_executor_is_still_understood(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[object] = []

    def run_plan(*_: object, **given: object) -> None:
        seen.append(given["executor"].func)

    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    monkeypatch.setattr("minddiff_utils.pipeline.commands.run_plan", run_plan)
    for option in ("--executor", "--engine"):
        words = ["run", "--profile", "smoke", "--only", "01", option, "dask"]
        assert main(words) == 0
    assert seen == [dask_workers, dask_workers]


def test_more_jobs_than_gpus_are_refused_before_any_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-0a")
    device = ["--set", "models.device=cuda", "--jobs", "2"]
    assert main(["run", "--only", "01", "--profile", "smoke", *device]) == 1
    error = capsys.readouterr().err
    assert "--jobs is 2, but each job needs a GPU of its own" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "module", ["pipeline.cli", "evaluation.claims", "evaluation.images"]
)
def test_what_a_command_reads_results_with_loads_no_networks(module: str) -> None:
    """Seconds, and whatever lies on a user's path under their names."""
    code = f"import sys, minddiff_utils.{module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    heavy = {"torch", "sklearn", "diffusers", "transformers", "matplotlib"}
    assert not heavy & set(done.stdout.split())
