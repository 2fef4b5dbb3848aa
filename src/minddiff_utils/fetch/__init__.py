"""Downloads what a run reads of NSD, file by file, from NSD's public bucket.

Each file is resumed where it was cut off, checked against the size and ETag that the
bucket states, and renamed into place only then. Not here: reading the files (`nsd`),
and the COCO captions, which the bucket does not hold. Place in the flow: layer 4,
before everything else; `minddiff fetch` calls it. It shares no code with `nsd`; a test
asks that `wanted` names every path that `nsd` reads.

`files` says what a run reads, `bucket` who is asked, `disk` what is there, `plan` what
is left; `transfer` downloads it and `proof` compares it.

References
----------
Allen, E. J. et al. (2022). A massive 7T fMRI dataset to bridge cognitive neuroscience
and artificial intelligence. Nature Neuroscience 25, 116-126; NSD Data Manual.
"""

from minddiff_utils.fetch.bucket import BUCKET, QUESTION, confirm_agreement, make_client
from minddiff_utils.fetch.files import Wanted, captions_note, wanted
from minddiff_utils.fetch.plan import FetchPlan, Item, listing, plan_fetch
from minddiff_utils.fetch.transfer import Outcome, fetch, progress_bar

__all__ = [
    "BUCKET",
    "QUESTION",
    "FetchPlan",
    "Item",
    "Outcome",
    "Wanted",
    "captions_note",
    "confirm_agreement",
    "fetch",
    "listing",
    "make_client",
    "plan_fetch",
    "progress_bar",
    "wanted",
]
