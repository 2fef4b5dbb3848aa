"""One notebook's run: its profile, its place in the project's tree, its streams.

`start` is what a notebook calls first.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args

import numpy as np
import pandas as pd

from minddiff_utils.core import provenance, rng, store
from minddiff_utils.core.checkpoint import checkpoint_in
from minddiff_utils.core.errors import ConfigError
from minddiff_utils.core.places import read_environment, shipped_models
from minddiff_utils.core.profile import Origin, Profile
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.profile_parts import READS, ProfileView
from minddiff_utils.core.surroundings import DETERMINISTIC

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from minddiff_utils.core.rows import Rows

Drawn = TypeVar("Drawn", bound="Figure | None")

__all__ = [
    "Run",
    "Tree",
    "expected_origin",
    "fix_threads",
    "judge_files",
    "network_files",
    "start",
]


@dataclass(frozen=True)
class Tree:
    """Where everything lives below one root, for one profile."""

    root: Path
    profile_name: str
    nsd: Path
    models_root: Path | None = None

    def derived(self, subject: int) -> Path:
        """Return the folder of a subject's derived artefacts."""
        return self.root / "data" / self.profile_name / "derived" / f"subj{subject:02d}"

    def stage_dir(self, subject: int, stage: str) -> Path:
        """Return the folder of one reconstruction condition of a subject."""
        return self.derived(subject) / stage

    @classmethod
    def of(cls, profile: Profile, nsd: Path | None = None) -> "Tree":
        """Return where a run of `profile` reads and writes in this environment.

        `nsd`: the folder of NSD, by default that of `MINDDIFF_NSD_ROOT` or the
        profile's own.
        """
        here = read_environment()
        nsd = nsd or here.nsd_root or here.root / "data" / profile.name / "nsd"
        models = profile.models.folder(here.root)
        return cls(here.root, profile.name, nsd.absolute(), models)

    @property
    def models(self) -> Path:
        """Return the folder of the shipped or downloaded model weights.

        The profile's `models.path` where there is one (`--models PATH`), else that of
        the root, else the repository's: a root of its own needs no models of its own.
        """
        folder = self.root / "data" / "models"
        return self.models_root or (folder if folder.is_dir() else shipped_models())

    @property
    def figures(self) -> Path:
        """Return the folder of the run's figures."""
        return self.root / "figures" / self.profile_name

    @property
    def tables(self) -> Path:
        """Return the folder of the run's tables."""
        return self.figures / "tables"

    @property
    def study(self) -> Path:
        """Return the folder of the tables of the study of stage 2."""
        return self.root / "data" / "study" / self.profile_name

    @property
    def notebooks(self) -> Path:
        """Return the folder of the executed notebooks."""
        return self.figures / "notebooks"


def network_files(models: Path, kind: str) -> tuple[Path, ...]:
    """Return the files of the generator and its CLIP in the folder `models`, sorted."""
    folder = models / kind
    files = (p for p in folder.glob("*/**/*") if p.is_file())
    return tuple(sorted(p for p in files if p.relative_to(folder).parts[0] != "judge"))


def judge_files(models: Path, kind: str) -> tuple[Path, ...]:
    """Return the files of the judge and of the field's networks, sorted."""
    folders = (models / kind / "judge", models / "perception")
    return tuple(sorted(p for f in folders for p in f.rglob("*") if p.is_file()))


