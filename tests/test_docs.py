"""What the documents say is so: files, digests, versions, notebooks, commands."""

import hashlib
import json
import os
import re
import shlex
import subprocess
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

import minddiff_utils
from minddiff_utils.core.places import project_root
from minddiff_utils.evaluation.claims.evidence import (
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_TESTABLE,
    SUPPORTED,
)
from minddiff_utils.pipeline.cli import _parser
from minddiff_utils.pipeline.graph import GRAPH

ROOT = project_root()
_KINDS = {"README.md", "CONTRIBUTING.md"}
MAP = "src/minddiff_utils/README.md"
#: Made by runs, or brought by the user: named in documents, absent from a fresh clone.
NOT_SHIPPED = (
    "data/smoke",
    "data/demo",
    "data/nsd",
    "data/algonauts",
    "data/digits69",
    "data/laion_fmri",  # and their rehearsals
    "data/training",
    "data/models/sd14",
    "data/models/perception",
)
README = (ROOT / "README.md").read_text(encoding="utf-8")
DATA = (ROOT / "data" / "README.md").read_text(encoding="utf-8")


def repository_files() -> list[str]:
    """Return what git tracks or would add, relative to the root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    names = sorted({name for name in listed.decode().split("\0") if name})
    return [name for name in names if (ROOT / name).is_file()]


#: All but the changelog, which tells of what is no more.
DOCUMENTS = [n for n in repository_files() if Path(n).name in _KINDS]


def file_rows() -> dict[str, tuple[str, str]]:
    """Return the rows of data/README's table of files: path -> (bytes, digest)."""
    table = DATA.split("## Files")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)`[^|]*\| ([^|]+) \| ([^|]+) \|$", table, re.M)
    return {name: (size, digest.strip("` ")) for name, size, digest in rows}


def command_lines(text: str) -> list[str]:
    """Return the lines of a document's indented code blocks."""
    return [line.strip() for line in re.findall(r"^ {4}(\S.*)$", text, re.M)]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- data/README ------------------------------------------------------------------


def test_every_shipped_file_under_data_has_its_row() -> None:
    shipped = [n.removeprefix("data/") for n in repository_files() if n[:5] == "data/"]
    documents = {n for n in shipped if Path(n).name == "README.md"}
    alone = {n for n in shipped if not n.startswith("sprites/")} - documents
    assert alone | {"sprites/*.webp"} == set(file_rows())


def test_every_folder_under_data_has_origin_and_licence() -> None:
    parts = [Path(n).parts for n in repository_files() if n[:5] == "data/"]
    folders = {p[1] for p in parts if len(p) > 2}
    rows = re.findall(r"^\| `([a-z]+)/[^`]*` \|(.+)\|(.+)\|(.+)\|$", DATA, re.M)
    described = {name for name, *cells in rows if all(cell.strip() for cell in cells)}
    assert folders == described


@pytest.mark.parametrize("name", [n for n in file_rows() if "*" not in n])
def test_a_files_size_and_digest_are_those_stated(name: str) -> None:
    size, digest = file_rows()[name]
    content = (ROOT / "data" / name).read_bytes()
    number = int(size.removeprefix("under ").replace(",", ""))
    if size.startswith("under "):
        assert len(content) < number
    else:
        assert len(content) == number
    if re.fullmatch("[0-9a-f]{64}", digest):
        assert sha256(content) == digest
    elif digest == "in SHA256SUMS":
        sums = (ROOT / "data/models/demo/SHA256SUMS").read_text(encoding="utf-8")
        inside = name.removeprefix("models/demo/")
        assert f"{sha256(content)}  {inside}\n" in sums
    else:
        assert name in {"models/demo/SHA256SUMS", "gallery_demo.webp"}


def test_the_sprites_have_the_count_size_and_group_digest_stated() -> None:
    files = sorted((ROOT / "data" / "sprites").glob("*.webp"), key=lambda p: p.name)
    content = [path.read_bytes() for path in files]
    pairs = zip(content, files, strict=True)
    listing = "".join(f"{sha256(data)}  {path.name}\n" for data, path in pairs)
    size, digest = file_rows()["sprites/*.webp"]
    assert int(size.replace(",", "")) == sum(map(len, content))
    assert digest == sha256(listing.encode())
    assert f"({len(files)} files)" in DATA
    assert f"| {len(files)} images of 256 px" in DATA


# --- versions ---------------------------------------------------------------------


def test_versions_and_dates_agree_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    zenodo = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+) \((\d{4}-\d\d-\d\d)\)$", changes, re.M)
    assert newest is not None
    versions = {citation["version"], zenodo["version"], newest[1]}
    assert versions | {project["project"]["version"]} == {minddiff_utils.__version__}
    assert {citation["date-released"], zenodo["publication_date"]} == {newest[2]}
    assert citation["title"] == zenodo["title"]


# --- README, CONTRIBUTING and the READMEs of folders ------------------------------


def test_the_readme_has_at_most_1500_words_and_contributing_is_one_page() -> None:
    assert len(README.split()) <= 1500
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 800


def test_the_readme_leads_to_every_other_document() -> None:
    seen, waiting = set(), ["README.md"]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for link in re.findall(r"\]\(([^)\s#]+)", (ROOT / name).read_text("utf-8")):
            path = os.path.normpath((ROOT / name).parent / link)
            waiting += {os.path.relpath(path, ROOT)} & set(DOCUMENTS)
    assert seen == set(DOCUMENTS)


