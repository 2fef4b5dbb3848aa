"""Where the "69" digits are downloaded from, and under which terms.

The address is pinned by a commit and the bytes by their SHA-256.
"""

from pathlib import Path

from minddiff_utils.datasets.digits69.reader import (
    BY_HAND,
    COLLECTION,
    COMMIT,
    FILE,
    REPOSITORY,
    SHA256,
    SIZE,
)
from minddiff_utils.datasets.download import Agreement
from minddiff_utils.datasets.transfer import Download

__all__ = ["AGREEMENT", "downloads"]

_SERVER = "https://raw.githubusercontent.com"
AGREEMENT = Agreement(
    "the data use agreement of the Donders Repository for DSC_2018.00112_485",
    COLLECTION,
    'The "69" digits (van Gerven, de Lange and Heskes 2010) were recorded at the\n'
    "Donders Institute, whose collection is open to those who ask and agree to its\n"
    "terms. The copy that is fetched here is published by Du et al. with their code,\n"
    "without a licence. Use it under the collection's terms, pass it on to\n"
    "nobody, cite both.\n"
    f"  Collection  {COLLECTION}\n"
    f"  Copy        {REPOSITORY}\n",
)


def downloads(root: Path, *, endpoint: str = "") -> tuple[Download, ...]:
    """Return where the one file comes from that goes to the folder `root`.

    `endpoint`: address of another server with the same paths.
    """
    return (
        Download(
            FILE,
            f"{endpoint.rstrip('/') or _SERVER}/ChangdeDu/DGMM/{COMMIT}/{FILE}",
            f"responses and images; terms: {COLLECTION}",
            f"{BY_HAND} ({root})",
            size=SIZE,
            sha256=SHA256,
        ),
    )
