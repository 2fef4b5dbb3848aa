"""Artefacts are atomic, deterministic and say what made them."""

import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from minddiff_utils.core import locks, provenance, store
from minddiff_utils.core.errors import ConfigError, StoreError
from minddiff_utils.core.images import encode_png
from minddiff_utils.core.locks import alone, locked, sweep
from minddiff_utils.core.places import project_root
from minddiff_utils.core.run import Run, start
from minddiff_utils.core.signature import WATERMARK
from tests import faults

_NOISE = np.arange(3 * 64 * 64, dtype=np.int64).reshape(64, 64, 3) % 251
PNG = encode_png(_NOISE.astype(np.uint8))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    return start("smoke", subject=1)


def test_arrays_and_strings_come_back_as_they_were(run: Run) -> None:
    path = run.tree.derived(1) / "a.h5"
    numbers = np.arange(3000, dtype=np.float32).reshape(50, 60)
    store.write_arrays(path, {"x/y": numbers, "s": ["ä", "b"]}, run=run)
    back = store.read_arrays(path)
    np.testing.assert_array_equal(back["x/y"], numbers)
    assert list(back["s"]) == ["ä", "b"]


def test_the_same_arrays_give_the_same_bytes(run: Run) -> None:
    arrays = {"x": np.arange(5000.0), "s": ["one", "two"]}
    first, second = run.tree.derived(1) / "a.h5", run.tree.derived(1) / "b.h5"
    store.write_arrays(first, arrays, run=run)
    store.write_arrays(second, arrays, run=run)
    assert first.read_bytes() == second.read_bytes()


def test_a_changed_input_or_a_damaged_artefact_is_not_current(run: Run) -> None:
    source, path = run.tree.root / "in.txt", run.tree.root / "out.txt"
    source.write_text("1")
    store.write_text(path, "made", run=run, inputs=[source])
    assert store.is_current(path, run=run, inputs=[source])
    source.write_text("2")
    assert not store.is_current(path, run=run, inputs=[source])
    source.write_text("1")
    path.write_text("spoiled")
    assert not store.is_current(path, run=run, inputs=[source])


def test_an_input_of_many_artefacts_is_read_once_until_it_changes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, read, digest = tmp_path / "in.txt", list[str](), provenance.digest_file
    monkeypatch.setattr(
        provenance, "digest_file", lambda p: read.append(p.name) or digest(p)
    )
    for text in ("a", "bc"):
        source.write_text(text)
        for name in ("one.txt", "two.txt"):
            store.write_text(tmp_path / name, "", run=run, inputs=[source])
        stated = provenance.read_manifest(tmp_path / "two.txt")["inputs"]
        assert stated == {"in.txt": digest(source)}
    assert read.count("in.txt") == 2


def test_a_failed_write_leaves_nothing_behind(run: Run) -> None:
    path = run.tree.root / "x.h5"
    with pytest.raises(TypeError):
        store.write_arrays(path, {"x": np.array([{}], dtype=object)}, run=run)
    assert list(run.tree.root.iterdir()) == []


def test_an_absent_name_is_named(run: Run) -> None:
    path = run.tree.root / "x.h5"
    store.write_arrays(path, {"x": np.zeros(2)}, run=run)
    with pytest.raises(StoreError, match="lacks y"):
        store.read_arrays(path, ["y"])


def test_a_table_has_markdown_and_latex_twins_with_the_profile(run: Run) -> None:
    path = run.tree.tables / "t.csv"
    store.write_table(path, pd.DataFrame({"a_b": [0.5]}), run=run, caption="C")
    assert store.read_table(path)["a_b"].tolist() == [0.5]
    assert "in-silico" in path.with_suffix(".md").read_text()
    assert r"a\_b" in path.with_suffix(".tex").read_text()


