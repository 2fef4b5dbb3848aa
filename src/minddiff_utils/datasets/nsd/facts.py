"""What NSD publishes about itself, and MindDiffuser about its voxels.

Only the real data must agree with these numbers; an in-silico folder need not. What the
reader needs (trials, images, labels) is in `nsd`. Place in the flow: below layer 4; who
fetches, prepares, checks or plans reads them here.

References
----------
NSD Data Manual, Technical notes (sessions, volumes, vertices); cvnlab/nsddatapaper,
`FINALNUMBERSnotes.m` (images seen in 30, 32 and 40 sessions).
"""

from dataclasses import dataclass

from minddiff_utils.core.provenance import MARK

__all__ = [
    "FACTS",
    "FIRST_SHARED",
    "IMAGE_SIZE",
    "MARK",
    "N_FSAVERAGE",
    "N_SESSIONS",
    "N_TRIALS",
    "PARTS",
    "SEEN",
    "SHARED_ENDS",
    "SUBJECT1",
    "VOXEL_MM",
    "Facts",
]

#: Trials per session, always (NSD Data Manual, technical notes).
N_TRIALS = 750
#: The folders below NSD's root.
PARTS = ("nsddata", "nsddata_betas", "nsddata_stimuli")
#: Sessions of the design; not every subject came to all of them.
N_SESSIONS = 40


@dataclass(frozen=True)
class Facts:
    """What NSD states of one subject; vertices of lh and rh."""

    n_sessions: int
    grid: tuple[int, int, int]
    n_vertices: tuple[int, int]
    n_nsdgeneral: int
    n_brain: int


#: Data manual, Technical notes; voxels of the last two as others counted them in files.
FACTS = {
    1: Facts(40, (81, 104, 83), (227021, 226601), 15724, 370503),
    2: Facts(40, (82, 106, 84), (239633, 239309), 14278, 343107),
    3: Facts(32, (81, 106, 82), (240830, 243023), 15226, 358199),
    4: Facts(30, (85, 99, 80), (228495, 227262), 13153, 329650),
    5: Facts(40, (79, 97, 78), (197594, 198908), 13039, 302566),
    6: Facts(32, (85, 113, 83), (253634, 259406), 17907, 412281),
    7: Facts(40, (78, 95, 81), (198770, 200392), 12682, 296155),
    8: Facts(30, (80, 103, 78), (224364, 224398), 14386, 321595),
}
#: Sessions -> images seen: distinct, shared, other, three times (None: not published).
SEEN: dict[int, tuple[int, int, int, int | None]] = {
    40: (10000, 1000, 9000, 10000),
    37: (9841, 982, 8859, None),
    32: (9411, 930, 8481, 6234),
    30: (9209, 907, 8302, 5445),
}
#: Subject 1: voxels of MindDiffuser's masks, and of the released prf-visualrois.
SUBJECT1 = {"11 areas": 11_694, "prf-visualrois": 4657}
#: First and last shared image, 1-based; the first one's row and COCO id.
SHARED_ENDS = (2951, 72949)
FIRST_SHARED = (2950, 262145)
IMAGE_SIZE = 425
N_FSAVERAGE = 163_842
VOXEL_MM = 1.8
