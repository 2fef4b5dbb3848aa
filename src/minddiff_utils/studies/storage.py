"""What a run on the real NSD downloads and keeps on disk, before it starts.

Counted from sizes: grids, sessions, targets and images; text and small files are left
out. An estimate, as nobody has run it. Not here: hours and memory (`cost`), and the
files themselves (`fetch` asks the bucket for exact sizes).
"""

from minddiff_utils.core.conditions import compared
from minddiff_utils.core.errors import ConfigError
from minddiff_utils.core.profile import Profile
from minddiff_utils.datasets.nsd.layout import FACTS, SEEN, SUBJECT1, inventory

__all__ = [
    "area_voxels",
    "feature_values",
    "images_of",
    "kept",
    "n_reconstructed",
    "n_trained",
    "session_bytes",
    "session_count",
    "target_counts",
    "to_download",
]

#: Values of one image under Stable Diffusion v1-4 and ViT-B/32.
_TEXT_WIDTH, _LATENT, _CLIP_LAYER = 768, 4 * 64 * 64, 50 * 768
#: Bytes of a PNG per byte of its pixels, photographs.
_PNG = 0.6


def _check(profile: Profile) -> None:
    if profile.simulation is not None or profile.models.backbone != "sd14":
        raise ConfigError(
            f"Profile {profile.name} downloads nothing: notebook 00 writes its data;"
            " ask for --profile nsd."
        )


def to_download(profile: Profile) -> dict[str, float]:
    """Return the bytes of the profile's subjects and sessions in NSD's bucket, by kind.

    Betas as hdf5; as nii.gz they take about half. Of a simulated profile, ConfigError.
    Grids are the NSD Data Manual's; sizes of public copies agree within 1 %.
    """
    _check(profile)
    sessions = {s: range(1, session_count(profile, s) + 1) for s in profile.subjects}
    parts = dict.fromkeys(("betas", "stimuli", "captions"), 0.0)
    for file in inventory(sessions, profile.data.betas_version):
        if file.n_bytes:
            parts[file.kind] += file.n_bytes
    return parts


def session_bytes(subject: int) -> float:
    """Return the bytes of one session's betas as hdf5."""
    files = inventory({subject: (1,)})
    return sum(file.n_bytes for file in files if file.kind == "betas")


def area_voxels(subject: int) -> float:
    """Return the voxels of the eleven areas: those of subject 1, others by share."""
    share = SUBJECT1["11 areas"] / FACTS[1].n_nsdgeneral
    return share * FACTS[subject].n_nsdgeneral


def images_seen(sessions: int) -> tuple[int, int]:
    """Return the distinct images of a subject's sessions, and how many are not shared.

    Where the number was not published, those of the next larger number of sessions.

    >>> images_seen(37)
    (9841, 8859)
    """
    known = [n for n in SEEN if n >= sessions]
    n_images, _, n_other, _ = SEEN[min(known, default=40)]
    return n_images, n_other


def images_of(profile: Profile, subject: int) -> tuple[int, int]:
    """Return the images of a real subject that are used, and how many are made again.

    Of `data.n_images`, where it is set, test images have the share that they have of
    all (`preprocessing.splits.some_images`).

    >>> from minddiff_utils.core.profile_files import load_profile
    >>> images_of(load_profile("nsd"), 1), images_of(load_profile("nsd"), 4)
    ((9841, 982), (9209, 907))
    >>> images_of(load_profile("nsd", {"data.n_images": 300}), 1)
    (300, 30)
    """
    n_images, n_test = _used(profile, subject)
    return n_images, min(profile.data.n_reconstruct or n_test, n_test)


def _used(profile: Profile, subject: int) -> tuple[int, int]:
    """Return the images of a real subject that are used, and how many of them test."""
    n_seen, n_other = images_seen(session_count(profile, subject))
    n_images = min(profile.data.n_images or n_seen, n_seen)
    return n_images, max(round(n_images * (1 - n_other / n_seen)), 2)


def n_trained(profile: Profile, subject: int) -> int:
    """Return the images of a real subject that train the decoders.

    >>> from minddiff_utils.core.profile_files import load_profile
    >>> few = {"data.n_images": 2000}
    >>> n_trained(load_profile("nsd"), 1), n_trained(load_profile("nsd", few), 1)
    (8000, 941)
    """
    n_images, n_test = _used(profile, subject)
    n_train = max(n_images - n_test - profile.data.n_validation, 0)
    return min(profile.data.n_train or n_train, n_train)


def n_reconstructed(profile: Profile, subject: int) -> int:
    """Return the images of a real or simulated subject that are reconstructed.

    >>> from minddiff_utils.core.profile_files import load_profile
    >>> n_reconstructed(load_profile("demo"), 1)
    60
    """
    if profile.simulation is None:
        return images_of(profile, subject)[1]
    n_test = profile.simulation.n_test_images
    return min(profile.data.n_reconstruct or n_test, n_test)


def session_count(profile: Profile, subject: int) -> int:
    """Return how many sessions of a real subject are read."""
    most = FACTS[subject].n_sessions
    return sum(k <= most for k in profile.data.session_numbers)


def feature_values(profile: Profile) -> int:
    """Return the values of c, z and Z_CLIP of one image, the decoders' targets."""
    return sum(target_counts(profile).values())


def target_counts(profile: Profile) -> dict[str, int]:
    """Return the targets of c, z and, all layers together, Z_CLIP."""
    clip = len(profile.features.clip_layers) * _CLIP_LAYER
    text = profile.models.n_tokens * _TEXT_WIDTH
    return {"c": text, "z": _LATENT, "clip": clip}


def _weights(profile: Profile, n_voxels: float) -> float:
    """Return the bytes of the stored decoders of one subject."""
    decoding, targets = profile.decoding, target_counts(profile)
    targets["clip"] = round(targets["clip"] * (decoding.k_percent or 100.0) / 100)
    if profile.decoder == "dense":
        return 4 * n_voxels * sum(targets.values())
    n_feat = {kind: getattr(decoding, f"n_feat_{kind}") for kind in targets}
    return float(
        sum(8 * n_feat[kind] * n for kind, n in targets.items())
    )  # index, weight


def kept(profile: Profile) -> dict[str, float]:
    """Return the bytes that notebooks 01 to 04 keep of all subjects, in words.

    Of a simulated profile, ConfigError.
    """
    _check(profile)
    seen, made = zip(*(images_of(profile, s) for s in profile.subjects), strict=True)
    features = feature_values(profile)
    pixels = 3 * profile.models.image_size**2
    n_decoded = sum(made) + len(made) * profile.data.n_validation
    shown = sum(min(n, profile.stage2.n_images_trajectory) for n in made)
    conditions = [r for r in compared() if r.engine and r.n_images != "paper"]
    aligned = [row for row in conditions if row.clip]  # these have trajectories
    frames = shown * profile.stage2.n_trajectory * len(aligned)
    voxels = [area_voxels(subject) for subject in profile.subjects]
    return {
        "responses": sum(4 * n * v for n, v in zip(seen, voxels, strict=True)),
        "stimuli at the generator's size": sum(seen) * pixels,
        "decoded features": 4 * 2 * features * n_decoded,
        "decoders": sum(_weights(profile, n) for n in voxels),
        "images": sum(made) * len(conditions) * _PNG * pixels,
        "trajectories": frames * pixels,
    }
