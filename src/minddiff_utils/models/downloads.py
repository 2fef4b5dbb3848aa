"""Which files of the hub the real models are, each repository pinned by a commit.

Nothing is downloaded here: the table says what a user fetches, and `download_command`
how. A commit names the bytes for good, a branch such as `main` does not. Commits and
digests were read in public repositories that pin the same files, several for each, not
guessed; where no digest was found there, none is stated.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

__all__ = [
    "LICENCE",
    "PINNED",
    "SENTENCES",
    "HubFiles",
    "download_command",
    "pinned_file",
]


@dataclass(frozen=True)
class HubFiles:
    """Files of one repository of huggingface.co at one commit.

    Attributes
    ----------
    repository : str
        Owner and name.
    revision : str
        Commit, 40 hexadecimal digits.
    files : tuple of str
        Paths in the repository; they keep them below `target`.
    target : str
        Folder inside the models' folder `sd14` (of `SENTENCES`: `perception`); empty:
        that folder itself.
    digests : mapping of str to str
        SHA-256 of a file by its path, where known.
    """

    repository: str
    revision: str
    files: tuple[str, ...]
    target: str = ""
    digests: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


_OPEN_CLIP = ("open_clip_config.json", "open_clip_model.safetensors")

#: Stable Diffusion v1-4 with its text encoder (CLIP ViT-L/14), the CLIP ViT-B/32 that
#: is decoded, and a judge of another size and other training data (LAION-2B).
PINNED = (
    HubFiles(
        repository="CompVis/stable-diffusion-v1-4",
        revision="133a221b8aa7292a167afc5127cb63fb5005638b",
        files=(
            "vae/config.json",
            "vae/diffusion_pytorch_model.safetensors",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors",
            "scheduler/scheduler_config.json",
            "text_encoder/config.json",
            "text_encoder/model.safetensors",
            "tokenizer/merges.txt",
            "tokenizer/special_tokens_map.json",
            "tokenizer/tokenizer_config.json",
            "tokenizer/vocab.json",
        ),
    ),
    HubFiles(
        repository="timm/vit_base_patch32_clip_224.openai",  # OpenAI's weights
        revision="a6f597a30f7b82c51704746581f9a4e41421e878",
        files=_OPEN_CLIP,
        target="clip",
        digests=MappingProxyType(
            {
                "open_clip_model.safetensors": "e6d1bd7789aa45192b3bf90570a789b4"
                "78bae1b74ebcce7eddd908e83a2b7c31",
            }
        ),
    ),
    HubFiles(
        repository="laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        revision="1c2b8495b28150b8a4922ee1c8edee224c284c0c",
        files=_OPEN_CLIP,
        target="judge",
    ),
)

#: What whoever takes Stable Diffusion agrees to; a comment in a shell.
LICENCE = """\
# Stable Diffusion 1.x is under the CreativeML OpenRAIL-M licence: no illegal or harmful
# use or output; its makers claim no rights in what you generate, and you answer for it;
# whoever passes the weights on passes on the licence with the same restrictions. Read:
# https://huggingface.co/spaces/CompVis/stable-diffusion-license
"""

#: The encoder of captions by which evaluation compares them; commit and digests are
#: stated together in public scripts that fetch it.
SENTENCES = HubFiles(
    repository="sentence-transformers/all-MiniLM-L6-v2",
    revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
    files=("config.json", "model.safetensors", "tokenizer.json"),
    target="all-MiniLM-L6-v2",
    digests=MappingProxyType(
        {
            "config.json": "953f9c0d463486b10a6871cc2fd59f22"
            "3b2c70184f49815e7efbcab5d8908b41",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6c"
            "c0ca6895895114379cacb4fab128d9db",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611"
            "b2561a3a27eeab05e5aa30f411572037",
        }
    ),
)


def pinned_file(name: str) -> tuple[HubFiles, str] | None:
    """Return where the hub has the file `name`, a path inside the folder `sd14`.

    Returns
    -------
    (HubFiles, str) or None
        The repository and the path in it; None if no repository has it.
    """
    for pin in PINNED:
        prefix = f"{pin.target}/" if pin.target else ""
        inside = name.removeprefix(prefix)
        if name.startswith(prefix) and inside in pin.files:
            return pin, inside
    return None


def download_command(pin: HubFiles, folder: Path) -> str:
    """Return the command that fetches `pin` into `folder`, the models' folder `sd14`.

    >>> download_command(PINNED[1], Path("sd14"))[:51]
    'hf download timm/vit_base_patch32_clip_224.openai o'
    """
    target = folder / pin.target
    words = ["hf", "download", pin.repository, *pin.files]
    return shlex.join([*words, "--revision", pin.revision, "--local-dir", str(target)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the licence, then the command of each repository, for a folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path, help="the models' folder sd14")
    folder = parser.parse_args(arguments).folder
    sys.stdout.write(LICENCE)
    sys.stdout.writelines(f"{download_command(pin, folder)}\n" for pin in PINNED)


if __name__ == "__main__":
    main()
