"""What a plan of stage 2 costs, as lines to print: tables, and what they rest on.

`cost` and `storage` count; here their numbers become words. `minddiff plan`
prints them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from minddiff_utils.core.profile import ModelConfig, Profile
from minddiff_utils.studies import cost, storage, timing_report
from minddiff_utils.studies.cost import Prediction
from minddiff_utils.studies.unit_rates import Rates

__all__ = ["plan_lines"]


def plan_lines(
    profile: Profile,
    rates: Rates | None,
    *,
    n_images: int | None,
    n_devices: int,
    rehearsed: Path,
) -> Iterator[str]:
    """Return the lines on what stage 2 of `profile` costs under each preset.

    Parameters
    ----------
    rates : Rates, optional
        How fast a device is; None: hours are unknown.
    n_images : int, optional
        Images per subject; None: as many as the profile reconstructs.
    n_devices : int
        Devices that work at once.
    rehearsed : Path
        Folder in which a rehearsal left its record, if there was one.
    """
    each = [n_images or storage.n_reconstructed(profile, s) for s in profile.subjects]
    predictions = [cost.predict(profile, preset, rates) for preset in cost.PRESETS]
    yield _title(profile, each)
    yield from _by_preset(predictions, sum(each), n_devices)
    yield from _by_condition(profile, each, rates)
    yield from _notes(predictions, profile)
    yield from _space(profile)
    yield from _rehearsed(rehearsed / "rehearsal.json", profile)


def _title(profile: Profile, n_images: Sequence[int]) -> str:
    few, many, models = min(n_images), max(n_images), profile.models
    of_each = f"{few}" if few == many else f"{few} to {many}"
    return (
        f"{profile.label()} · subjects {', '.join(map(str, profile.subjects))} ·"
        f" {of_each} images of each · {models.backbone} on {models.device},"
        f" U-Net in {models.dtype}, batches of {models.batch_size}"
    )


# --- tables -----------------------------------------------------------------------


def _by_preset(
    predictions: Sequence[Prediction], n_images: int, n_devices: int
) -> list[str]:
    """Return the table of presets: `n_images` of one condition, all subjects."""
    wall = f"wall h, {n_devices} devices" if n_devices > 1 else "wall h"
    first = ("preset", "U-Net evaluations", "gradients", "decodes", "TFLOP")
    rows: list[tuple[str, ...]] = [
        (*first, "s/image", "device h", wall, "peak GB", "rates")
    ]
    for one in predictions:
        counts, hours = one.work.counts, _per(one.seconds, 3600 / n_images)
        # images are independent, so that devices share them out
        measures = (
            _per(one.operations, 1e12),
            *(one.seconds, hours, _per(hours, n_devices)),
            _per(one.peak_bytes, 1e9),
        )
        passes = (counts.unet_forwards, counts.unet_backwards, counts.decode_forwards)
        cells = (*(f"{n:,}" for n in passes), *map(_number, measures))
        rows.append((one.preset, *cells, one.source))
    return _aligned(rows)


def _per(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


def _by_condition(
    profile: Profile, n_images: Sequence[int], rates: Rates | None
) -> list[str]:
    """Return what notebooks 03 and 04 run for all subjects, row by row, and the sum."""
    known = profile.models.backbone == "sd14"
    rows: list[tuple[str, ...]] = [
        ("condition", "images", "U-Net evaluations", "gradients", "device h", "")
    ]
    whole, hours = cost.Counts(), 0.0
    subjects = [cost.workloads(profile, n) for n in n_images]
    for same in zip(*subjects, strict=True):
        one, own = same[0], None
        counts = sum((each.counts for each in same), cost.Counts())
        if known and rates is not None:
            own = counts.weigh(rates.seconds, one.work.memory) / 3600
            hours += own
        whole += counts
        n = sum(each.n_images for each in same)
        unet = (f"{counts.unet_forwards:,}", f"{counts.unet_backwards:,}")
        rows.append((one.name, f"{n:,}", *unet, _number(own), ""))
    unet = (f"{whole.unet_forwards:,}", f"{whole.unet_backwards:,}")
    rows.append(("all", "", *unet, _number(hours or None), ""))
    return ["Notebooks 03 and 04, all subjects:", *map(str.rstrip, _aligned(rows))]


def _number(value: float | None) -> str:
    """Return three significant digits, an em dash where there is no number."""
    if value is None:
        return "—"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines: numbers to the right, first and last column left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *middle, last in rows:
        cells = [cell.rjust(w) for cell, w in zip(middle, widths[1:-1], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells, last]))
    return lines


# --- what the numbers rest on -----------------------------------------------------


def _notes(predictions: Sequence[Prediction], profile: Profile) -> list[str]:
    """Return what the tables' numbers rest on."""
    models = profile.models
    notes = [
        "Per image of one condition, at most: an image that stops by itself takes"
        " fewer. An evaluation that is done again for the gradient counts with the"
        " gradient."
    ]
    if models.backbone != "sd14":
        notes.append(
            "Rates and operations are known for Stable Diffusion v1-4 (backbone sd14)"
            f" alone, not for {models.backbone}."
        )
        return notes
    return [
        *notes,
        *_notes_on_speed(predictions, models),
        *_notes_on_memory(predictions, models),
    ]