def test_twins_show_counts_as_whole_numbers_and_what_is_missing_as_a_dash(
    run: Run,
) -> None:
    path = run.tree.tables / "t.csv"
    columns = {"n": [24, np.nan], "r": [0.5, np.nan], "name": ["a", None]}
    store.write_table(path, pd.DataFrame(columns), run=run)
    assert path.with_suffix(".md").read_text().splitlines()[-2:] == [
        "| 24 | 0.500 | a |",
        "| – | – | – |",
    ]


def test_png_round_trip(run: Run) -> None:
    path = run.tree.root / "i.png"
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    store.write_png(path, image, run=run)
    np.testing.assert_array_equal(store.read_png(path), image)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3)),
        *(np.zeros(shape, np.uint8) for shape in [(4, 4), (4, 4, 4), (4, 4, 1)]),
    ],
)
def test_what_is_no_rgb_image_is_refused(run: Run, image: np.ndarray) -> None:
    with pytest.raises(StoreError, match="uint8"):
        store.write_png(run.tree.root / "i.png", image, run=run)


@pytest.mark.parametrize("shard", ["2/2", "a/b", "1", "-1/2", "0/0", "²/3"])
def test_wrong_shards_are_refused(run: Run, shard: str) -> None:
    with pytest.raises(ConfigError, match="INDEX/COUNT"):
        start("smoke", shard=shard)


def test_a_subject_outside_the_profile_is_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match="subject 8"):
        start("smoke", subject=8)


# --- what a notebook saves and shows ------------------------------------------------


def test_what_a_subject_saves_is_read_by_its_name(run: Run) -> None:
    table = pd.DataFrame({"x": [1.5, 2.5]})
    run.save("numbers", table)
    run.save("arrays", {"a": np.arange(3), "b/c": np.eye(2, dtype=np.float32)})
    pd.testing.assert_frame_equal(run.read("numbers"), table)
    assert run.read("arrays").keys() == {"a", "b/c"}
    assert run.read("arrays", ["a"]).keys() == {"a"}
    assert run.rows("arrays", "b/c").shape == (2, 2)
    assert (run.tree.derived(1) / "numbers.md").exists()


def test_tables_of_all_subjects_lie_beside_the_figures(run: Run) -> None:
    everybody = start("smoke")
    everybody.save("numbers", pd.DataFrame({"x": [1]}), twins=False)
    everybody.save("page.html", "<p>", folder=everybody.tree.figures)
    assert (run.tree.tables / "numbers.csv").exists()
    assert not (run.tree.tables / "numbers.md").exists()
    assert (run.tree.figures / "page.html").read_text() == "<p>"


def test_what_was_read_is_the_input_of_what_is_saved(run: Run) -> None:
    run.save("before", {"a": np.arange(3)})
    again = start("smoke", subject=1)
    again.read("before")
    again.save("after", pd.DataFrame({"x": [1]}))
    path = run.tree.derived(1) / "after.csv"
    assert list(provenance.read_manifest(path)["inputs"]) == ["before.h5"]
    assert store.is_current(path, run=again, inputs=[run.folder / "before.h5"])
    run.save("before", {"a": np.arange(4)})
    assert not store.is_current(path, run=again, inputs=[run.folder / "before.h5"])


def test_a_name_that_nothing_has_is_said(run: Run) -> None:
    with pytest.raises(StoreError, match=r"nothing\.h5 does not exist"):
        run.read("nothing")


@pytest.mark.parametrize("foot", ["", "n = 3"])
def test_a_figure_of_a_readers_own_is_signed_once(run: Run, foot: str) -> None:
    figure = Figure(figsize=(6, 3))
    figure.subplots().plot([1, 2])
    if foot:
        figure.supxlabel(foot)
    assert run.show(figure, "own") is run.show(figure, "own")
    words = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
    assert words.count(run.label) == 1
    assert words.count(WATERMARK) == 1  # the profile is smoke
    assert words.startswith(foot)
    assert {path.name for path in run.tree.figures.glob("own*.p*")} >= {
        "own_subj01.png",
        "own_subj01.pdf",
    }
    assert run.show(None, "own") is None
    assert not list(run.tree.figures.glob("own*"))


