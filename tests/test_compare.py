"""The reference that comes with the clone, and how a run is compared with it."""

import base64
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from minddiff_utils import __version__
from minddiff_utils.core import provenance, store
from minddiff_utils.core.errors import ConfigError, DataError, StoreError
from minddiff_utils.core.places import project_root
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.run import start
from minddiff_utils.pipeline.cli import main
from minddiff_utils.reporting import reference
from minddiff_utils.reporting.reference import writing
from minddiff_utils.reporting.reference.comparing import compare_cells

NOTEBOOKS = ("05_evaluation",)
PROFILE = load_profile("smoke")
SHIPPED = project_root() / "figures" / "reference"
#: A folder of nobody's machine, joined so that this file does not name it.
ELSEWHERE = "/".join(("", "home", "somebody", "clone"))


def png(width: int = 1600) -> bytes:
    """Return a PNG of `width` pixels with something in it."""
    ramp = np.linspace(0, 255, width).astype(np.uint8)
    image = np.stack([np.tile(ramp, (100, 1))] * 3, axis=-1)
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def executed(text: str, where: Path) -> str:
    """Return a notebook as papermill leaves it, with `text` and an image as outputs."""
    v4 = nbformat.v4
    picture = {"image/png": base64.b64encode(png()).decode()}
    outputs = [
        v4.new_output("stream", text=text),
        v4.new_output("display_data", picture, metadata={"image/png": {"width": 792}}),
    ]
    tags = {"tags": ["parameters"], "papermill": {"duration": 1.0}}
    cell = v4.new_code_cell("print(1)", outputs=outputs, metadata=tags)
    metadata = {"language_info": {"name": "python"}}
    metadata["papermill"] = {"output_path": str(where), "start_time": "2026-11-29"}
    return str(nbformat.writes(v4.new_notebook(cells=[cell], metadata=metadata)))


VERDICTS = {
    "C1": ("supported", "PCC +0.075 [+0.010, +0.120] in 4 of 4"),
    "C2": ("inconclusive", "judge CLIP -0.010 [-0.200, +0.100]"),
}


