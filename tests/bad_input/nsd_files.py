"""What NSD's files may have wrong, met by notebook 01; `test_check` tries the check.

Each is a file of an in-silico folder of NSD's own layout.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .case import Case
from .world import (
    Damage,
    World,
    a_dangling_link,
    a_file_for_its_folder,
    a_folder,
    a_loop,
    as_json,
    as_table,
    cut,
    gone,
    h5,
    h5_only,
    holds,
    matlab,
    volume,
    words,
)

NSD = "data/smoke/nsd"
EXPERIMENT = f"{NSD}/nsddata/experiments/nsd"
DESIGN, TABLE = (
    f"{EXPERIMENT}/nsd_expdesign.mat",
    f"{EXPERIMENT}/nsd_stim_info_merged.csv",
)
BETAS = f"{NSD}/nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR"
SESSION, NCSNR = f"{BETAS}/betas_session01.hdf5", f"{BETAS}/ncsnr.nii.gz"
ROI = f"{NSD}/nsddata/ppdata/subj01/func1pt8mm/roi"
KASTNER, PRF = f"{ROI}/Kastner2015.nii.gz", f"{ROI}/prf-visualrois.nii.gz"
STIMULI = f"{NSD}/nsddata_stimuli/stimuli/nsd"
BRICK, COCO = (
    f"{STIMULI}/nsd_stimuli.hdf5",
    f"{STIMULI}/annotations/captions_val2017.json",
)
BEHAVIOUR = f"{NSD}/nsddata/ppdata/subj01/behav/responses.tsv"
CTAB = f"{NSD}/nsddata/freesurfer/subj01/label/Kastner2015.mgz.ctab"
AGAIN = REPLACE = "simulate the folder again"
NAME, MOVE = "name the right folder", "move the folder aside"
EMPTY, COMPARE = "zeros or one value throughout", "compare it with its source"
_XYZ = (None, None, None)


def prepare(world: World) -> None:
    world.play("01")


def gone_in_all_forms(path: Path) -> None:
    """Delete a volume of regions, and those of its hemispheres."""
    for form in path.parent.glob(f"*{path.name}"):
        form.unlink()


def _case(
    path: str,
    damage: Damage,
    found: str,
    remedy: str,
    names: str = "",
) -> Case:
    return Case(prepare, found, remedy, path, damage, names)


def _notes(change: object) -> Damage:
    """Replace COCO's annotations, by a function of them or by something else."""

    def changed(raw: dict[str, Any]) -> dict[str, Any]:
        new = change(raw["annotations"]) if callable(change) else change
        return raw | {"annotations": new}

    return as_json(changed)


def _one_picture(table: pd.DataFrame) -> pd.DataFrame:
    """Give shared images the picture of one that is not, seen in the first session."""
    seen = table["subject1_rep0"].between(1, 750) & ~table["shared1000"]
    columns = ["cocoId", "cocoSplit"]
    table.loc[table["shared1000"], columns] = table.loc[seen, columns].iloc[0].tolist()
    return table