# --- shards -------------------------------------------------------------------------


def sharded(shard: str, **over: int) -> Run:
    """Return a run of 7 images in batches of 2, so of 4 batches."""
    overrides = {"data.n_reconstruct": 7, "models.batch_size": 2, **over}
    return start("smoke", subject=1, shard=shard, overrides=overrides)


def test_shards_share_out_the_batches_of_the_whole_run(run: Run) -> None:
    assert sharded("0/1").batches(7) == [[0, 1], [2, 3], [4, 5], [6]]
    assert sharded("0/3").batches(7) == [[0, 1], [6]]
    assert sharded("1/3").batches(7) == [[2, 3]]
    assert sharded("2/3").batches(7) == [[4, 5]]
    assert sharded("1/2").batches(1) == []


@pytest.mark.parametrize("shard", ["0/5", "4/5", "0/99"])
def test_a_shard_that_gets_no_batch_is_refused(run: Run, shard: str) -> None:
    with pytest.raises(ConfigError, match="7 images in batches of 2 make 1 to 4"):
        sharded(shard)


def test_only_a_whole_run_writes_the_figure_of_all_images(run: Run) -> None:
    assert sharded("0/1").figure_stem("f") == run.tree.figures / "f_subj01"
    part = sharded("1/2").figure_stem("f")
    assert part == run.tree.figures / "parts" / "f_subj01.1-of-2"
    assert sharded("1/2").whole().figure_stem("f") == run.tree.figures / "f_subj01"


def test_a_missing_shard_is_named_by_whoever_reads(run: Run) -> None:
    path = run.tree.derived(1) / "stage1.csv"
    for index in (0, 2):
        part = sharded(f"{index}/4")
        store.mark_part(path, run=part, inputs=[])
    with pytest.raises(StoreError) as error:
        store.read_table(path)
    assert "stage1.csv is not complete, shard 1/4, 3/4 is missing" in str(error.value)
    assert 'shard = "1/4", or minddiff run with --shards 4' in str(error.value)


def test_shards_that_nobody_put_together_are_not_read_either(run: Run) -> None:
    path = run.tree.derived(1) / "trajectories.h5"
    for shard in ("0/2", "1/2"):
        store.mark_part(path, run=sharded(shard), inputs=[])
    with pytest.raises(StoreError, match=r'not complete.* with shard = "0/2"'):
        store.read_arrays(path)


def test_what_another_profile_made_is_discarded_with_its_twins_and_parts(
    run: Run,
) -> None:
    path = run.tree.derived(1) / "stage1.csv"
    table = pd.DataFrame({"x": [1]})
    store.write_table(path, table, run=sharded("0/1"))
    store.mark_part(path, run=sharded("0/2"), inputs=[])
    files = {p.name for p in path.parent.rglob("*") if p.is_file()}
    assert len(files) == 8  # csv, md, tex, part; each with a manifest
    store.discard_stale(path, run=sharded("1/2"), inputs=[])
    assert {p.name for p in path.parent.rglob("*") if p.is_file()} == files
    store.discard_stale(path, run=sharded("1/2", seed=1), inputs=[])
    assert [p for p in path.parent.rglob("*") if p.is_file()] == []


def test_a_lock_keeps_a_second_process_out_until_the_first_is_done(
    run: Run,
) -> None:
    folder = run.tree.root / "locked"
    order: list[str] = []

    def second() -> None:
        with locked(folder):
            order.append("second")

    with locked(folder):
        other = threading.Thread(target=second)  # its own open file: its own lock
        other.start()
        other.join(timeout=0.2)
        assert other.is_alive()
        order.append("first")
    other.join(timeout=10)
    assert order == ["first", "second"]


# --- what is broken -----------------------------------------------------------------