def test_the_readme_shows_a_picture_that_the_clone_has() -> None:
    (picture,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert picture in repository_files()
    below = README.split(f"({picture})")[1]
    assert below.strip().startswith("*In-silico subject")


def test_the_readme_table_of_notebooks_is_the_runners_graph() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\((\S+)\) \|", README, re.M)
    line = [n.stem for n in GRAPH if not n.stem.startswith("A")]
    assert rows == [(stem, f"notebooks/{stem}.ipynb") for stem in line]


def test_every_appendix_notebook_is_linked_in_the_readme() -> None:
    found = sorted((ROOT / "notebooks" / "appendix").glob("*.ipynb"))
    assert found
    for path in found:
        assert f"[{path.stem}]({path.relative_to(ROOT).as_posix()})" in README


def test_the_map_of_the_package_is_the_contract_of_its_layers() -> None:
    text = (ROOT / MAP).read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]+) \|", text, re.M)
    shown = [set(re.findall(r"`(\w+)/?`", row)) for row in rows]
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    (contract,) = (c for c in tools["importlinter"]["contracts"] if "layers" in c)
    assert shown == [set(re.findall(r"\w+", layer)) for layer in contract["layers"]]
    folders = {p.parent.name for p in (ROOT / MAP).parent.glob("*/__init__.py")}
    assert {name for row in rows for name in re.findall(r"`(\w+)/`", row)} == folders


@pytest.mark.parametrize("document", DOCUMENTS)
def test_relative_links_lead_to_files_and_headings(document: str) -> None:
    path = ROOT / document
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        name, _, heading = link.partition("#")
        target = path.parent / name if name else path
        assert target.is_file(), f"{document} links {link}, which does not exist"
        if heading:
            titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.M)
            plain = [re.sub(r"[^\w -]", "", t.lower()) for t in titles]
            assert heading in {t.replace(" ", "-") for t in plain}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_paths_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:notebooks|src|tests|data)/[\w./-]+)`", text))
    named |= set(re.findall(r"requirements[\w-]*\.lock", text))
    for name in sorted(named):
        if not name.startswith(NOT_SHIPPED) and "NN_" not in name:
            assert (ROOT / name).exists(), f"{document} names {name}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_run_commands_have_known_options(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    inline = re.findall(r"`((?:\./run_all\.sh|minddiff) -?[^`]+)`", text)
    for line in [*command_lines(text), *inline]:
        program, *arguments = shlex.split(line)
        if program == "./run_all.sh":
            arguments = ["run", *arguments]
        elif program != "minddiff":
            continue
        _parser().parse_args(arguments)  # exits on an unknown option


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_commands_name_modules_and_files_that_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for module in re.findall(r"python -m ([\w.]+)", text):
        path = ROOT.joinpath(*module.split("."))
        assert find_spec(module) or path.with_suffix(".py").is_file(), module
    for script in re.findall(r"python (?:-\S+ )*([\w/]+\.py)", text):
        assert (ROOT / script).is_file(), script


def test_the_two_commands_are_executable_scripts() -> None:
    lines = command_lines(README)
    for name in ("run_all.sh", "tests/run.sh"):
        assert {name, f"./{name}"} & set(lines)
        assert os.access(ROOT / name, os.X_OK)


def test_training_commands_name_every_part_of_the_script() -> None:
    appendix = ROOT / "notebooks" / "appendix" / "README.md"
    text = appendix.read_text(encoding="utf-8")
    script = (ROOT / "notebooks/appendix/demo_training.py").read_text(encoding="utf-8")
    stated = re.search(r'parts = \(("[^)]+)\)', script)
    assert stated is not None
    named = re.findall(r"^ {4}python \S+/demo_training\.py (\w+)", text, re.M)
    assert named == re.findall(r'"(\w+)"', stated[1])


def test_the_lock_file_holds_what_the_readme_starts() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "`.venv/bin/jupyter lab`" in README
    assert re.search(r"^jupyterlab==", lock, re.M)


@pytest.mark.parametrize("word", [SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_TESTABLE])
def test_the_readme_explains_every_verdict(word: str) -> None:
    assert re.search(rf"^\| {word} \|", README, re.M)


# --- all files --------------------------------------------------------------------


def test_a_clone_has_the_folders_that_users_were_promised_and_no_other() -> None:
    tops = {name.partition("/")[0] for name in repository_files() if "/" in name}
    assert tops == {".ci", "data", "figures", "notebooks", "src", "tests"}


def test_no_file_names_a_machine_or_an_unfinished_thing() -> None:
    # Joined here, so that this file does not name them itself.
    folders = "|".join(("work", "root", "home"))
    words = "|".join(("TO" + "DO", "FIX" + "ME", "index" + "-url"))
    forbidden = re.compile(rf"(?<![\w.~*])/(?:{folders})/|\b(?:{words})\b")
    read = 0
    for name in repository_files():
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found = forbidden.search(text)
        assert found is None, f"{name} holds {found[0]!r}" if found else ""
        read += 1
    assert read > len(DOCUMENTS)


def test_help_of_run_all_needs_no_setup(tmp_path: Path) -> None:
    script = tmp_path / "run_all.sh"
    script.write_bytes((ROOT / "run_all.sh").read_bytes())
    command = ["bash", str(script), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--profile" in done.stdout
    assert list(tmp_path.iterdir()) == [script]
