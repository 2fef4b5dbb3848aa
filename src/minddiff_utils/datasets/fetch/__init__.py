"""Downloads what a run reads of NSD, file by file, from NSD's public bucket.

Each file is resumed where it was cut off, checked against the size and ETag that the
bucket states, and renamed into place only then; COCO's captions, which the bucket does
not hold, come from COCO. Not here: reading the files (`nsd`). Place in the flow: layer
4, before everything else; `minddiff fetch` calls it. It shares no code with `nsd`; a
test asks that `wanted` names every path that `nsd` reads.

`files` says what a run reads, `bucket` who is asked, `disk` what is there, `plan` what
is left; `transfer` downloads it and `proof` compares it.

References
----------
Allen, E. J. et al. (2022). A massive 7T fMRI dataset to bridge cognitive neuroscience
and artificial intelligence. Nature Neuroscience 25, 116-126; NSD Data Manual.
"""

from minddiff_utils.datasets.fetch.bucket import (
    BUCKET,
    QUESTION,
    confirm_agreement,
    make_client,
)
from minddiff_utils.datasets.fetch.captions import (
    ARCHIVE,
    Archive,
    captions_missing,
    captions_words,
    fetch_captions,
)
from minddiff_utils.datasets.fetch.files import (
    Wanted,
    as_present,
    not_otherwise,
    wanted,
)
from minddiff_utils.datasets.fetch.plan import FetchPlan, Item, listing, plan_fetch
from minddiff_utils.datasets.fetch.transfer import Outcome, fetch, progress_bar

__all__ = [
    "ARCHIVE",
    "BUCKET",
    "QUESTION",
    "Archive",
    "FetchPlan",
    "Item",
    "Outcome",
    "Wanted",
    "as_present",
    "captions_missing",
    "captions_words",
    "confirm_agreement",
    "fetch",
    "fetch_captions",
    "listing",
    "make_client",
    "not_otherwise",
    "plan_fetch",
    "progress_bar",
    "wanted",
]
