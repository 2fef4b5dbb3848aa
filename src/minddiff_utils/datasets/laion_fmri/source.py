"""Where the files of LAION-fMRI come from: its bucket, and by hand the images.

Responses, regions and captions are CC0 and need no agreement; the images have terms of
their own, which a service of its makers asks everyone to accept. The splits lie in the
repository of its makers' package, pinned by a commit.
"""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from minddiff_utils.datasets.laion_fmri import layout
from minddiff_utils.datasets.nsd.layout import is_there
from minddiff_utils.datasets.transfer import Download

__all__ = ["by_hand", "downloads"]

_BUCKET = "laion-fmri"
_ADDRESS = f"https://{_BUCKET}.s3.us-west-2.amazonaws.com"
_PACKAGE = "ViCCo-Group/LAION-fMRI"
_COMMIT = "04ee2883bba2684e65f16f11c7566e2463c9ddc5"
_SPLITS = "https://raw.githubusercontent.com"
_TERMS = "https://laion-fmri.hebartlab.com/request"


def downloads(
    root: Path,
    subjects: Sequence[int],
    sessions: Sequence[int],
    split: str,
    *,
    endpoint: str = "",
) -> tuple[Download, ...]:
    """Return where the files come from that are open to all; regions only if lacking.

    `endpoint`: address of another server with the same paths.
    """
    server = endpoint.rstrip("/")
    bucket = f"{server}/{_BUCKET}" if server else _ADDRESS
    package = f"{server or _SPLITS}/{_PACKAGE}/{_COMMIT}/laion_fmri"
    found = []
    for path, file in layout.inventory(subjects, sessions, split):
        url = f"{bucket}/{quote(path)}"
        by_hand = "look for it with `laion-fmri download`, or put it there by hand"
        if file.kind == "split":
            url = f"{package}/{quote(path.replace('splits/', 'splits/data/', 1))}"
            by_hand = f"take it from https://github.com/{_PACKAGE} and put it there"
        elsewhere = file.kind == "roi" and _lies_elsewhere(root / path)
        if not (file.gated or elsewhere):
            found.append(Download(path, url, file.reason, by_hand, file.optional))
    return tuple(found)


def _lies_elsewhere(path: Path) -> bool:
    """Return whether another group of regions holds a mask."""
    return not is_there(path) and any(path.parent.parent.glob(f"*/{path.name}"))


def by_hand(root: Path) -> tuple[str, ...]:
    """Return a sentence where the images and their table are not there."""
    paths = [root / layout.path_of(kind) for kind in ("table", "images")]
    if all(map(is_there, paths)):
        return ()
    names = " and ".join(path.name for path in paths)
    return (
        f"The images of LAION-fMRI come by hand, 3.2 GB: accept their terms at {_TERMS}"
        f" and put {names} into {paths[0].parent}.",
    )