def test_the_same_bytes_again_leave_the_file_and_its_time_alone(
    run: Run,
) -> None:
    path = run.tree.root / "out.txt"
    store.write_text(path, "made", run=run)
    os.utime(path, (1, 1))
    store.write_text(path, "made", run=run)
    assert path.stat().st_mtime == 1
    store.write_text(path, "mode", run=run)
    assert path.stat().st_mtime > 1
    assert [p.name for p in run.tree.root.glob(".*")] == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.h5", b"no hdf5"),
        *(("i.png", content) for content in (b"", b"no png", PNG[:100])),
        *(
            ("t.csv", content)
            for content in (b"", b"a,b\n1,2\n1,2,3,4\n", b"\xff\xfe\x00a")
        ),
    ],
)
def test_a_missing_or_damaged_file_is_said_in_a_sentence(
    run: Run, name: str, content: bytes
) -> None:
    readers = {"h5": store.read_arrays, "png": store.read_png, "csv": store.read_table}
    path, read = run.tree.root / name, readers[name.partition(".")[2]]
    with pytest.raises(StoreError, match="does not exist"):
        read(path)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        read(path)


@pytest.mark.parametrize("content", ["", "{}", "[]", "null"])
def test_a_damaged_manifest_makes_its_artefact_stale_and_stops_no_reader(
    run: Run, content: str
) -> None:
    source, path = run.tree.root / "in.txt", run.tree.root / "out.txt"
    store.write_text(source, "1", run=run)
    store.write_text(path, "made", run=run, inputs=[source])
    manifest = source.with_name("in.txt.manifest.json")
    manifest.write_text(content)
    assert not store.is_current(source, run=run)
    # the input itself is whole, so its own digest stands in
    assert store.is_current(path, run=run, inputs=[source])


def test_an_input_that_is_gone_is_not_stood_in_for_by_its_manifest(
    run: Run,
) -> None:
    source, path = run.tree.root / "in.txt", run.tree.root / "out.txt"
    store.write_text(source, "1", run=run)
    store.write_text(path, "made", run=run, inputs=[source])
    source.unlink()
    assert not store.is_current(path, run=run, inputs=[source])


def test_models_lie_where_the_profile_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINDDIFF_ROOT", str(tmp_path))
    shipped = project_root() / "data" / "models"
    assert start("smoke").tree.models == shipped  # the root has none
    (tmp_path / "data" / "models").mkdir(parents=True)
    assert start("smoke").tree.models == tmp_path / "data" / "models"
    elsewhere = {"models.path": str(tmp_path / "of mine")}
    assert start("smoke", overrides=elsewhere).tree.models == tmp_path / "of mine"


def test_a_table_s_twins_can_show_it_in_columns_or_be_left_out(
    run: Run, tmp_path: Path
) -> None:
    path, table = tmp_path / "t.csv", pd.DataFrame({"x": [0.123456]})
    store.write_table(path, table, run=run, printed=pd.DataFrame({"x": ["in words"]}))
    assert "0.123456" in path.read_text()
    for suffix in (".md", ".tex"):
        assert "in words" in path.with_suffix(suffix).read_text()
    store.write_table(tmp_path / "alone.csv", table, run=run, twins=False)
    assert not (tmp_path / "alone.md").exists()


def test_a_second_run_in_the_same_folder_is_refused_in_one_sentence(
    tmp_path: Path,
) -> None:
    with alone(tmp_path / "data"):
        with pytest.raises(StoreError) as error, alone(tmp_path / "data"):
            pass
        said = str(error.value)
        assert f"process {os.getpid()}" in said
        assert said.endswith(".")
        assert "\n" not in said
        with alone(tmp_path / "other"):
            pass
    with alone(tmp_path / "data"):  # free again
        pass


# --- a full disk ----------------------------------------------------------------------