@dataclass(frozen=True)
class Run:
    """One notebook's run: its profile, its tree and its named random streams.

    `read`, `save` and `show` know where things of this run lie: arrays and tables of a
    subject in its derived folder, tables of all subjects beside the figures.
    """

    profile: Profile
    tree: Tree
    subject: int | None
    shard: tuple[int, int]
    notebook: str = ""
    #: What has been read, by path: the inputs of what is saved.
    _inputs: dict[Path, None] = field(default_factory=dict, repr=False, compare=False)

    @property
    def origin(self) -> Origin:
        """Return where the responses come from, by their own word.

        Notebook 01 takes it from the folder that it reads and writes it into the
        manifest of what it prepares, where later notebooks find it.
        """
        mark = expected_origin(self.profile, self.tree)
        if self.notebook.startswith("00"):
            return "in silico"  # it writes them
        if self.notebook.startswith("01"):
            return mark
        who = self.profile.subjects if self.subject is None else [self.subject]
        paths = [self.tree.derived(subject) / "responses.h5" for subject in who]
        stated = {provenance.read_manifest(path).get("origin") for path in paths}
        origins = [origin for origin in get_args(Origin) if origin in stated] or [mark]
        return origins[0] if len(origins) == 1 else "mixed"

    @property
    def label(self) -> str:
        """Return the words every figure and table carries: profile, data and models."""
        checkpoint = checkpoint_in(self.tree.models / "sd14")
        return self.profile.label(self.origin, checkpoint)

    def stream(self, *names: str | int) -> np.random.Generator:
        """Return the numpy stream `names` under the profile's seed."""
        return rng.stream(self.profile.seed, *names)

    def torch_stream(self, *names: str | int) -> "torch.Generator":
        """Return the torch stream `names` under the profile's seed."""
        return rng.torch_stream(self.profile.seed, *names)

    def batches(self, n_images: int) -> list[list[int]]:
        """Return the rows of this run's shard, of `n_images`, batch by batch.

        Shards share out whole batches: an image then meets the same others in its batch
        however many shards there are, and float32 sums come out the same to the bit.
        """
        index, count = self.shard
        size = self.profile.models.batch_size
        starts = range(0, n_images, size)
        rows = [list(range(k, min(k + size, n_images))) for k in starts]
        return rows[index::count]

    @property
    def is_whole(self) -> bool:
        """Return whether this run makes all images, not a shard of them."""
        return self.shard[1] == 1

    def whole(self) -> "Run":
        """Return the run of all images that this run is a shard of."""
        return replace(self, shard=(0, 1))

    @property
    def folder(self) -> Path:
        """Return where arrays and tables of this run lie."""
        if self.subject is None:
            return self.tree.tables
        return self.tree.derived(self.subject)

    def read(self, name: str, arrays: Sequence[str] | None = None) -> Any:
        """Return what was saved as `name`: a dict of arrays, or a table.

        Parameters
        ----------
        name : str
            Such as "responses" or "accuracy"; also of another notebook's.
        arrays : sequence of str, optional
            Of a file of arrays, those to read; otherwise all of them.

        Raises
        ------
        StoreError
            There is no such file, it is damaged, or it lacks one of `arrays`.
        """
        table = self.folder / f"{name}.csv"
        if table.exists():
            self._inputs[table] = None
            return store.read_table(table)
        path = self.folder / f"{name}.h5"
        self._inputs[path] = None
        return store.read_arrays(path, arrays)

    def rows(self, name: str, array: str) -> "Rows":
        """Return an array that stays on disk; its rows are read when asked for."""
        path = self.folder / f"{name}.h5"
        self._inputs[path] = None
        return store.read_rows(path, array)

    def save(
        self,
        name: str,
        thing: pd.DataFrame | Mapping[str, Any] | str,
        *,
        folder: Path | None = None,
        inputs: Sequence[Path] | None = None,
        printed: pd.DataFrame | None = None,
        twins: bool = True,
    ) -> None:
        """Write a table, arrays by name, or text, with a manifest of what made it.

        Parameters
        ----------
        name : str
            Without suffix; of a text with it, such as "report.html".
        thing : DataFrame, mapping of str to array, or str
            A table goes to `name.csv`, arrays go to `name.h5`.
        folder : Path, optional
            Another folder than `self.folder`.
        inputs : sequence of Path, optional
            The files it was made from; otherwise what `read` and `rows` have read.
        printed, twins
            Of a table, as in `store.write_table`.
        """
        made_from = tuple(self._inputs) if inputs is None else inputs
        path = (folder or self.folder) / name
        if isinstance(thing, str):
            store.write_text(path, thing, run=self, inputs=made_from)
        elif isinstance(thing, pd.DataFrame):
            store.write_table(
                path.with_name(f"{name}.csv"),
                thing,
                run=self,
                inputs=made_from,
                printed=printed,
                twins=twins,
            )
        else:
            path = path.with_name(f"{name}.h5")
            store.write_arrays(path, thing, run=self, inputs=made_from)

    def show(self, figure: Drawn, name: str) -> Drawn:
        """Sign `figure`, write it as PNG and PDF and return it, for the cell to show.

        None stands for a figure that this run has not: an earlier run's is deleted.
        """
        store.write_figure(self.figure_stem(name), figure, run=self)
        return figure

    def figure_stem(self, name: str) -> Path:
        """Return where the figure `name` goes, without suffix.

        A subject's figure is named after it. A figure of a shard's images never takes
        the place of the figure of all.
        """
        if self.subject is not None:
            name = f"{name}_subj{self.subject:02d}"
        path = self.tree.figures / name
        return path if self.is_whole else store.part_path(path, self.shard)

    def __repr__(self) -> str:
        """Show what a reader needs to know about where numbers come from."""
        profile = self.profile
        who = f"subject {self.subject}" if self.subject else "all subjects"
        part = profile.part(self.notebook)
        lines = [
            self.label,
            f"{who} · shard {self.shard[0]}/{self.shard[1]} · seed {profile.seed} ·"
            f" digest {profile.part_digest(self.notebook)}",
        ]
        hidden = ("name", "seed")
        return "\n".join(
            [*lines, *(f"{k}: {v}" for k, v in part.items() if k not in hidden)]
        )


