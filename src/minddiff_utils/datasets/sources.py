"""Where the files of each data set come from: from servers, or by hand.

One place that knows all data sets, for `minddiff fetch` and `minddiff setup`; what
there is to say of one of them stands in its own folder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import Any

from minddiff_utils.core.errors import ConfigError, check_choice
from minddiff_utils.core.profile import DataConfig
from minddiff_utils.datasets.algonauts import layout as algonauts
from minddiff_utils.datasets.digits69 import reader as digits69
from minddiff_utils.datasets.download import Agreement
from minddiff_utils.datasets.further_tests import layout as further_tests
from minddiff_utils.datasets.laion_fmri import layout as laion_fmri
from minddiff_utils.datasets.nsd import layout
from minddiff_utils.datasets.nsd import source as nsd
from minddiff_utils.datasets.transfer import Download

__all__ = ["Mirrors", "Source", "source_of"]


@dataclass(frozen=True)
class Mirrors:
    """What a user asks for in place of the usual servers and forms, and beside them.

    Attributes
    ----------
    endpoint, captions_from : str
        Addresses of mirrors of the data set's server and of COCO's archive.
    form : {"hdf5", "nii.gz"} or None
        Of NSD's betas; None: what is there of a session, else hdf5.
    further : bool
        Whether NSD-synthetic and NSD-imagery are asked for, too.
    """

    endpoint: str = ""
    captions_from: str = ""
    form: layout.Container | None = None
    further: bool = False


@dataclass(frozen=True)
class Source:
    """What a data set consists of.

    Attributes
    ----------
    agreement : Agreement or None
        What has to be signed before; None where the files are free.
    files : tuple of Download
        What comes from servers.
    by_hand : tuple of str
        One sentence for each part that no server gives and the folder lacks.
    """

    agreement: Agreement | None
    files: tuple[Download, ...]
    by_hand: tuple[str, ...] = ()


def source_of(
    name: str, root: Path, subjects: Sequence[int], data: DataConfig, mirrors: Mirrors
) -> Source:
    """Return what the data set `name` (`Profile.data_set`) needs in the folder `root`.

    Raises
    ------
    ConfigError
        There is no such data set, or it has no such betas, subject, session or further
        test sets.
    """
    if mirrors.further and name != "nsd":
        raise ConfigError(
            f"NSD-synthetic and NSD-imagery belong to NSD, not to {name}: leave"
            " --further-tests out, or fetch them with --profile nsd."
        )
    if name == "digits69":
        files = digits69.downloads(root, endpoint=mirrors.endpoint)
        return Source(digits69.AGREEMENT, files)
    if name == "laion_fmri":
        asked = data.session_numbers
        named = laion_fmri.inventory(subjects, asked, str(data.split))
        files = laion_fmri.downloads(root, named, endpoint=mirrors.endpoint)
        return Source(None, files, laion_fmri.by_hand(root))
    check_choice(name, ("nsd", "algonauts"), "data_set")
    check_choice(data.betas_version, layout.BETAS_VERSIONS, "betas_version")
    servers: dict[str, Any] = {
        "endpoint": mirrors.endpoint,
        "captions_from": mirrors.captions_from,
    }
    if name == "algonauts":
        by_hand = algonauts.by_hand(root, subjects)
        every = algonauts.inventory(*subjects)
        wanted = tuple(file for file in every if file.path.startswith("nsddata"))
        wanted = layout.not_otherwise(wanted, root)
        files = nsd.downloads(wanted, root, **servers)
        return Source(nsd.AGREEMENT, files, by_hand)
    published = layout.published_sessions(subjects, data.session_numbers)
    form: layout.Container = mirrors.form or "hdf5"
    wanted = layout.inventory(published, data.betas_version, (form,))
    if mirrors.further:
        several = product(further_tests.NAMES, subjects)
        found = [further_tests.inventory(*a, data.betas_version, form) for a in several]
        # subjects share some of them
        wanted += tuple({file.path: file for file in chain(*found)}.values())
    if mirrors.form is None:
        wanted = layout.as_present(wanted, root)
    wanted = layout.not_otherwise(wanted, root)
    return Source(nsd.AGREEMENT, nsd.downloads(wanted, root, **servers))