_FILL = """
import numpy as np
from pathlib import Path
from minddiff_utils import start
from minddiff_utils.core import locks, provenance, store
from minddiff_utils.core.errors import StoreError
run = start("smoke", subject=1)
noise = np.random.default_rng(0).integers(0, 256, (9 * 2**20,), np.uint8)
for name, array in (
    ("a1", np.ones(2**18, np.float32)),
    ("a9", np.ones(9 * 2**18, np.float32)),
    ("i9", noise),  # in chunks: HDF5's own cache would end the process
    ("i3", noise[: 3 * 2**20]),  # full near its end
):
    path = Path(f"{name}.h5")
    try:
        store.write_arrays(path, {"a": array}, run=run)
        print(path, "whole")
    except StoreError as error:
        print(error)
print(sorted(p.name for p in Path().iterdir() if p.suffix != ".json"))
"""


@pytest.mark.skipif(not faults.can_mount(), reason="no small disk can be mounted")
def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(
    tmp_path: Path,
) -> None:
    script = tmp_path / "fill.py"
    script.write_text(_FILL)
    done = faults.on_small_disk(tmp_path / "disk", 4, f"{sys.executable} {script}")
    assert done.returncode == 0, done.stderr
    first, *others, left = done.stdout.splitlines()
    assert first == "a1.h5 whole"
    assert len(others) == 3
    for name, said in zip(("a9", "i9", "i3"), others, strict=True):
        assert said.startswith(f"{name}.h5 could not be written (No space left on ")
    assert left == "['a1.h5']"


def test_what_killed_writers_left_is_swept_away_and_nothing_else(
    tmp_path: Path,
) -> None:
    host = socket.gethostname().partition(".")[0]
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = {
        f".a.png.{host}.{dead.pid}.part": False,
        f".b.h5.{host}.{os.getpid()}.part": True,
        f".c.csv.another-machine.{dead.pid}.part": True,
        "betas.hdf5.part": True,  # of a download, which goes on
        "d.png": True,
    }
    for name in names:
        (tmp_path / name).write_bytes(b"1")
    old = tmp_path / ".e.h5.another-machine.1.part"
    old.write_bytes(b"1")
    os.utime(old, (0, 0))
    sweep(tmp_path)
    stay = {name for name, stays in names.items() if stays}
    assert {path.name for path in tmp_path.iterdir()} == stay


def test_a_sweep_leaves_whatever_no_writer_of_ours_has_named(tmp_path: Path) -> None:
    host = socket.gethostname().partition(".")[0]
    names = (
        ".betas_session01.hdf5.part",  # of a download that stopped weeks ago
        ".thesis.part",
        ".part",
        ".my.film.final.part",
        f".{host}.part",
        f".a.{host}.backup.part",
        "unfinished.1.part",
    )
    for name in names:
        (tmp_path / name).write_bytes(b"mine")
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".folder.of.7.part").mkdir()
    sweep(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*names, ".folder.of.7.part"}


# --- disks without locks --------------------------------------------------------------

#: What `flock` says on Lustre as mounted by default, old NFS, and other file systems.
NO_LOCKS = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO]


def _refuse(code: int) -> Callable[..., None]:
    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return flock


@pytest.mark.parametrize("code", NO_LOCKS)
def test_a_disk_without_locks_keeps_a_second_run_out_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(locks.fcntl, "flock", _refuse(code))
    with alone(tmp_path):
        refused = pytest.raises(StoreError, match="Another run")
        with refused as error, alone(tmp_path):
            pass
        assert f"process {os.getpid()} on " in str(error.value)
    with alone(tmp_path):  # free again
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == [".run.lock"]


def test_a_disk_without_locks_makes_the_second_process_wait(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks.fcntl, "flock", _refuse(errno.ENOSYS))
    test_a_lock_keeps_a_second_process_out_until_the_first_is_done(run)