def expected_origin(profile: Profile, tree: Tree) -> Origin:
    """Return where the responses of the NSD folder come from, by its mark.

    Of a folder that is not there, or holds nothing of NSD, what the profile would put
    there.
    """
    if (tree.nsd / provenance.MARK).is_file() or any(tree.nsd.glob("nsddata*")):
        return provenance.origin_of(tree.nsd)
    return profile.usual_origin


def _parse_shard(shard: str) -> tuple[int, int]:
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ConfigError(
            f"shard is {shard!r}, but must read INDEX/COUNT, such as 0/1."
        )
    return int(index), int(count)


def start(
    profile: str,
    *,
    subject: int | None = None,
    shard: str = "0/1",
    overrides: Mapping[str, Any] | None = None,
    notebook: str = "",
) -> Run:
    """Resolve `profile` and return the notebook's run.

    `notebook` is its stem, such as "04_stage2": then the run shows it the part of the
    profile that it may read, and its artefacts depend on that and on the code that it
    reaches; without one they depend on everything.

    Raises
    ------
    ConfigError
        Wrong profile, override, subject or shard.
    """
    resolved = load_profile(profile, overrides)
    if subject is not None and subject not in resolved.subjects:
        known = ", ".join(map(str, resolved.subjects))
        raise ConfigError(
            f"subject {subject} is not in profile {profile!r}: use one of {known}."
        )
    parsed = _parse_shard(shard)
    resolved.check_shards(parsed[1])
    run = Run(resolved, Tree.of(resolved), subject, parsed, notebook)
    fix_threads(run)
    # a notebook's tables are read, sentences and all
    pd.set_option("display.max_colwidth", None)
    pd.set_option("display.max_columns", None)
    if notebook not in READS:
        return run
    return replace(run, profile=cast(Profile, ProfileView(resolved, notebook)))


def fix_threads(run: Run) -> None:
    """Pin torch to the profile's threads: sums over another number differ in bits.

    And to algorithms that give the same bits each time. `start` does it; a process that
    is handed a run must do it itself.
    """
    import torch

    models = run.profile.models
    if models.device == "cuda" and torch.cuda.is_available():
        os.environ.update(DETERMINISTIC)  # in a kernel that no runner started, too
    torch.use_deterministic_algorithms(mode=True)
    torch.set_num_threads(models.n_threads)