def make_run(
    root: Path,
    *,
    verdicts: Mapping[str, tuple[str, str]] = VERDICTS,
    value: float = 0.123456,
    seconds: float = 1.0,
    ran: tuple[str, ...] = ("05",),
    printed: str = "nothing of note",
) -> Path:
    """Write what a finished run leaves in `figures/smoke`; return that folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINDDIFF_ROOT", str(root))
        run = start("smoke", notebook="05_evaluation")
        folder, tables = run.tree.figures, run.tree.tables
        rows = [(claim, *words) for claim, words in verdicts.items() for _ in "ab"]
        claims = pd.DataFrame(rows, columns=["claim", "verdict", "reason"])
        claims = claims.assign(value=0.5, profile="made up")
        store.write_table(folder / "claims.csv", claims, run=run)
        scores = pd.DataFrame(
            {"subject": [1, 1], "method": ["stage1", "stage2"], "pcc": [value, 0.7]}
        )
        store.write_table(tables / "scores.csv", scores, run=run)
        spent = pd.DataFrame({"notebook": ran, "seconds": seconds})
        store.write_table(tables / "seconds.csv", spent, run=run)
        picture = np.asarray(Image.open(BytesIO(png())))
        for name in ("gain", "maps_subj01", "maps_subj02"):
            store.write_png(folder / f"{name}.png", picture, run=run)
        embedded = base64.b64encode(png()).decode()
        page = (
            f'<h1>Report</h1><img src="data:image/png;base64,{embedded}">'
            '<a href="tables/scores.csv">scores.csv</a>'
            '<a href="notebooks/02_decoding_subj02.ipynb">02_decoding_subj02</a>'
        )
        store.write_text(folder / "report.html", page, run=run)
    (folder / "notebooks").mkdir()
    for name in NOTEBOOKS:
        path = folder / "notebooks" / f"{name}.ipynb"
        path.write_text(executed(printed, path), encoding="utf-8")
    return folder


def write(run: Path, target: Path, **more: int) -> reference.About:
    return reference.write_reference(
        run, target, profile=PROFILE, notebooks=NOTEBOOKS, **more
    )


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("sound"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, sound: Path) -> Path:
    """Return a reference that no test changes."""
    target = tmp_path_factory.mktemp("kept") / "reference"
    write(sound, target)
    return target


@pytest.fixture
def ours(kept: Path, tmp_path: Path) -> Path:
    """Return a copy of the reference that a test may change."""
    return Path(shutil.copytree(kept, tmp_path / "reference"))


def kinds(parts: tuple[Any, ...]) -> dict[str, str]:
    return {part.name: part.kind for part in parts}


@pytest.fixture
def compare(tmp_path: Path, kept: Path) -> Callable[..., reference.Comparison]:
    """Return what compares a new run with the reference, `edit` changing it before."""

    def compared(
        edit: Callable[[Path], object] = lambda _run: None, **changes: Any
    ) -> reference.Comparison:
        run = make_run(tmp_path / "run", **changes)
        edit(run)
        return reference.compare(run, kept, profile=PROFILE)

    return compared


Compare = Callable[..., reference.Comparison]


def verdicts(claim: str, old: str, new: str) -> dict[str, tuple[str, str]]:
    verdict, words = VERDICTS[claim]
    return {**VERDICTS, claim: (verdict.replace(old, new), words.replace(old, new))}


# --- comparing ----------------------------------------------------------------------


def test_the_run_that_a_reference_was_made_from_is_identical(
    sound: Path, kept: Path
) -> None:
    found = reference.compare(sound, kept, profile=PROFILE)
    assert kinds(found.claims) == dict.fromkeys(("C1", "C2"), "identical")
    assert kinds(found.tables) == dict.fromkeys(("scores", "seconds"), "identical")
    assert found.difference() == ""


def test_the_sixth_digit_and_the_last_decimal_are_rounding(compare: Compare) -> None:
    found = compare(value=0.123457, verdicts=verdicts("C1", "+0.075", "+0.076"))
    assert kinds(found.tables)["scores"] == "within rounding"
    assert kinds(found.claims) == {"C1": "within rounding", "C2": "identical"}
    assert found.difference() == ""


def test_a_changed_number_is_named_with_its_place(compare: Compare) -> None:
    found = compare(value=0.123476, seconds=99.0)
    assert [line.split(": ", 1)[1].strip() for line in found.lines()[-2:]] == [
        "different, 1 of 6 cells, most of all pcc in row 1 (1 stage1 0.123456):"
        " 0.123476, reference 0.123456",
        "identical, seconds measured and not compared",
    ]
    assert found.difference() == (
        "This run differs from the reference beyond rounding in 1 of 2 tables"
        " (scores); no verdict changes."
    )


def test_a_notebook_that_ran_again_before_the_times_were_read_is_no_difference(
    compare: Compare,
) -> None:
    assert compare(ran=("05", "06")).difference() == ""


def test_a_changed_verdict_is_said(compare: Compare) -> None:
    found = compare(verdicts=verdicts("C2", "inconclusive", "contradicted"))
    assert found.claims[1].words == (
        "the verdict changes from 'inconclusive' to 'contradicted'"
    )
    assert found.difference().endswith("; the verdict changes on C2.")


@pytest.mark.parametrize(
    ("ledger", "words"),
    [
        (
            {"C1": VERDICTS["C1"], "C3": ("supported", "")},
            "the verdict changes on C2, C3.",
        ),
        (verdicts("C1", "+0.075", "+0.175"), "1 of 2 claims (C1); no verdict changes."),
    ],
)
def test_other_claims_and_other_numbers_are_told_apart(
    compare: Compare, ledger: dict[str, tuple[str, str]], words: str
) -> None:
    assert compare(verdicts=ledger).difference().endswith(words)


def rewrite(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    """Return what replaces the table of scores by one that no manifest speaks of."""

    def edit(run: Path) -> None:
        path = run / "tables" / "scores.csv"
        table = change(pd.read_csv(path))
        store.discard(path)
        table.to_csv(path, index=False)

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda run: store.discard(run / "tables" / "scores.csv"), "not in this run"),
        (rewrite(lambda t: t.rename(columns={"pcc": "ssim"})), "it has other columns"),
        (rewrite(lambda t: t.iloc[:1]), "1 rows, 2 in the reference"),
    ],
)
def test_a_table_that_is_lacking_or_of_another_form_is_a_difference(
    compare: Compare, edit: Callable[[Path], None], words: str
) -> None:
    found = compare(edit)
    assert found.tables[0].words == words
    assert "in 1 of 2 tables (scores)" in found.difference()


def edit_manifest(run: Path, **facts: object) -> None:
    path = run / "claims.csv.manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**manifest, **facts}), encoding="utf-8")


def test_other_libraries_other_code_and_more_tables_are_noted(compare: Compare) -> None:
    made = dict(provenance.versions())

    def edit(run: Path) -> None:
        edit_manifest(run, code="0", versions={**made, "torch": "1.0"})
        for suffix in ("", ".manifest.json"):
            folder = run / "tables"
            shutil.copy(folder / f"scores.csv{suffix}", folder / f"more.csv{suffix}")
        (folder / "mine.csv").write_text("a user's own", encoding="utf-8")

    found = compare(edit)
    assert f"Other libraries: torch 1.0 (reference {made['torch']})" in found.notes
    assert any(note.startswith("Other code than the ref") for note in found.notes)
    assert "Not in the reference: tables/more.csv" in found.notes
    assert found.difference() == ""


# --- what is not compared -----------------------------------------------------------


def damage_table(run: Path) -> None:
    with (run / "tables" / "scores.csv").open("a", encoding="utf-8") as file:
        file.write("1,stage1,0.5\n")


@pytest.mark.parametrize(
    ("edit", "kind", "words"),
    [
        (
            lambda run: edit_manifest(run, versions={"minddiff-utils": "0.0.1"}),
            ConfigError,
            r"of version \S+, the run .* version 0.0.1:",
        ),
        (
            lambda run: edit_manifest(run, profile="0" * 12),
            ConfigError,
            "made with other settings than profile",
        ),
        *(
            (
                lambda run, name=name: (run / name).unlink(),
                DataError,
                "no finished run of profile smoke: run minddiff run --profile smoke",
            )
            for name in ("claims.csv", "claims.csv.manifest.json")
        ),
        (damage_table, StoreError, r"scores[.]csv is damaged"),
    ],
)
def test_a_run_of_another_kind_or_a_damaged_one_is_not_compared(
    compare: Compare,
    edit: Callable[[Path], None],
    kind: type[Exception],
    words: str,
) -> None:
    with pytest.raises(kind, match=words):
        compare(edit)


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("demo", {}, "is of profile smoke, not demo: compare"),
        (
            "smoke",
            {"stage2.paper.n_iter": 3, "seed": 1},
            r"other settings \(seed, stage2.paper.n_iter\):",
        ),
    ],
)
def test_another_profile_and_other_settings_are_refused_and_named(
    sound: Path, kept: Path, name: str, overrides: dict[str, int], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        reference.compare(sound, kept, profile=load_profile(name, overrides))


def test_without_a_reference_it_is_said_where_to_take_it(
    tmp_path: Path, sound: Path
) -> None:
    with pytest.raises(DataError, match=r"holds no reference .* take it from"):
        reference.compare(sound, tmp_path, profile=PROFILE)


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("tables/scores.csv", spoil, "is not the file that ABOUT.json states: restore"),
        ("gain.webp", Path.unlink, "is missing: restore"),
        ("mine.txt", Path.touch, "is not part of the reference: move it away"),
        ("ABOUT.json", lambda path: path.write_text("{}"), "describes no reference"),
        ("ABOUT.json", lambda path: path.write_text("["), "describes no reference"),
    ],
)
def test_a_damaged_reference_is_named(
    name: str,
    damage: Callable[[Path], object],
    words: str,
    ours: Path,
    sound: Path,
) -> None:
    damage(ours / name)
    with pytest.raises(StoreError, match=words):
        reference.compare(sound, ours, profile=PROFILE)


# --- writing ------------------------------------------------------------------------


def test_a_reference_holds_the_first_subject_and_the_tables_as_they_are(
    sound: Path, kept: Path
) -> None:
    about = reference.read_about(kept)
    tables = {f"{t}.{s}" for t in ("claims", *T) for s in ("csv", "md")}
    drawn = {"gain.webp", "maps_subj01.webp", "report.html"}
    assert set(about.files) == tables | drawn | {"notebooks/05_evaluation.ipynb"}
    for name in tables:
        assert (kept / name).read_bytes() == (sound / name).read_bytes()


def test_a_table_with_every_image_s_scores_is_left_out_where_it_is_heavy(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (sound / "tables" / "scores.csv").stat().st_size
    monkeypatch.setattr(writing, "_MOST_TABLE", size - 1)
    about = write(sound, tmp_path / "light")
    assert "tables/scores.csv" not in about.files
    assert "tables/seconds.csv" in about.files
    page = (tmp_path / "light" / "report.html").read_text(encoding="utf-8")
    assert 'href="tables/scores.csv"' not in page


T = ("tables/scores", "tables/seconds")


def test_a_ledger_that_is_too_long_to_be_read_is_refused_and_not_left_out(
    tmp_path: Path,
) -> None:
    words = {"C1": ("supported", "word " * 6000)}
    run = make_run(tmp_path, verdicts=words)
    with pytest.raises(StoreError, match=r"claims\.md takes .* bytes, but may take"):
        write(run, tmp_path / "reference")


def test_a_reference_says_what_made_it(kept: Path) -> None:
    about = json.loads((kept / "ABOUT.json").read_text(encoding="utf-8"))
    assert about["version"] == __version__
    assert (about["profile"], about["digest"]) == ("smoke", PROFILE.digest)
    assert about["settings"] == PROFILE.model_dump(mode="json")
    assert set(about["machine"]) == {"system", "processor", "cores"}
    assert {"python", "torch", "numpy"} <= set(about["versions"])
    for name, facts in about["files"].items():
        data = (kept / name).read_bytes()
        stated = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        assert facts == stated


def test_images_are_made_light_and_stay_images(kept: Path) -> None:
    with Image.open(kept / "gain.webp") as image:
        assert (image.format, image.width) == ("WEBP", 1000)
    text = (kept / "notebooks" / "05_evaluation.ipynb").read_text(encoding="utf-8")
    bundle = json.loads(text)["cells"][0]["outputs"][1]["data"]
    ((kind, data),) = bundle.items()
    with Image.open(BytesIO(base64.b64decode(data))) as image:
        assert kind in {"image/png", "image/jpeg"}
        assert image.width == 1000
    page = (kept / "report.html").read_text(encoding="utf-8")
    assert "data:image/webp;base64," in page
    assert "image/png" not in page


def test_the_report_of_a_reference_says_so_and_has_no_dead_links(kept: Path) -> None:
    page = (kept / "report.html").read_text(encoding="utf-8")
    assert f"<p>The reference of version {__version__}: images are smaller" in page
    assert '<a href="tables/scores.csv">scores.csv</a>' in page
    assert "02_decoding_subj02" in page
    assert "subj02.ipynb" not in page


def test_wider_images_give_way_to_the_limit_and_then_it_is_refused(
    tmp_path: Path, sound: Path
) -> None:
    def total(name: str) -> int:
        files = (path for path in (tmp_path / name).rglob("*") if path.is_file())
        return sum(path.stat().st_size for path in files)

    whole = write(sound, tmp_path / "whole")
    smaller = write(sound, tmp_path / "smaller", limit=total("whole") - 1)
    assert smaller.widest_image < whole.widest_image == 1000
    assert total("smaller") < total("whole")
    with pytest.raises(StoreError, match=r"would take 0\.\d\d MB .* may take 0\.00"):
        write(sound, tmp_path / "tiny", limit=1000)
    assert not (tmp_path / "tiny").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "smaller"}


def test_no_path_of_the_machine_stays_in_a_notebook(tmp_path: Path) -> None:
    root, public = tmp_path / "root", "see https://a.org/b/c, <b>1</b>, PCC/SSIM/x"
    shown = f"{root}/figures/gain.png and {project_root()}/data/models {public}"
    run = make_run(root, printed=shown)
    target = tmp_path / "reference"
    write(run, target)
    text = (target / "notebooks" / "05_evaluation.ipynb").read_text(encoding="utf-8")
    notebook = json.loads(text)
    (cell,) = notebook["cells"]
    relative = f"./figures/gain.png and ./data/models {public}"
    assert cell["outputs"][0]["text"] == [relative]
    assert cell["metadata"] == {"tags": ["parameters"]}
    assert cell["outputs"][1]["metadata"] == {}  # of a larger picture
    assert notebook["metadata"] == {"language_info": {"name": "python"}}
    for path in target.rglob("*"):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes()


@pytest.mark.parametrize(
    "private",
    [
        *(f"read {ELSEWHERE}/notes.txt", r"C:\Users\somebody"),
        *("on node-17", "somebody@there", "~somebody/x"),
    ],
)
def test_what_names_this_machine_is_refused(
    private: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "node-17.cluster")
    monkeypatch.setattr("getpass.getuser", lambda: "somebody")
    run, target = make_run(tmp_path / "root", printed=private), tmp_path / "new"
    with pytest.raises(StoreError, match=r"05_evaluation.ipynb would tell .* run it"):
        write(run, target)
    assert not target.exists()


def test_a_run_of_other_versions_makes_no_reference(tmp_path: Path) -> None:
    run = make_run(tmp_path / "root")
    edit_manifest(run, versions={**provenance.versions(), "torch": "1.0"})
    with pytest.raises(StoreError, match=r"torch 1\.0, here .* run it again here"):
        write(run, tmp_path / "new")


def test_a_second_writing_replaces_the_first(tmp_path: Path, ours: Path) -> None:
    run = make_run(tmp_path / "root", value=0.5)
    write(run, ours)
    assert reference.compare(run, ours, profile=PROFILE).difference() == ""
    assert {path.name for path in tmp_path.iterdir()} == {"reference", "root"}


@pytest.mark.parametrize("name", ["reference/mine.txt", "other/mine.txt", "other"])
def test_nothing_of_a_users_is_replaced(
    name: str, tmp_path: Path, ours: Path, sound: Path
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine", encoding="utf-8")
    target = tmp_path / Path(name).parts[0]
    with pytest.raises(StoreError, match="move it away"):
        write(sound, target)
    assert path.read_text(encoding="utf-8") == "mine"


# --- cells --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("here", "there", "kind"),
    [
        ("0.5", "0.5", "identical"),
        ("", "", "identical"),
        ("1.23456", "1.23457", "within rounding"),
        ("1.23455", "1.23457", "different"),
        ("9.99999", "10", "within rounding"),
        ("1e-17", "0", "within rounding"),
        ("-1e-17", "1e-17", "within rounding"),
        ("1e-09", "0", "different"),
        ("1", "1.0", "within rounding"),
        ("4", "5", "different"),
        ("inf", "1", "different"),
        ("", "0.5", "different"),
        ("yes", "no", "different"),
        ("p = 0.001", "p = 0.002", "within rounding"),
        ("p = 0.001", "p = 0.003", "different"),
        ("-0.000", "+0.000", "within rounding"),
        ("3 of 4 subjects", "4 of 4 subjects", "different"),
        ("+0.1 in 3 of 4", "+0.1 in 4 of 4", "different"),
        ("lower by 0.100", "higher by 0.100", "different"),
        ("0.123 [0.100]", "0.123", "different"),
    ],
)
def test_cells_agree_up_to_the_last_digit_that_is_printed(
    here: str, there: str, kind: str
) -> None:
    assert compare_cells(here, there) == kind
    assert compare_cells(there, here) == kind


def test_rounding_of_any_number_is_one_unit_of_its_sixth_digit(
    rng: np.random.Generator,
) -> None:
    for _ in range(200):
        digits = int(rng.integers(100_000, 999_990))
        power = int(rng.integers(-8, 8))
        cells = [f"{digits + step}e{power}" for step in (0, 1, 2)]
        assert compare_cells(cells[0], cells[1]) == "within rounding"
        assert compare_cells(cells[0], cells[2]) == "different"


# --- the command --------------------------------------------------------------------


def test_the_command_says_each_part_and_ends_with_the_exit_code(
    tmp_path: Path,
    kept: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    command = ["compare", "--profile", "smoke", "--reference", str(kept)]
    for name, value, code in (("same", 0.123456, 0), ("other", 0.5, 1)):
        make_run(tmp_path / name, value=value)
        monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path / name))
        assert main(command) == code
        said, error = capsys.readouterr()
        assert "C1:      identical" in said.splitlines()
        assert error.count("\n") == code
    assert error.startswith("This run differs from the reference beyond rounding")


def test_the_command_makes_a_reference_of_a_finished_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    make_run(tmp_path)
    target = tmp_path / "new"
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    command = ["compare", "--profile", "smoke", "--reference", str(target)]
    assert main([*command, "--write-reference"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("00_insilico_nsd is not up to date (new), so there is no")
    assert error.count("\n") == 1
    assert not target.exists()


# --- in the clone -------------------------------------------------------------------


def test_of_figures_git_keeps_the_reference_and_the_readme_alone() -> None:
    names = ("demo/claims.csv", "nsd-rehearsal/x.png", "x.png")
    command = ["git", "check-ignore", "--no-index", "--quiet"]
    kept = ("README.md", "reference/ABOUT.json", "reference/notebooks/x.ipynb")
    for name, code in [*((n, 0) for n in names), *((n, 1) for n in kept)]:
        path = f"figures/{name}"
        done = subprocess.run([*command, path], cwd=project_root(), check=False)
        assert done.returncode == code, name


@pytest.mark.skipif(not SHIPPED.exists(), reason="the clone has no reference yet")
def test_the_reference_in_the_clone_is_whole_and_light() -> None:
    about = reference.read_about(SHIPPED)
    assert (about.version, about.profile) == (__version__, "demo")
    size = sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file())
    assert size <= reference.LIMIT
    names = set(about.files)
    assert {"claims.csv", "report.html", "tables/T1_comparison.csv"} <= names
    assert any(name.startswith("notebooks/06") for name in names)