def test_without_locks_a_dead_process_of_this_host_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks.fcntl, "flock", _refuse(errno.ENOSYS))
    code = (
        "import errno, os; from pathlib import Path\n"
        "from minddiff_utils.core import locks\n"
        "def no(*_): raise OSError(errno.ENOSYS, 'no locks')\n"
        "locks.fcntl.flock = no\n"
        f"with locks.alone(Path({str(tmp_path)!r})): os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / ".run.lock.held").exists()  # else this test shows nothing
    with alone(tmp_path):
        pass


def test_without_locks_a_long_wait_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locks.fcntl, "flock", _refuse(errno.ENOSYS))
    monkeypatch.setattr(locks, "_SAY_SO_S", 0.05)
    marker = tmp_path / ".lock.held"
    marker.write_text("12\nanother-host\n")
    threading.Timer(0.5, marker.unlink).start()
    with locked(tmp_path):
        pass
    assert str(marker) in caplog.text


# --- where the responses come from ----------------------------------------------------


def _folder_of_nsd(run: Run, *, marked: bool) -> None:
    """Put a folder in NSD's layout where the run reads it, or change its mark."""
    (run.tree.nsd / "nsddata").mkdir(parents=True, exist_ok=True)
    mark = run.tree.nsd / "IN_SILICO.txt"
    mark.write_text("made up") if marked else mark.unlink(missing_ok=True)


def _prepare(profile: str, subject: int) -> Run:
    """Write a subject's responses as notebook 01 does."""
    run = start(profile, subject=subject, notebook="01_data_prep")
    path = run.tree.derived(subject) / "responses.h5"
    store.write_arrays(path, {"betas": np.zeros(2)}, run=run)
    return run


@pytest.mark.parametrize("profile", ["smoke", "demo", "nsd"])
@pytest.mark.parametrize("marked", [True, False])
def test_the_mark_of_the_data_decides_the_label_under_every_profile(
    run: Run, monkeypatch: pytest.MonkeyPatch, profile: str, marked: bool
) -> None:
    monkeypatch.setenv("MINDDIFF_NSD_ROOT", str(run.tree.nsd))
    _folder_of_nsd(run, marked=marked)
    subject = _prepare(profile, 1).subject
    later = start(profile, subject=subject, notebook="04_stage2")
    assert ("in-silico" in later.label) == marked
    assert later.origin == ("in silico" if marked else "measured")
    path = later.tree.tables / "t.csv"
    store.write_table(path, pd.DataFrame({"x": [1]}), run=later)
    for twin in (".md", ".tex"):
        assert ("in-silico" in path.with_suffix(twin).read_text()) == marked
    assert later.label in repr(later)


def test_the_label_changes_when_the_data_are_prepared_again_and_not_before(
    run: Run,
) -> None:
    _folder_of_nsd(run, marked=True)
    _prepare("smoke", 1)
    _folder_of_nsd(run, marked=False)
    first = start("smoke", subject=1, notebook="01_data_prep")
    assert first.origin == "measured"  # what it reads now
    assert start("smoke", subject=1, notebook="03_stage1").origin == "in silico"
    _prepare("smoke", 1)
    assert start("smoke", subject=1, notebook="03_stage1").origin == "measured"


def test_subjects_of_both_kinds_are_said_to_be_mixed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINDDIFF_NSD_ROOT", str(run.tree.nsd))
    for subject, marked in ((1, True), (2, False)):
        _folder_of_nsd(run, marked=marked)
        _prepare("demo", subject)
    mixed = start("demo", notebook="06_figures")
    assert mixed.origin == "mixed"
    assert "measured and in-silico" in mixed.label
    for subject, origin in ((1, "in silico"), (2, "measured"), (5, "measured")):
        own = start("demo", subject=subject, notebook="02_decoding")
        assert own.origin == origin


def test_an_empty_folder_says_nothing_of_the_data(run: Run) -> None:
    run.tree.nsd.mkdir(parents=True)
    assert start("smoke", subject=1, notebook="01_data_prep").origin == "in silico"
