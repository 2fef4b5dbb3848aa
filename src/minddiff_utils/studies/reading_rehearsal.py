"""The reading of a data set rehearsed: a synthetic folder of its sizes, notebook 01.

`./run_all.sh --profile laion_fmri --rehearse` (or algonauts): notebook 01 alone knows
one data set from another; all that comes after it is rehearsed by `--profile nsd`. It
shows that the files of the release, at their sizes, are read on this machine, and what
that takes. Values are noise.
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
from minddiff_utils.studies.rehearsal_folders import (
    AlgonautsSize,
    LaionSize,
    write_algonauts,
    write_laion,
)
from minddiff_utils.studies.timing_report import machine, read_steps

__all__ = ["PROFILES", "ReadingRehearsal", "rehearse_reading", "words"]

#: Those whose reading is rehearsed here.
PROFILES = ("algonauts", "laion_fmri")
#: LAION-fMRI: one session, of which so many images validate.
_LAION: Mapping[str, Any] = {"data.sessions": 1, "data.n_validation": 30}


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

    def prepare(self, size: AlgonautsSize | LaionSize | None = None) -> None:
        """Write the folder unless it is there; by default of the release's sizes."""
        is_laion = self.profile.name == "laion_fmri"
        size = size or (LaionSize() if is_laion else AlgonautsSize.of(self.subject))
        code = Path(__file__)
        files = [code, code.with_name("rehearsal_folders.py")]
        facts = {
            "size": asdict(size),
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
            else:
                write_algonauts(renewal.fresh, self.subject, size)
            renewal.publish(key, {})


def rehearse_reading(
    name: str, overrides: Mapping[str, Any], root: Path
) -> ReadingRehearsal:
    """Return the rehearsal of profile `name` under a user's overrides.

    `root` holds `data` and `figures`; all of it lies in `data/NAME-rehearsal`.
    """
    first = load_profile(name, overrides).subjects[0]
    cut = {"subjects": [first], "data.n_reconstruct": 4}
    cut |= {"models.device": "cpu", "models.dtype": "float32"}
    merged = {**cut, **(_LAION if name == "laion_fmri" else {}), **overrides}
    merged["subjects"] = [first]
    home = root.absolute() / "data" / f"{name}-rehearsal"
    tree = Tree(home, name, home / "folder", home / "models")
    return ReadingRehearsal(load_profile(name, merged), merged, tree)


def words(rehearsal: ReadingRehearsal) -> list[str]:
    """Return what was found, and what may be deleted."""
    whole = [step for step in read_steps(rehearsal.tree.notebooks) if not step.section]
    took = ", ".join(
        f"{step.notebook} {step.seconds:.0f} s, {step.peak_gb:.1f} GB" for step in whole
    )
    of = "one session" if rehearsal.profile.name == "laion_fmri" else "all images"
    return [
        f"Rehearsed on {machine()}, {of} of one subject: {took} at most.",
        "What comes after notebook 01 is rehearsed by --profile nsd.",
        f"Delete the rehearsal's data and figures: {rehearsal.tree.root}",
    ]
