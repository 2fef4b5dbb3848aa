"""What a rehearsal runs: the profile nsd with less of it, in a folder of its own.

Sizes that decide memory and speed stay NSD's: grid, voxels, trials, targets, image and
feature sizes. Numbers of things that are alike are cut: one subject, one session, a few
images, a few steps, and not more voxels per target than images. Where there is no GPU
the models are thin, the sampler short, and voxels per target fewer still.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import psutil
import torch

from minddiff_utils.core.config import Profile
from minddiff_utils.core.errors import ConfigError, RunError
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.run import Tree
from minddiff_utils.datasets.nsd.layout import FACTS
from minddiff_utils.models.random import Kind, weight_bytes
from minddiff_utils.studies.rehearsal.enlarge import Size
from minddiff_utils.studies.storage import area_voxels, feature_values, session_bytes

__all__ = ["NAME", "Rehearsal", "check_room", "rehearse"]

#: Name of the folders of a rehearsal, in `data` and in `figures`.
NAME = "nsd-rehearsal"
#: Per session of the in-silico design: 250 images, of which so many are for tests and
#: for validation, the shares of NSD's 37 sessions.
_TEST, _VALIDATION = 25, 22
#: Voxels per target, by kind.
_SELECTED = ("decoding.n_feat_c", "decoding.n_feat_z", "decoding.n_feat_clip")
#: Bytes of a process that has loaded the libraries and models, and of the Gram matrices
#: of the decoders; of one stimulus as stored; of what else is kept.
_PROCESS = {"thin": 4e9, "full": 9e9}
_GRAM, _STIMULUS, _OTHER = 16, 0.15e6, 3e9


@dataclass(frozen=True)
class Rehearsal:
    """A rehearsal and the run that it stands for.

    Attributes
    ----------
    real : Profile
        What would be run.
    profile : Profile
        What is run instead; `overrides` make it of the profile's file.
    overrides : dict
        Dotted keys, for the notebooks.
    kind : {"full", "thin"}
        Of the models.
    tree : Tree
        Below `home`: `nsd`, `models`, `data` and `figures`.
    report : Path
        Folder of the table and of the record, which `minddiff plan` reads.
    """

    real: Profile
    profile: Profile
    overrides: dict[str, Any]
    kind: Kind
    tree: Tree
    report: Path

    @property
    def home(self) -> Path:
        """Return the folder that may be deleted afterwards."""
        return self.tree.root

    @property
    def subject(self) -> int:
        """Return the one subject."""
        return self.profile.subjects[0]

    @property
    def size(self) -> Size:
        """Return the sizes of NSD's volumes of the subject."""
        facts = FACTS[self.subject]
        return Size(facts.grid, round(area_voxels(self.subject)), facts.n_brain)

    @property
    def n_images(self) -> int:
        """Return the distinct images of the rehearsed sessions."""
        return 250 * self.profile.data.last_session


