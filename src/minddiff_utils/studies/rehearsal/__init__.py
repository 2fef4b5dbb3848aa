"""The run on NSD rehearsed: synthetic data of its sizes, random models, a few images.

`./run_all.sh --profile nsd --rehearse` runs every notebook as the real run would, in a
folder of its own, and says what each step took and what the whole run would take. It is
for whoever has the data or hopes for it: nothing of NSD is read, no weights are needed.
On a GPU the models have the real architecture; without one, thin copies stand in for
the U-Net, the autoencoder and the judge, so that the features and the decoders keep
their sizes and stages 1 and 2 run for the form alone. Place in the flow: layer 9, above
everything that a run measures; `cli` calls it.

`settings` says what is run, `enlarge` and `tree` write the data, `models` the models;
`fits` and `rates` time what a short run cannot tell, `account` makes the table.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict

from minddiff_utils.core import store
from minddiff_utils.core.config import Profile
from minddiff_utils.core.run import Run
from minddiff_utils.models.random import write_models
from minddiff_utils.studies.rehearsal.account import (
    Record,
    extrapolate,
    held_at_once,
    machine,
    read_record,
    read_steps,
    table,
    whole_peaks,
)
from minddiff_utils.studies.rehearsal.fits import FitTimes, time_fits
from minddiff_utils.studies.rehearsal.rates import measure_rates
from minddiff_utils.studies.rehearsal.settings import (
    NAME,
    Rehearsal,
    check_room,
    rehearse,
)
from minddiff_utils.studies.rehearsal.tree import write_tree
from minddiff_utils.studies.storage import n_reconstructed

__all__ = [
    "NAME",
    "Record",
    "Rehearsal",
    "check_room",
    "extrapolate",
    "finish",
    "fits_of",
    "held_at_once",
    "last_words",
    "prepare",
    "read_record",
    "rehearse",
    "table",
    "whole_run_words",
    "write_tree",
]

Say = Callable[[str], None]


def prepare(rehearsal: Rehearsal, say: Say) -> dict[str, float]:
    """Write data and models unless they are there; return the seconds of each.

    Raises
    ------
    RunError
        Disk or memory will not do; nothing was written.
    StoreError
        The folder cannot be written.
    """
    check_room(rehearsal)
    seconds = {}
    steps: tuple[tuple[str, Callable[[], object]], ...] = (
        ("synthetic data", lambda: write_tree(rehearsal)),
        (
            "random models",
            lambda: write_models(
                rehearsal.tree.models, rehearsal.kind, rehearsal.profile.seed
            ),
        ),
    )
    for name, write in steps:
        began = time.time()
        write()
        seconds[name] = time.time() - began
        say(f"{name}: there after {seconds[name]:.0f} s")
    return seconds


def finish(
    rehearsal: Rehearsal, preparing: dict[str, float], fits: FitTimes | None
) -> Record:
    """Account for what was run; write the table and the record; return the record.

    On a GPU the units of stage 2 are timed first.
    """
    profile = rehearsal.profile
    record = Record(
        date=time.strftime("%Y-%m-%d"),
        machine=machine(),
        kind=rehearsal.kind,
        subject=rehearsal.subject,
        n_sessions=profile.data.last_session,
        n_images=rehearsal.n_images,
        n_reconstruct=n_reconstructed(profile, rehearsal.subject),
        preparing=preparing,
        steps=read_steps(rehearsal.tree.notebooks),
        fits=fits,
    )
    run = Run(profile, rehearsal.tree, None, (0, 1))
    folder = rehearsal.report
    if profile.models.device == "cuda":
        rates = asdict(measure_rates(profile.models, rehearsal.tree.models))
        path = folder / "rates" / f"cuda_{profile.models.dtype}.json"
        store.write_text(path, json.dumps(rates, indent=1) + "\n", run=run)
    found = table(record, rehearsal.real)
    caption = f"Rehearsed on {record.machine}, {record.date}"
    store.write_table(folder / "rehearsal.csv", found, run=run, caption=caption)
    store.write_text(folder / "rehearsal.json", record.text(), run=run)
    return record


def fits_of(rehearsal: Rehearsal, say: Say) -> FitTimes:
    """Time the decoders at the real size."""
    say("decoders at the real size, a sample of targets: some minutes")
    return time_fits(rehearsal.real, rehearsal.subject)


# --- words ----------------------------------------------------------------------------


def whole_run_words(record: Record, profile: Profile) -> list[str]:
    """Return what the record says of the whole run under `profile`, as lines."""
    hours = extrapolate(record, profile)
    known = ", ".join(f"{k} {v:.2g} h" for k, v in hours.items() if v is not None)
    unknown = ", ".join(k for k, v in hours.items() if v is None)
    n = len(profile.subjects)
    who = "1 subject" if n == 1 else f"{n} subjects"
    lines = [
        f"Rehearsed on {record.machine}, {record.date}, with {record.n_images} images"
        f" of {record.n_sessions} session(s); for {who} one after the other: {known}."
    ]
    if unknown:
        lines.append(
            f"Not told by it: {unknown}; minddiff plan counts their hours by preset."
        )
    peaks = whole_peaks(record, profile)
    if peaks:
        each = ", ".join(f"{name} {gb:.1f} GB" for name, gb in peaks.items())
        lines.append(f"Peak memory of one job at the real size: {each}.")
    return lines


def last_words(rehearsal: Rehearsal, record: Record) -> list[str]:
    """Return what is left to say at the end of a rehearsal."""
    lines = whole_run_words(record, rehearsal.real)
    if rehearsal.kind == "thin":
        lines.append(
            "Without a GPU notebooks 03 on ran with thin models, for the form: their"
            " times say nothing of Stable Diffusion's."
        )
    lines.append(f"Table: {rehearsal.report / 'rehearsal.csv'}")
    lines.append(f"Delete the rehearsal's data, models and figures: {rehearsal.home}")
    return lines
