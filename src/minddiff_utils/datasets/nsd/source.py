"""Where NSD's files are downloaded from: its bucket, and COCO for the captions.

References
----------
Allen, E. J. et al. (2022). A massive 7T fMRI dataset to bridge cognitive neuroscience
and artificial intelligence. Nature Neuroscience 25, 116-126; NSD Data Manual.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from minddiff_utils.datasets.download import Agreement
from minddiff_utils.datasets.nsd.layout import NsdFile, find, is_there
from minddiff_utils.datasets.transfer import Download

__all__ = ["AGREEMENT", "ARCHIVE", "BUCKET", "Archive", "downloads"]

BUCKET = "natural-scenes-dataset"
_ADDRESS = f"https://{BUCKET}.s3.us-east-2.amazonaws.com"
AGREEMENT = Agreement(
    "NSD's data access agreement",
    "https://naturalscenesdataset.org",
    "NSD may be used by those who have signed its data access agreement: research and\n"
    "education only, nothing passed on, nobody identified, Allen et al. 2022 cited.\n"
    "  Dataset    https://naturalscenesdataset.org\n"
    "  Terms      https://cvnlab.slite.page/p/IB6BSeW_7o/Terms-and-Conditions\n"
    "  Agreement  https://forms.gle/eT4jHxaWwYUDEf2i9\n",
)


@dataclass(frozen=True)
class Archive:
    """An archive as it is published: bytes and SHA-256 prove it over any line."""

    url: str
    size: int
    sha256: str


#: COCO's captions. Served without TLS, as the server's certificate is not its own.
#: MD5 f4bbac642086de4f52a3fdda2de5fa2c in the lists of others.
ARCHIVE = Archive(
    "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
    252_907_541,
    "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
)


def downloads(
    files: Sequence[NsdFile],
    root: Path,
    *,
    endpoint: str = "",
    captions_from: str = "",
    archive: Archive = ARCHIVE,
) -> tuple[Download, ...]:
    """Return where each file comes from; of captions those that `root` lacks alone.

    Parameters
    ----------
    endpoint : str
        Address of a mirror of the bucket.
    captions_from : str
        Address of a mirror of COCO's archive.
    """
    address = f"{endpoint.rstrip('/')}/{BUCKET}" if endpoint else _ADDRESS
    by_hand = "check its name in NSD's manual, or put the file into place by hand"
    found = [
        Download(
            file.path,
            f"{address}/{quote(file.path)}",
            file.reason,
            by_hand,
            file.optional,
        )
        for file in files
        if file.kind != "captions"
    ]
    captions = [PurePosixPath(file.path) for file in files if file.kind == "captions"]
    lacking = [path for path in captions if not is_there(find(root / path))]
    if lacking:
        names, folder = tuple(path.name for path in lacking), lacking[0].parent
        found.append(
            Download(
                f"{folder}/annotations_trainval2017.zip",
                captions_from or archive.url,
                f"{' and '.join(names)} of COCO: CC BY 4.0,"
                " https://cocodataset.org/#termsofuse",
                f"unpack {' and '.join(names)} of annotations_trainval2017.zip"
                f" (https://cocodataset.org/#download) into {root / folder}",
                size=archive.size,
                sha256=archive.sha256,
                members=tuple(f"annotations/{name}" for name in names),
            )
        )
    return tuple(found)
