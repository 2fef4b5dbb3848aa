"""Where NSD's files are downloaded from: its bucket, and COCO for the captions.

References
----------
Allen, E. J. et al. (2022). A massive 7T fMRI dataset to bridge cognitive neuroscience
and artificial intelligence. Nature Neuroscience 25, 116-126; NSD Data Manual.
"""

from collections.abc import Sequence
from pathlib import Path

from minddiff_utils.datasets.coco import ARCHIVE, Archive, download_of_captions
from minddiff_utils.datasets.download import Agreement
from minddiff_utils.datasets.inventory import DataFile
from minddiff_utils.datasets.transfer import Download

__all__ = ["AGREEMENT", "BUCKET", "downloads"]

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


def downloads(
    files: Sequence[DataFile],
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
    captions = [file for file in files if file.kind == "captions"]
    found = [Download.of(f, address, by_hand) for f in files if f not in captions]
    return (*found, *download_of_captions(captions, root, archive, captions_from))
