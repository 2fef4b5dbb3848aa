"""Which Stable Diffusion lies in a folder of models, by what its files say of it.

Labels name it, because any checkpoint of the family 1.x is read from the folder of the
paper's. Weights are not looked into: whoever puts other weights among the hub's files
is not found out here, but by `SHA256SUMS`.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from minddiff_utils.core.errors import in_a_line

__all__ = ["PAPERS", "UNKNOWN", "checkpoint_in"]

#: The paper's, and what is said where the files name none.
PAPERS, UNKNOWN = "Stable Diffusion v1-4", "unnamed Stable Diffusion"
#: Commit of the hub, or name there -> checkpoint.
_KNOWN = {
    "133a221b8aa7292a167afc5127cb63fb5005638b": PAPERS,
    "CompVis/stable-diffusion-v1-4": PAPERS,
    "451f4fe16113bff5a5d2269ed5ad43b0592e9a14": "Stable Diffusion v1-5",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "Stable Diffusion v1-5",
    "runwayml/stable-diffusion-v1-5": "Stable Diffusion v1-5",
}
_WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def checkpoint_in(folder: Path) -> str:
    """Return the name of the Stable Diffusion in `folder`, in diffusers' layout.

    Known by the commit that `hf download` notes of the U-Net's weights, else by the
    name that diffusers writes where a pipeline is saved, else `UNKNOWN`. Empty where
    there is no U-Net.
    """
    if not (folder / _WEIGHTS).is_file():
        return ""
    for said in _said(folder):
        for sign, name in _KNOWN.items():
            if sign in said:
                return name
        if re.fullmatch(r"[\w.-]+/[\w.-]+", said):  # a name on the hub, not a path
            return in_a_line(said, 80)
    return UNKNOWN


def _said(folder: Path) -> Iterator[str]:
    """Give what the files say of where they come from, the surest first."""
    note = folder / ".cache" / "huggingface" / "download" / f"{_WEIGHTS}.metadata"
    with suppress(OSError):
        yield note.read_bytes()[:40].decode("ascii", "replace")
    for name in ("model_index.json", "unet/config.json"):
        with suppress(OSError, ValueError):  # what is damaged is said when it is loaded
            fields = json.loads((folder / name).read_text(encoding="utf-8"))
            if isinstance(fields, dict):
                yield str(fields.get("_name_or_path", ""))
