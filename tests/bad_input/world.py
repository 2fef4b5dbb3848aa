"""A sound run to spoil: an in-silico NSD, its artefacts, and ways to damage them.

`build` makes it once, by the code of the real notebooks 01 to 04 on the tiny models,
figures left out; `World` is a copy of links that one case may damage.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import nbformat
import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from scipy.io import loadmat, savemat

from minddiff_utils.core import store
from minddiff_utils.core.places import project_root
from minddiff_utils.core.profile import SimulationConfig
from minddiff_utils.core.run import Run, start
from minddiff_utils.evaluation.claims import evaluate_claims
from minddiff_utils.evaluation.claims.evidence import Evidence
from minddiff_utils.insilico import nsd_writer
from minddiff_utils.reporting import figures, report_contents
from tests.tiny_nsd import noise

PROFILE = "smoke"
#: As small as the notebooks go.
SMALL: Mapping[str, Any] = {
    "models.backbone": "tiny",
    "models.batch_size": 2,
    "data.n_reconstruct": 2,
    "data.n_validation": 2,
    "features.clip_layers": [1, 2],
    "decoding.n_permutations": 2,
    "decoding.n_compare": 4,
    "decoding.k_percent": 25.0,
    "decoding.k_grid": [25.0, 100.0],
    "stage1.n_steps": 3,
    "stage1.encode_index": 2,
    "stage1.decode_steps": 2,
    "stage2.paper.n_iter": 1,
    "stage2.paper.n_images": 1,
    "stage2.paper.n_candidates": 1,
    "stage2.n_trajectory": 2,
    "ablation.n_images": 1,
    "ablation.iterations": [],
    "ablation.layers": [],
    "ablation.k_grid": [100.0],
    "evaluation.n_bootstrap": 10,
}


@dataclass(frozen=True)
class World:
    """A folder that holds a run, whose files a case may damage."""

    root: Path
    overrides: Mapping[str, Any] = field(default_factory=lambda: SMALL)

    @property
    def nsd(self) -> Path:
        return self.root / "data" / PROFILE / "nsd"

    @property
    def derived(self) -> Path:
        return self.root / "data" / PROFILE / "derived" / "subj01"

    @property
    def figures(self) -> Path:
        return self.root / "figures" / PROFILE

    def start(self, subject: int | None = 1) -> Run:
        """Begin a notebook's run on this folder (MINDDIFF_ROOT must say so)."""
        return start(PROFILE, subject=subject, overrides=self.overrides)

    def play(self, notebook: str, *, last: int | None = None) -> None:
        """Run the code of a real notebook here, its cells in order, figures left out.

        `last`: the cell after which to stop.
        """
        names: dict[str, Any] = {"display": lambda *_: None}
        first, *others = _cells(notebook)
        exec(first, names)
        names |= {"profile": PROFILE, "overrides": dict(self.overrides)}
        for code in others[:last]:
            exec(code, names)


#: Makes a copy of the named parts of the sound run.
Copy = Callable[[Sequence[str]], World]


@cache
def _cells(notebook: str) -> list[Any]:
    (path,) = (project_root() / "notebooks").glob(f"{notebook}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    return [
        compile(text, f"{path.stem}, cell {i}", "exec") for i, text in enumerate(code)
    ]


def leave_out_figures(patch: Callable[[object, str, object], None]) -> None:
    """Let the notebooks draw nothing; `patch` sets an attribute for a while."""
    for name in figures.__all__:
        if name.startswith("fig_"):
            patch(figures, name, lambda *_, **__: None)
    patch(store, "write_figure", lambda *_, **__: None)


# --- the sound run --------------------------------------------------------------------


def build(root: Path) -> World:
    """Write the run; MINDDIFF_ROOT must be `root`, and figures left out."""
    world = World(root)
    settings = SimulationConfig(n_sessions=1, n_test_images=20, image_size=8)
    nsd_writer.simulate(world.nsd, settings, (1,), 2308, n_workers=1, source=noise)
    for session in world.nsd.rglob("betas_session01.nii.gz"):
        session.unlink()  # so that nothing stands in for the hdf5
    for notebook in ("01", "02", "03", "04"):
        world.play(notebook)
    _write_tables(world)
    shutil.copytree(project_root() / "notebooks", root / "notebooks")
    models = project_root() / "data" / "models"
    shutil.copytree(models, root / "data" / "models", copy_function=_symlink)
    rates = project_root() / "data" / "cost" / "cpu_float32.json"
    shutil.copyfile(rates, root / "rates.json")
    return world


def _symlink(source: str, target: str) -> None:
    Path(target).symlink_to(source)