CASES = {
    # the experiment's design
    "design gone": _case(DESIGN, gone, "not found", NAME),
    "design cut short": _case(DESIGN, cut, "truncated or not", AGAIN),
    "design a folder": _case(DESIGN, a_folder, "Is a directory", MOVE),
    "design without order": _case(
        DESIGN, matlab("masterordering", None), "a variable", REPLACE
    ),
    "design of NaN": _case(
        DESIGN,
        matlab("masterordering", lambda v: v * np.nan),
        "no numbers in",
        REPLACE,
    ),
    "design beyond the last image": _case(
        DESIGN, matlab("subjectim", lambda v: v + 70_000), "to 143000 in", REPLACE
    ),
    "design of other shared images": _case(
        DESIGN, matlab("sharedix", lambda v: v + 1), "other shared images", REPLACE
    ),
    # the table of stimuli
    "table gone": _case(TABLE, gone, "not found", NAME),
    "table not UTF-8": _case(TABLE, holds(b"a,b\n\xff,\xfe\n"), "truncated", AGAIN),
    "table without cocoId": _case(
        TABLE, words("cocoId", "coco_id", 1), "a column cocoId", REPLACE
    ),
    "table cut short": _case(TABLE, cut, "73000", "expected"),
    "table of trials in words": _case(
        TABLE,
        as_table(
            lambda t: (
                t.assign(subject1_rep0="first").set_index("Unnamed: 0").reset_index()
            )
        ),
        "subject1_rep0",
        REPLACE,
    ),
    "table with a test picture in training": _case(
        TABLE,
        as_table(_one_picture),
        "COCO pictures in test and training (nsd_id",
        "data.leaks to report",
    ),
    # behaviour
    "behaviour without sessions": _case(
        BEHAVIOUR, words("SESSION", "DAY"), "a column SESSION", REPLACE
    ),
    "behaviour of other images": _case(
        BEHAVIOUR,
        as_table(lambda t: t.assign(**{"73KID": t["73KID"] + 1}), "\t"),
        "names other images",
        "use the two files of one release",
    ),
    "behaviour a folder": _case(BEHAVIOUR, a_folder, "Is a directory", MOVE),
    # betas
    "betas cut short": _case(SESSION, cut, "truncated or not", AGAIN),
    "betas a folder": _case(SESSION, a_folder, "Is a directory", MOVE),
    "betas a loop": _case(SESSION, a_loop, "Too many levels", "mend the link"),
    "betas a link to nothing": _case(
        SESSION, a_dangling_link, "link to nothing (not fetched)", "mend the link"
    ),
    "betas under another name": _case(
        SESSION, h5_only("beta", (3,), "i2"), "beta, but a dataset", REPLACE
    ),
    "betas of float": _case(
        SESSION, h5_only("betas", (3,), "f4"), "float32 betas", REPLACE
    ),
    "betas of a trial less": _case(
        SESSION, h5_only("betas", (749, 1, 1, 1), "i2"), "749", "is expected"
    ),
    "betas of zeros": _case(SESSION, h5("betas", lambda v: v * 0), EMPTY, COMPARE),
    "betas of half a session": _case(
        SESSION,
        h5("betas", lambda v: v * (np.arange(750) < 400)[:, *_XYZ]),
        EMPTY,
        COMPARE,
    ),
    "betas of half a brain": _case(
        SESSION,
        h5("betas", lambda v: v * (np.arange(v.shape[1]) % 2 > 0)[:, *_XYZ[1:]]),
        EMPTY,
        COMPARE,
    ),
    "betas beyond int16": _case(
        SESSION,
        h5("betas", lambda v: (np.sign(v.astype(int)) * 32767).astype(np.int16)),
        "at the limits of int16",
        COMPARE,
    ),
    "no session at all": _case(
        SESSION,
        a_file_for_its_folder,
        "lacks the betas of session 1",
        NAME,
        BETAS[-25:],
    ),
    # volumes
    "ncsnr below zero": _case(
        NCSNR, volume(lambda v: v * 0 - 1), "negative or infinite", REPLACE
    ),
    "ncsnr on another grid": _case(
        NCSNR, volume(lambda v: v[1:]), "has shape", "is expected", "ncsnr"
    ),
    "regions turned round": _case(
        KASTNER, volume(lambda v: v[::-1], -1), "lie in different spaces", "resaved"
    ),
    "ncsnr turned round": _case(
        NCSNR, volume(lambda v: v[::-1], -1), "lie in different spaces", "resaved"
    ),
    "regions of NaN": _case(
        KASTNER, volume(lambda v: v * np.nan), "NaN or infinite", REPLACE
    ),
    "regions with no label": _case(
        KASTNER, volume(lambda v: v + 90), "-1, 0 or a label", REPLACE
    ),
    "drawn regions gone": _case(PRF, gone_in_all_forms, "not found", NAME),
    "colour table in words": _case(CTAB, words("1 V1v", "one V1v"), "truncated", AGAIN),
    "colour table empty": _case(CTAB, holds(""), "is empty", AGAIN),
    "colour table of the background": _case(
        CTAB, holds("0 Unknown\n"), "no label at all, but", REPLACE
    ),
    "colour table in lower case": _case(
        CTAB, words(" V", " v"), "v1v, v1d", "a label V1v, V1d, V2v"
    ),
    "colour table with a name twice": _case(
        CTAB, words("2 V1d", "2 V1v"), "2 V1v gives a name", AGAIN
    ),
    # images and captions
    "stimuli gone": _case(BRICK, gone, "not found", NAME),
    "stimuli cut short": _case(BRICK, cut, "truncated or not", AGAIN),
    "stimuli too few": _case(
        BRICK,
        h5_only("imgBrick", (9, 8, 8, 3), "u1"),
        "must lie in 0..8",
        "use files of",
    ),
    "stimuli of float": _case(
        BRICK, h5_only("imgBrick", (73_000, 8, 8, 3), "f4"), "float32 of shape", REPLACE
    ),
    "captions gone": _case(COCO, gone, "not found", NAME),
    "captions cut short": _case(COCO, cut, "truncated or not", AGAIN),
    "captions of a number": _case(COCO, holds("5"), "caption annotations", REPLACE),
    "captions of none": _case(
        COCO, _notes([]), "There are 0 captions", "of the release", "annotations"
    ),
    "captions without text": _case(
        COCO, words('"caption"', '"title"'), "caption", REPLACE
    ),
    "captions with two texts for one id": _case(
        COCO,
        _notes(lambda notes: [*notes, notes[0] | {"caption": "a"}]),
        "two different annotations with the id",
        REPLACE,
    ),
    "captions in brackets without end": _case(
        COCO,
        holds("[" * 100_000),
        "truncated",
        AGAIN,
    ),
}