def _notes_on_speed(
    predictions: Sequence[Prediction], models: ModelConfig
) -> list[str]:
    notes = []
    if any(one.seconds is None for one in predictions):
        notes.append(
            f"Nobody has measured a {models.device} device in this precision: hours are"
            " unknown. Measure yours with tests/benchmarks/stage2_sd14.py --out FILE"
            " and pass --rates FILE, or pass --tflops X for an estimate."
        )
    if any(one.source.startswith("estimate") for one in predictions):
        notes.append(
            "An estimate divides operations by a speed, nothing was measured: eager"
            " code stays well below the best product of a device."
        )
        one_speed = not any("in float32" in one.source for one in predictions)
        if one_speed and models.dtype != "float32":
            notes.append(
                "The autoencoder and CLIP compute in float32, and are taken to be as"
                " fast as the U-Net: say with --tflops-float32 how fast they are."
            )
    return notes


def _notes_on_memory(
    predictions: Sequence[Prediction], models: ModelConfig
) -> list[str]:
    notes = []
    if any(one.peak_source == "counted tensors" for one in predictions):
        notes.append(
            "Peak: weights and the values kept for the gradient, counted; what passes"
            " while computing comes on top."
        )
    if models.device == "cuda":
        notes.append(
            f"A peak is that of {models.n_at_once or 1} image(s) at once. As many of a"
            " batch go through as the free memory of the GPU holds; where two fit with"
            " all their values stored, a loop takes a third less time."
        )
    return notes


def _space(profile: Profile) -> list[str]:
    """Return what a run on the real data downloads, keeps and holds, in GB."""
    if profile.simulation is not None or profile.models.backbone != "sd14":
        return []
    lines = []
    for words, space in (
        ("To download, betas as hdf5", storage.to_download(profile)),
        ("To keep, an estimate", storage.kept(profile)),
    ):
        parts = ", ".join(f"{k} {v / 1e9:,.1f}" for k, v in space.parts.items())
        lines.append(f"{words}: {space.total / 1e9:,.0f} GB ({parts}).")
    held = ", ".join(
        f"{k} {v / 1e9:.1f} GB" for k, v in timing_report.held_at_once(profile).items()
    )
    lines.append(f"Memory of one job beside its models, at the least: {held}.")
    return lines


def _rehearsed(path: Path, profile: Profile) -> list[str]:
    """Return what a rehearsal on this machine says of the whole run, if there was."""
    if profile.simulation is not None or profile.models.backbone != "sd14":
        return []
    if not path.is_file():
        return [
            "Nobody has rehearsed it here: minddiff run --profile nsd --rehearse times"
            " every notebook on synthetic data of NSD's sizes."
        ]
    return timing_report.whole_run_words(timing_report.read_record(path), profile)
