"""Reading a model's files: JSON, safetensors and digests; pickles are refused.

A pickle (`.ckpt`, `.bin`, `.pt`, `.pth`) can run any code when it is read, so none is
ever opened here, not even to look inside.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from minddiff_utils.core.errors import ModelError, writing
from minddiff_utils.core.places import project_root
from minddiff_utils.core.provenance import digest_file
from minddiff_utils.core.reading import reading
from minddiff_utils.models.downloads import download_command, pinned_file
from minddiff_utils.models.libraries import Scheduler, load_file

__all__ = [
    "DIFFUSERS_WEIGHTS",
    "OPEN_CLIP_WEIGHTS",
    "TEXT_WEIGHTS",
    "State",
    "building",
    "check_digests",
    "find_weights",
    "load_weights",
    "models_folder",
    "read_diffusers",
    "read_json",
    "read_schedule",
    "refuse_pickles",
    "rename_parts",
    "sha256",
    "write_digests",
]

#: Names of the weights in a folder, by the library that wrote them.
DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"
TEXT_WEIGHTS = "model.safetensors"
OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"

_PICKLES = (".ckpt", ".bin", ".pt", ".pth")

State = dict[str, Tensor]
_RESTORE = "restore the models' folder"


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`.

    Raises
    ------
    ModelError
        The file is missing, no JSON or no object.
    """
    with _reading(path, "is not valid JSON"):
        content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ModelError(
            f"{path} must hold a JSON object, not {type(content).__name__}: restore the"
            " models' folder."
        )
    return content


@contextmanager
def _reading(path: Path, found: str) -> Iterator[None]:
    """Turn whatever the libraries raise at a file of a model into one sentence."""
    with reading(path, ModelError, found=found, remedy=_RESTORE):
        if not path.exists() and not path.is_symlink():
            raise ModelError(f"{path} is missing: {_RESTORE}.")
        yield