def _write_tables(world: World) -> None:
    """Write what the report and `minddiff claims` read, each with a line or two."""
    run, tables = world.start(None), world.figures / "tables"
    nsd_id = store.read_arrays(world.derived / "decoded.h5", ["nsd_id"])["nsd_id"][:2]
    evidence = Evidence({}, in_silico=True, profile="smoke")
    claims = evaluate_claims(evidence, label=run.label)
    claims.loc[0, "verdict"] = "supported"
    score = {"subject": 1, "method": "stage2", "metric": "clip_judge", "floor": 0.1}
    scores = pd.DataFrame([score | {"nsd_id": i, "value": i % 7} for i in nsd_id])
    words = dict.fromkeys(("method", "group", "area_set", "status", "settings"), "x")
    numbers = dict.fromkeys(("value", "ci_low", "ci_high", "floor", "ceiling"), 0.5)
    plain = pd.DataFrame(
        {"subject": ["all"], "metric": "pcc", "feature": "c"} | words | numbers
    )
    checks = pd.DataFrame({"check": ["a"], "observed": ["b"], "passed": [True]})
    store.write_table(world.figures / "claims.csv", claims, run=run)
    store.write_table(tables / "sanity.csv", checks, run=run)
    for name in ("T1_comparison", "T2_ablation", "T4_decoding", "T5_cost"):
        store.write_table(tables / f"{name}.csv", plain, run=run)
    store.write_table(tables / "scores.csv", scores, run=run)
    for name in FIGURES:
        store.write_png(world.figures / f"{name}.png", _grey(7), run=run)


def _grey(value: int) -> npt.NDArray[np.uint8]:
    return np.full((4, 6, 3), value, np.uint8)


#: What the report shows of subject 1.
FIGURES = tuple(
    caption.file_name(name, 1)
    for name, caption in report_contents.FIGURES.items()
    if not name.startswith(("study_", "naming", "subjects", "weights"))
    and name != "gallery"
)


# --- damage ---------------------------------------------------------------------------

#: Spoils one file, or what stands in its place.
Damage = Callable[[Path], object]


def link_copy(source: str, target: str) -> None:
    """Copy a file as a hard link; who damages it makes a new one (`own`)."""
    Path(target).hardlink_to(source)


def unlisted(damage: Damage) -> Damage:
    """Return a damage that takes the file's manifest away too, as a copy by hand would.

    With it any change is seen by the digest, and nothing else is said.
    """

    def write(path: Path) -> None:
        path.with_name(f"{path.name}.manifest.json").unlink(missing_ok=True)
        damage(path)

    return write


def a_flipped_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def own(path: Path) -> None:
    """Replace a link that others share by a file of its own."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


def nothing(_: Path) -> None:
    """Leave it as it is."""


def gone(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    gone(path)
    path.mkdir()


def a_loop(path: Path) -> None:
    gone(path)
    path.symlink_to(path.name)


def a_dangling_link(path: Path) -> None:
    gone(path)
    path.symlink_to("not fetched")


def a_file_for_its_folder(path: Path) -> None:
    """Put a file where `path`'s folder should be."""
    shutil.rmtree(path.parent)
    path.parent.write_text("no folder")


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def holds(content: bytes | str) -> Damage:
    """Return what makes a file hold `content`, which may be new."""

    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return write


def words(old: str, new: str, times: int = -1) -> Damage:
    def write(path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, times), encoding="utf-8")

    return write


def as_json(change: Callable[[Any], Any]) -> Damage:
    def write(path: Path) -> None:
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return write


def as_table(change: Callable[[pd.DataFrame], pd.DataFrame], sep: str = ",") -> Damage:
    def write(path: Path) -> None:
        change(pd.read_csv(path, sep=sep)).to_csv(path, sep=sep, index=False)

    return write


def without(*columns: str) -> Damage:
    return as_table(lambda table: table.drop(columns=list(columns)))


def h5(name: str, change: Callable[[npt.NDArray[Any]], object] | None) -> Damage:
    """Return what changes a dataset of an HDF5 file, or deletes it (None)."""

    def write(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            before = file[name][...]
            del file[name]
            if change is not None:
                file[name] = change(before)

    return write


def h5_only(name: str, shape: tuple[int, ...], dtype: str) -> Damage:
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            chunks = (1, *shape[1:]) if len(shape) > 1 else None
            file.create_dataset(name, shape, dtype, chunks=chunks)

    return write


def volume(
    change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]], first_axis: int = 1
) -> Damage:
    """Return what changes a volume's values; `first_axis` -1 turns the affine's."""

    def write(path: Path) -> None:
        image = nib.load(path)
        data = change(np.asanyarray(image.dataobj))
        path.unlink()
        affine = image.affine.copy()
        affine[0] *= first_axis
        nib.save(nib.Nifti1Image(data, affine), path)

    return write


def matlab(name: str, change: Callable[[npt.NDArray[Any]], Any] | None) -> Damage:
    def write(path: Path) -> None:
        raw = {k: v for k, v in loadmat(path).items() if k[0] != "_"}
        before = raw.pop(name)
        if change is not None:
            raw[name] = change(before)
        savemat(path, raw)

    return write


def png(shape: tuple[int, ...]) -> Damage:
    def write(path: Path) -> None:
        buffer = BytesIO()
        Image.fromarray(np.zeros(shape, np.uint8)).save(buffer, "PNG")
        path.write_bytes(buffer.getvalue())

    return write
