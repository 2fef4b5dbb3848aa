"""What a plan of stage 2 costs, as lines to print: tables, and what they rest on.

`cost` and `storage` count; here their numbers become words. `minddiff plan`
prints them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from minddiff_utils.core.profile import Profile
from minddiff_utils.studies import cost, storage, timing_report
from minddiff_utils.studies.cost import Prediction
from minddiff_utils.studies.unit_rates import Rates

__all__ = ["plan_lines"]

_MEASURES = ["operations", "seconds", "peak_bytes"]


def plan_lines(
    profile: Profile,
    rates: Rates | None,
    *,
    n_images: int | None,
    n_devices: int,
    rehearsed: Path,
) -> Iterator[str]:
    """Return the lines on what stage 2 of `profile` costs under each preset.

    `rates` None: hours are unknown; `n_images` of a subject, None: as many as the
    profile reconstructs; `n_devices` work at once; `rehearsed`: folder in which a
    rehearsal left its record, if there was one.
    """
    each = [n_images or storage.n_reconstructed(profile, s) for s in profile.subjects]
    predictions = [cost.predict(profile, preset, rates) for preset in cost.PRESETS]
    few, many, models = min(each), max(each), profile.models
    of_each = f"{few}" if few == many else f"{few} to {many}"
    yield (
        f"{profile.label()} · subjects {', '.join(map(str, profile.subjects))} ·"
        f" {of_each} images of each · {models.backbone} on {models.device},"
        f" U-Net in {models.dtype}, batches of {models.batch_size}"
    )
    yield from _by_preset(predictions, sum(each), n_devices)
    yield from _by_condition(profile, each, rates)
    yield from _notes(predictions, profile)
    yield from _whole_run(profile, rehearsed / "rehearsal.json")


# --- tables -----------------------------------------------------------------------


def _by_preset(
    predictions: Sequence[Prediction], n_images: int, n_devices: int
) -> list[str]:
    """Return the table of presets: `n_images` of one condition, all subjects."""
    one = pd.DataFrame([vars(each) for each in predictions])
    counts = pd.DataFrame([vars(each.work.counts) for each in predictions])
    one[_MEASURES] = one[_MEASURES].astype(float)
    hours = one["seconds"] * n_images / 3600
    wall = f"wall h, {n_devices} devices" if n_devices > 1 else "wall h"
    table = {
        "U-Net evaluations": counts["unet_forwards"],
        "gradients": counts["unet_backwards"],
        "decodes": counts["decode_forwards"],
        "TFLOP": one["operations"] / 1e12,
        "s/image": one["seconds"],
        "device h": hours,
        wall: hours / n_devices,
        "peak GB": one["peak_bytes"] / 1e9,
        "rates": one["source"],
    }
    return _lines(pd.DataFrame(table).set_axis(one["preset"].tolist()), "preset")


def _by_condition(
    profile: Profile, n_images: Sequence[int], rates: Rates | None
) -> list[str]:
    """Return what notebooks 03 and 04 run for all subjects, row by row, and the sum."""
    known = profile.models.backbone == "sd14"
    each = rates.seconds if rates is not None and known else None
    rows = [
        {
            "condition": one.name,
            "images": one.n_images,
            "U-Net evaluations": one.counts.unet_forwards,
            "gradients": one.counts.unet_backwards,
            "device h": each and one.n_images * one.work.weigh(each) / 3600,
        }
        for n in n_images
        for one in cost.workloads(profile, n)
    ]
    table = pd.DataFrame(rows).groupby("condition", sort=False).sum(min_count=1)
    table.loc["all"] = table.sum(min_count=1)
    return ["Notebooks 03 and 04, all subjects:", *_lines(table, "condition")]


def _lines(table: pd.DataFrame, name: str) -> list[str]:
    """Return a table as lines, its index under `name`."""
    shown = table.map(_number).rename_axis(index=None, columns=name)
    return shown.to_string().splitlines()


def _number(value: float | str) -> str:
    """Return three significant digits, an em dash where there is no number."""
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return "—"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


# --- what the numbers rest on -----------------------------------------------------


def _notes(predictions: Sequence[Prediction], profile: Profile) -> list[str]:
    """Return what the tables' numbers rest on."""
    models = profile.models
    known = models.backbone == "sd14"
    sources = [one.source for one in predictions]
    estimated = any(source.startswith("estimate") for source in sources)
    one_speed = not any("in float32" in source for source in sources)
    notes = {
        "Per image of one condition, at most. An evaluation that is done again for the"
        " gradient counts with the gradient.": True,
        "Rates and operations are known for Stable Diffusion v1-4 (backbone sd14)"
        f" alone, not for {models.backbone}.": not known,
        f"Nobody has measured a {models.device} device in this precision: hours are"
        " unknown. Measure yours with tests/benchmarks/stage2_sd14.py --out FILE"
        " and pass --rates FILE, or pass --tflops X for an estimate.": known
        and any(one.seconds is None for one in predictions),
        "An estimate divides operations by a speed, nothing was measured: eager"
        " code stays well below the best product of a device.": estimated,
        "The autoencoder and CLIP compute in float32, and are taken to be as"
        " fast as the U-Net: say with --tflops-float32 how fast they are.": estimated
        and one_speed
        and models.dtype != "float32",
        "Peak: weights and the values kept for the gradient, counted; what passes"
        " while computing comes on top.": known
        and any(one.peak_is_counted for one in predictions),
        f"A peak is that of {models.n_at_once or 1} image(s) at once. As many of a"
        " batch go through as the free memory of the GPU holds; where two fit with"
        " all their values stored, a loop takes a third less time.": known
        and models.device == "cuda",
    }
    return [text for text, holds in notes.items() if holds]


def _whole_run(profile: Profile, rehearsed: Path) -> list[str]:
    """Return what a run on real data downloads, keeps, holds and takes, in GB and h."""
    if profile.simulation is not None or profile.models.backbone != "sd14":
        return []
    if profile.data_set != "nsd":
        return [
            "What is downloaded, with sizes: minddiff setup PATH --profile"
            f" {profile.name} --dry-run. Images are counted as NSD's."
        ]
    lines = []
    for words, space in (
        ("To download, betas as hdf5", storage.to_download(profile)),
        ("To keep, an estimate", storage.kept(profile)),
    ):
        parts = ", ".join(f"{k} {v / 1e9:,.1f}" for k, v in space.items())
        lines.append(f"{words}: {sum(space.values()) / 1e9:,.0f} GB ({parts}).")
    held = ", ".join(
        f"{k} {v / 1e9:.1f} GB" for k, v in timing_report.held_at_once(profile).items()
    )
    lines.append(f"Memory of one job beside its models, at the least: {held}.")
    if rehearsed.is_file():
        record = timing_report.read_record(rehearsed)
        return [*lines, *timing_report.whole_run_words(record, profile)]
    return [
        *lines,
        "Nobody has rehearsed it here: minddiff run --profile nsd --rehearse times"
        " every notebook on synthetic data of NSD's sizes.",
    ]