def building(path: Path) -> AbstractContextManager[None]:
    """Turn whatever the libraries raise at a wrong value in `path` to one sentence."""
    found = "is no config of such a model"
    return reading(path, ModelError, found=found, remedy=_RESTORE)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits; it is not held in memory."""
    with _reading(path, "cannot be understood"):
        return digest_file(path)


def check_digests(folder: Path) -> None:
    """Compare every file named in `folder/SHA256SUMS` with its digest.

    Raises
    ------
    ModelError
        The list is missing, a file of it is missing or differs, or a weight file in the
        folder is not in the list.
    """
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        raise ModelError(
            f"{sums} is missing, so the models cannot be trusted: restore it."
        )
    listed = set()
    for digest, name in _listed(sums):
        path = folder / name
        listed.add(path)
        if not path.is_file():
            raise ModelError(f"{path} is named in {sums.name} but missing: restore it.")
        actual = sha256(path)
        if actual != digest:
            raise ModelError(
                f"{path} has SHA-256 {actual[:12]}…, but {sums.name} says"
                f" {digest[:12]}…: the file is damaged or was changed; restore it."
            )
    strangers = sorted(set(folder.rglob("*.safetensors")) - listed)
    if strangers:
        raise ModelError(f"{strangers[0]} is not listed in {sums}: add its digest.")


def write_digests(folder: Path) -> None:
    """Write the digests of all weights below `folder` into its SHA256SUMS, at once."""
    weights = sorted(folder.rglob("*.safetensors"))
    lines = [f"{sha256(path)}  {path.relative_to(folder)}\n" for path in weights]
    sums = folder / "SHA256SUMS"
    fresh = sums.with_name(f".{sums.name}.new")
    with writing(sums):
        fresh.write_text("".join(lines), encoding="utf-8")
        fresh.replace(sums)


#: A line as sha256sum writes it (with * for binary), or shasum and openssl with --tag.
_SUM = re.compile(
    r"(?P<digest>[\da-fA-F]{64})\s+\*?(?P<name>\S.*)"
    r"|SHA2?-?256 ?\((?P<tagged>.+)\) ?= ?(?P<tag>[\da-fA-F]{64})"
)


def _listed(sums: Path) -> list[tuple[str, str]]:
    """Return digest, in small letters, and path of each line of a list of SHA-256.

    Blank lines and comments (#) say nothing.
    """
    with reading(sums, ModelError, found="is no list of digests", remedy="restore it"):
        lines = sums.read_text(encoding="utf-8-sig").splitlines()
    pairs = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        sum_ = _SUM.fullmatch(text)
        if not sum_:
            raise ModelError(
                f"{sums}, line {number}, is not a digest and a path: restore it."
            )
        digest, name = sum_["digest"] or sum_["tag"], sum_["name"] or sum_["tagged"]
        pairs.append((digest.lower(), name))
    return pairs


# --- weights --------------------------------------------------------------------------


def refuse_pickles(place: Path, remedy: str) -> None:
    """Raise ModelError if `place` is a pickle, or a folder with one directly in it."""
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    pickles = [path for path in files if path.suffix in _PICKLES and path.is_file()]
    if pickles:
        raise ModelError(
            f"{pickles[0]} is a pickle, which can run any code when it is read, so it"
            f" is refused: {remedy}."
        )


def find_weights(folder: Path, name: str) -> Path:
    """Return `folder/name`, weights in safetensors.

    Raises
    ------
    ModelError
        The file is missing; the sentence says whether a pickle is in its place, and
        which command fetches the file at its pinned commit.
    """
    path = folder / name
    if path.is_file():
        return path
    remedy = "put the same weights there as safetensors"
    pinned = pinned_file(name)
    if pinned:
        command = download_command(pinned[0], folder)
        remedy += f", the hub's own at a pinned commit: `{command}`"
    for place in (path.parent, folder):
        refuse_pickles(place, remedy)
    raise ModelError(f"{path} is missing: {remedy}.")


def load_weights(
    model: nn.Module, path: Path, rename: Callable[[State], State] | None = None
) -> None:
    """Fill `model` from safetensors; every weight must be there and none left over.

    Parameters
    ----------
    rename : callable, optional
        Makes the names of an older layout those of `model`.

    Raises
    ------
    ModelError
        The file is missing or damaged, or its weights are not those of `model`.
    """
    with _reading(path, "does not fit its config"):
        state = load_file(path)
        model.load_state_dict(rename(state) if rename else state)


def read_diffusers(
    kind: Any, folder: Path, renamed: Mapping[str, str] | None = None
) -> Any:
    """Return the model of diffusers' class `kind` in `folder`, its weights filled in.

    `renamed`: parts of the names of an older layout, and what they are called now.

    Raises
    ------
    ModelError
        A file is missing or damaged, or is of another kind of model.
    """
    path = folder / "config.json"
    fields = read_json(path)
    with building(path):
        model = kind.from_config(fields)
    names = renamed or {}
    weights = folder / DIFFUSERS_WEIGHTS
    load_weights(model, weights, lambda state: rename_parts(state, names))
    return model


def read_schedule(folder: Path) -> dict[str, Any]:
    """Return the config of the noise schedule in the models' folder `folder`.

    Raises
    ------
    ModelError
        The file is missing or damaged, or diffusers' DDIM cannot be made of it.
    """
    path = folder / "scheduler" / "scheduler_config.json"
    config = read_json(path)
    with building(path):
        Scheduler.from_config(dict(config)).set_timesteps(1)
    return config


def models_folder(root: Path | None, name: str, remedy: str) -> Path:
    """Return the folder of the models `name` below `root` (default: `data/models`).

    Raises
    ------
    ModelError
        There is none.
    """
    base = root or project_root() / "data" / "models"
    folder = base / name
    if not folder.is_dir():
        refuse_pickles(base, remedy)
        raise ModelError(
            f"The models of backbone {name!r} are not at {folder}: {remedy}."
        )
    return folder


def rename_parts(state: State, parts: Mapping[str, str]) -> State:
    """Return `state` with every occurrence of `parts` in its names replaced."""
    renamed = {}
    for name, values in state.items():
        for old, new in parts.items():
            name = name.replace(old, new)
        renamed[name] = values
    return renamed
