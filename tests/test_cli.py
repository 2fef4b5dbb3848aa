"""Wrong use gets one sentence and a non-zero exit."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from minddiff_utils.evaluation.claims import evaluate_claims
from minddiff_utils.evaluation.claims.evidence import Evidence
from minddiff_utils.pipeline import commands
from minddiff_utils.pipeline.cli import main
from minddiff_utils.pipeline.cluster import dask_workers


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give what happened, and load no libraries ahead of a run."""
    happened: list[str] = []
    for name in ("job_context", "make_plan"):
        known = getattr(commands, name)

        def noted(*given: object, name: str = name, known: Any = known, **more: Any):
            happened.append(name)
            return None if name == "job_context" else known(*given, **more)

        monkeypatch.setattr(commands, name, noted)
    return happened


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--profile", "dmeo"], "does not exist"),
        (["run", "--profile", "nsd"], "--nsd-root"),
        (["run", "--profile", "nsd", "--nsd-root", "/nowhere"], "not found"),
        (["run", "--subjects", "9"], "subjects"),
        (["run", "--subjects", "one"], "with commas"),
        (["run", "--set", "stage2.paper.n_iter"], "KEY=VALUE"),
        (["run", "--set", "stage2.paper.n_iter=many"], "n_iter"),
        (["run", "--only", "42"], "No notebook has the number"),
        (["run", "--set", "stage2.paper.n_iter=[1"], "not valid YAML"),
        (["run", "--jobs", "0"], "--jobs is 0, but must be 1 or more"),
        (["run", "--models", "/nowhere"], "The models' folder"),
        (["fetch", "nsd", "--jobs", "0"], "--jobs is 0, but must be 1 or more"),
        (["fetch", "nsd", "--subjects", "9"], "subjects"),
        (["run", "--shards", "4"], "60 images in batches of 20 make 1 to 3"),
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


def test_claims_prints_verdicts_endpoints_and_the_label(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    folder = tmp_path / "figures" / "demo"
    folder.mkdir(parents=True)
    rows = [
        (str(s), m, k, "ssim_2d", 0.1 * (m == "stage2") + 0.01 * k * int(s), 0.0)
        for s in (1, 2)
        for m in ("stage1", "stage2")
        for k in range(5)
    ]
    columns = ["subject", "method", "nsd_id", "metric", "value", "floor"]
    scores = pd.DataFrame(rows, columns=columns)
    every = [scores.assign(metric=m) for m in ("ssim_2d", "pcc", "clip_judge")]
    tables = {"scores": pd.concat(every)}
    evidence = Evidence(tables, in_silico=True, profile="demo", missing=(7,))
    ledger = evaluate_claims(evidence, label="in silico")
    ledger.to_csv(folder / "claims.csv", index=False)
    assert main(["claims"]) == 0
    said = capsys.readouterr().out.splitlines()
    start = next(k for k, line in enumerate(said) if line.startswith(" C5c"))
    assert said[start].startswith(" C5c  supported  ·  stage 2 improves structure")
    assert said[start].endswith("[bayes (ours)]")
    assert said[start + 1].strip() == (
        "shown: stage 2 minus stage 1, PCC +0.100 [+0.100, +0.100]; unit image,"
        " 5 images, 2 of 2 subjects above 0"
    )
    assert "  C1  not testable here" in "\n".join(said)
    assert said[-2:] == [
        "(not finished, and not in these numbers: subject 7)",
        "(in silico)",
    ]


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


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["job_context", "make_plan"]),
        (["--only", "01"], ["make_plan"]),
        (["--from", "05"], ["make_plan"]),
        (["--dry-run"], ["make_plan"]),
        (["--executor", "dask"], ["make_plan"]),
    ],
)
def test_a_whole_run_loads_the_libraries_while_it_is_planned(
    arguments: list[str],
    expected: list[str],
    loaded: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    for name in ("run_plan", "show_claims"):
        monkeypatch.setattr(commands, name, lambda *_, **__: None)
    assert main(["run", "--profile", "smoke", *arguments]) == 0
    assert loaded == expected


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