def rehearse(overrides: Mapping[str, Any], root: Path) -> Rehearsal:
    """Return the rehearsal of the profile nsd under the user's `overrides`.

    `data.sessions` is 1 unless they say otherwise; what else they set stays as they
    say in the rehearsal, too.

    Parameters
    ----------
    overrides : mapping
        Dotted keys, as for `load_profile`.
    root : Path
        Holds `data` and `figures`.

    Raises
    ------
    ConfigError
        As `load_profile`.
    """
    real = load_profile("nsd", overrides)
    if real.models.backbone != "sd14":
        raise ConfigError(
            f"models.backbone is {real.models.backbone!r}, but a rehearsal is one of"
            " Stable Diffusion v1-4: leave that override out."
        )
    home = root.absolute() / "data" / NAME
    device = str(overrides.get("models.device", _device()))
    kind: Kind = "thin" if device == "cpu" else "full"
    n_sessions = real.data.last_session if "data.sessions" in overrides else 1
    ours = _cut(real, n_sessions, device)
    theirs = {
        k: v for k, v in overrides.items() if k not in ("subjects", "models.path")
    }
    groups = {key for key in theirs if "." not in key}
    kept = {k: v for k, v in ours.items() if k.partition(".")[0] not in groups}
    merged = {**kept, **theirs, "models.path": str(home / "models")}
    profile = load_profile("nsd", merged)
    tree = Tree(home, "nsd", home / "nsd", home / "models")
    return Rehearsal(real, profile, merged, kind, tree, root / "figures" / NAME)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _cut(real: Profile, n_sessions: int, device: str) -> dict[str, Any]:
    """Return the overrides that make a short run of a long one."""
    n_train = n_sessions * (250 - _TEST - _VALIDATION)
    decoding = real.decoding
    cut: dict[str, Any] = {
        "subjects": [real.subjects[0]],
        "simulation": {"n_sessions": n_sessions, "n_test_images": n_sessions * _TEST},
        "data.sessions": n_sessions,
        "data.n_validation": n_sessions * _VALIDATION,
        "data.n_reconstruct": 4,
        "models.device": device,
        # more voxels than images tell a target nothing
        **{key: min(getattr(decoding, key[9:]), n_train) for key in _SELECTED},
        "stage2.n_iter": 2,
        "stage2.n_iter_fast": 2,
        "stage2.n_iter_paper": 2,
        "stage2.n_candidates": 1,
        "stage2.n_candidates_fast": 1,
        "stage2.n_images_paper": 1,
        "stage2.n_images_controls": 1,
        "stage2.n_trajectory": 2,
        "stage2.n_images_trajectory": 4,
        "ablation.n_images": 2,
        "ablation.layers": [[1]],
        "ablation.iterations": [2],
        "ablation.k_grid": [25.0, 100.0],
        "evaluation.n_bootstrap": 200,
        "evaluation.n_permutations": 200,
    }
    if device == "cpu":
        cut |= {
            "models.dtype": "float32",
            # all targets within minutes; `fits` times the profile's own numbers
            **{key: cut[key] // 4 for key in _SELECTED},
            "decoding.n_folds": 2,
            "stage1.n_steps": 4,
            "stage1.encode_index": 2,
            "stage1.decode_steps": 2,
            "stage2.n_steps_fast": 1,
        }
    return cut


def check_room(rehearsal: Rehearsal) -> None:
    """Raise RunError if disk or memory will not do, before anything is written."""
    home, profile = rehearsal.home, rehearsal.profile
    features = 4 * feature_values(profile) * rehearsal.n_images
    volumes = profile.data.last_session * session_bytes(rehearsal.subject)
    disk = volumes + weight_bytes(rehearsal.kind) + 2 * features + _OTHER
    disk += rehearsal.n_images * (_STIMULUS + 3 * profile.models.image_size**2)
    free = shutil.disk_usage(_existing(home)).free
    if not home.is_dir() and free < disk:
        raise RunError(
            f"{_existing(home)}: {free / 1e9:.1f} GB are free, but the rehearsal needs"
            f" about {disk / 1e9:.0f}: free space, or set MINDDIFF_ROOT to another"
            " disk."
        )
    size = rehearsal.size
    writing = 3 * 750 * prod(size.grid)  # a session and its copy
    decoding = float(_GRAM * size.n_voxels**2 + 3 * features)
    if (
        profile.decoder == "dense"
    ):  # a weight for each voxel and target, and parts again
        decoding += 1.5 * 4 * size.n_voxels * feature_values(profile)
    memory = max(writing, _PROCESS[rehearsal.kind] + decoding)
    available = psutil.virtual_memory().available
    if available < memory:
        raise RunError(
            f"{available / 1e9:.1f} GB of memory are available, but the rehearsal"
            f" needs about {memory / 1e9:.0f}: close other programs, or take a larger"
            " machine."
        )


def _existing(path: Path) -> Path:
    """Return the innermost folder of `path` that exists."""
    return path if path.is_dir() else _existing(path.parent)
