"""What a run on the real NSD downloads and keeps on disk, before it starts.

Counted from sizes: grids, sessions, targets and images; text and small files are left
out. An estimate, as nobody has run it. Not here: hours and memory (`cost`), and the
files themselves (`fetch` asks the bucket for exact sizes). Place in the flow: layer 8,
`minddiff plan`.
"""

from dataclasses import dataclass
from math import prod

from minddiff_utils.baselines import GENERATED
from minddiff_utils.config import Profile
from minddiff_utils.errors import ConfigError
from minddiff_utils.nsd_facts import FACTS, SEEN, SUBJECT1

__all__ = ["Space", "kept", "to_download"]

#: Bytes of an hdf5 session per index of the volume: 750 trials in int16, and chunks.
_PER_INDEX = 750 * 2 + 64
#: Stimuli of all subjects, and COCO's captions, bytes.
_STIMULI, _CAPTIONS = 39.6e9, 0.25e9
#: Values of one image under Stable Diffusion v1-4 and ViT-B/32.
_TEXT_WIDTH, _LATENT, _CLIP_LAYER = 768, 4 * 64 * 64, 50 * 768
#: Bytes of a PNG per byte of its pixels, photographs.
_PNG = 0.6
#: Conditions with an image for each test image; those of stage 2 have trajectories.
_CONDITIONS = [name for name in GENERATED if name != "stage2_paper"]
_ALIGNED = [name for name in _CONDITIONS if name.startswith("stage2")]


@dataclass(frozen=True)
class Space:
    """Bytes by what they are for, in words."""

    parts: dict[str, float]

    @property
    def total(self) -> float:
        """Return the sum, bytes."""
        return sum(self.parts.values())


def _check(profile: Profile) -> None:
    if profile.simulation is not None or profile.models.backbone != "sd14":
        raise ConfigError(
            f"Profile {profile.name} downloads nothing: notebook 00 writes its data;"
            " ask for --profile nsd."
        )


def to_download(profile: Profile) -> Space:
    """Return what the profile's subjects and sessions weigh in NSD's bucket.

    Betas as hdf5; as nii.gz they take about half.

    Raises
    ------
    ConfigError
        The profile is simulated.

    References
    ----------
    NSD Data Manual (grids); sizes of public copies agree within 1 %.
    """
    _check(profile)
    sessions = profile.data.sessions
    betas = sum(
        min(sessions, FACTS[s].n_sessions) * prod(FACTS[s].grid) * _PER_INDEX
        for s in profile.subjects
    )
    return Space({"betas": betas, "stimuli": _STIMULI, "captions": _CAPTIONS})


def _n_voxels(subject: int) -> float:
    """Return the voxels of the eleven areas: those of subject 1, others by share."""
    share = SUBJECT1["11 areas"] / FACTS[1].n_nsdgeneral
    return share * FACTS[subject].n_nsdgeneral


def _weights(profile: Profile, n_voxels: float) -> float:
    """Return the bytes of the stored decoders of one subject."""
    decoding, layers = profile.decoding, len(profile.features.clip_layers)
    k = (decoding.k_percent or 100.0) / 100
    targets = (
        (decoding.n_feat_c, profile.models.n_tokens * _TEXT_WIDTH),
        (decoding.n_feat_z, _LATENT),
        (decoding.n_feat_clip, k * layers * _CLIP_LAYER),
    )
    if profile.decoder == "dense":
        return 4 * n_voxels * sum(n for _, n in targets)
    return sum(8 * n_feat * n for n_feat, n in targets)  # an index and a weight each


def kept(profile: Profile) -> Space:
    """Return what notebooks 01 to 04 keep, all subjects together.

    Raises
    ------
    ConfigError
        The profile is simulated.
    """
    _check(profile)
    known = [n for n in SEEN if n >= profile.data.sessions]
    n_images = SEEN[min(known, default=40)][0]
    n_test, n_subjects = profile.data.n_reconstruct, len(profile.subjects)
    features = profile.models.n_tokens * _TEXT_WIDTH + _LATENT
    features += len(profile.features.clip_layers) * _CLIP_LAYER
    pixels = 3 * profile.models.image_size**2
    decoded = 4 * 2 * features * (n_test + profile.data.n_validation)
    shown = min(n_test, profile.stage2.n_images_trajectory)
    frames = shown * profile.stage2.n_trajectory * len(_ALIGNED)
    voxels = [_n_voxels(subject) for subject in profile.subjects]
    return Space(
        {
            "responses": sum(4 * n_images * n for n in voxels),
            "stimuli at the generator's size": n_subjects * n_images * pixels,
            "decoded features": n_subjects * decoded,
            "decoders": sum(_weights(profile, n) for n in voxels),
            "images": n_subjects * n_test * len(_CONDITIONS) * _PNG * pixels,
            "trajectories": n_subjects * frames * pixels,
        }
    )
