"""Where the files of Algonauts 2023 come from: in part from servers, in part by hand.

The release itself is behind a link that its makers send to those who have filled in a
form; no server gives it to a program. NSD's files beside it come from NSD's bucket.
"""

from collections.abc import Sequence
from pathlib import Path

from minddiff_utils.datasets.algonauts import layout
from minddiff_utils.datasets.nsd import source
from minddiff_utils.datasets.nsd.layout import HEMISPHERES, is_there, not_otherwise
from minddiff_utils.datasets.transfer import Download

__all__ = ["by_hand", "downloads"]

_ADDRESS = "https://algonauts.csail.mit.edu/challenge.html"


def downloads(
    root: Path, subjects: Sequence[int], *, endpoint: str = "", captions_from: str = ""
) -> tuple[Download, ...]:
    """Return where NSD's files and the captions come from; mirrors as in `nsd`."""
    wanted = not_otherwise(layout.nsd_files(subjects), root)
    return source.downloads(
        wanted, root, endpoint=endpoint, captions_from=captions_from
    )


def by_hand(root: Path, subjects: Sequence[int]) -> tuple[str, ...]:
    """Return a sentence for each subject whose responses are not there."""
    lacking = [
        f"subj{subject:02d}"
        for subject in subjects
        if not all(
            is_there(root / layout.path("fmri", subject, h=h)) for h in HEMISPHERES
        )
    ]
    return tuple(
        f"{folder} of the release comes by hand, 1.6 GB of responses and the training"
        f" images: ask for its link at {_ADDRESS}, download {folder} and unpack it as"
        f" {root / folder}."
        for folder in lacking
    )
