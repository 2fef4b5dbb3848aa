"""Other data sets than NSD rehearsed: a synthetic folder of their sizes, decoded.

`./run_all.sh --profile algonauts --rehearse` (or laion_fmri): notebooks 01 and 02, with
the models of `nsd_rehearsal` that a processor can run and fewer images in 02; all that
comes after them is the same as with NSD. `--profile digits69`: notebook A6. It shows
that files of the release's layout and sizes are read and decoded on this machine, and
what that takes. Values are noise: no accuracy means anything.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minddiff_utils.core.profile import Profile
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.provenance import digest_json, digest_paths
from minddiff_utils.core.run import Tree
from minddiff_utils.insilico.folder import find, renewing
from minddiff_utils.models.random import write_models
from minddiff_utils.studies.rehearsal_folders import (
    AlgonautsSize,
    LaionSize,
    write_algonauts,
    write_digits,
    write_laion,
)
from minddiff_utils.studies.timing_report import machine, read_steps

__all__ = ["PROFILES", "ReadingRehearsal", "rehearse_reading", "words"]

#: Those that are rehearsed here, and the notebooks that know them from others.
PROFILES = {
    "algonauts": ("01", "02"),
    "laion_fmri": ("01", "02"),
    "digits69": ("A6",),
}
#: Of a run on a processor: no more voxels per target than a quarter of the images.
_CUT: Mapping[str, Any] = {
    "data.n_reconstruct": 4,
    "data.n_images": 200,
    "data.n_validation": 20,
    "models.device": "cpu",
    "models.dtype": "float32",
    **dict.fromkeys(
        ("decoding.n_feat_c", "decoding.n_feat_z", "decoding.n_feat_clip"), 40
    ),
    "decoding.n_folds": 2,
}


@dataclass(frozen=True)
class ReadingRehearsal:
    """A rehearsal of one subject: its profile, the overrides, the folders."""

    profile: Profile
    overrides: dict[str, Any]
    tree: Tree

    @property
    def subject(self) -> int:
        """Return the one subject."""
        return self.profile.subjects[0]

    @property
    def notebooks(self) -> tuple[str, ...]:
        """Return the numbers of the notebooks that are run."""
        return PROFILES[self.profile.name]

    def prepare(self, size: AlgonautsSize | LaionSize | None = None) -> None:
        """Write the folder and models unless they are there.

        By default the folder is of the release's sizes.
        """
        name = self.profile.name
        if "02" in self.notebooks:
            write_models(self.tree.models, "thin", self.profile.seed)
        if size is None and name == "algonauts":
            size = AlgonautsSize.of(self.subject)
        elif size is None and name == "laion_fmri":
            size = LaionSize()
        code = Path(__file__)
        files = [code, code.with_name("rehearsal_folders.py")]
        facts = {
            "size": asdict(size) if size else name,
            "subject": self.subject,
            "split": self.profile.data.split,
            "code": digest_paths(files, code.parent),
        }
        key = digest_json(facts)
        if find(self.tree.nsd, key) is not None:
            return
        with renewing(self.tree.nsd) as renewal:
            if isinstance(size, LaionSize):
                split = str(self.profile.data.split)
                write_laion(renewal.fresh, self.subject, split, size)
            elif size is not None:
                write_algonauts(renewal.fresh, self.subject, size)
            else:
                write_digits(renewal.fresh)
            renewal.publish(key, {})


def rehearse_reading(
    name: str, overrides: Mapping[str, Any], root: Path
) -> ReadingRehearsal:
    """Return the rehearsal of profile `name` under a user's overrides.

    `root` holds `data` and `figures`; all of it lies in `data/NAME-rehearsal`.
    """
    first = load_profile(name, overrides).subjects[0]
    home = root.absolute() / "data" / f"{name}-rehearsal"
    models = str(home / "models")
    one = {"data.sessions": 1} if name == "laion_fmri" else {}
    cut, kept = ({}, {}) if name == "digits69" else (_CUT, {"models.path": models})
    merged = {**cut, **one, **overrides, **kept, "subjects": [first]}
    tree = Tree(home, name, home / "folder", home / "models")
    return ReadingRehearsal(load_profile(name, merged), merged, tree)


def words(rehearsal: ReadingRehearsal) -> list[str]:
    """Return what was found, and what may be deleted."""
    whole = [step for step in read_steps(rehearsal.tree.notebooks) if not step.section]
    took = ", ".join(
        f"{step.notebook} {step.seconds:.0f} s, {step.peak_gb:.1f} GB" for step in whole
    )
    return [
        f"Rehearsed on {machine()}: {took} at most.",
        "Not covered: accuracies, as values are noise; the time of the real models,"
        " whose narrow copies stand in; generation, which --profile nsd rehearses.",
        f"Delete the rehearsal's data, models and figures: {rehearsal.tree.root}",
    ]
