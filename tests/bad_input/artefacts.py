"""What a run's own artefacts may have wrong, met by the notebooks that read them."""

import numpy as np

from minddiff_utils import evaluation
from minddiff_utils.core import store
from minddiff_utils.evaluation.images import read_stimuli
from minddiff_utils.reporting import galleries, report_contents, surface_maps

from .case import Act, Case
from .world import (
    Damage,
    World,
    a_dangling_link,
    a_flipped_bit,
    a_folder,
    a_loop,
    as_table,
    cut,
    gone,
    h5,
    holds,
    png,
    unlisted,
    without,
    words,
)

DERIVED, FIGURES = "data/smoke/derived/subj01", "figures/smoke"
TABLES = f"{FIGURES}/tables"
RESPONSES, STIMULI = f"{DERIVED}/responses.h5", f"{DERIVED}/stimuli.h5"
DECODED, SYSTEMS = f"{DERIVED}/decoded.h5", f"{DERIVED}/decoded_systems.h5"
DECODERS, STAGE1 = f"{DERIVED}/decoders.h5", f"{DERIVED}/stage1.csv"
LEDGER = f"{FIGURES}/claims.csv"
CLAIMS = ("claims", "--profile", "smoke")
DAMAGED = "is damaged and cannot be read"
IMAGE = f"{DERIVED}/stage2/*.png"
RECORD = f"{FIGURES}/notebooks/03_stage1_subj01.run.json"


def decode(world: World) -> None:
    """Notebook 02, up to the voxels."""
    world.play("02", last=4)


def reconstruct(world: World) -> None:
    """Notebook 03, up to the images of all conditions."""
    world.play("03", last=4)


def check_completeness(world: World) -> object:
    """Return the finished subjects, as notebook 05 begins."""
    return evaluation.check_completeness(world.start(None))


def see(world: World) -> object:
    """Read the images of notebook 05."""
    return read_stimuli(world.start(None), 1)


def show(world: World) -> object:
    """Make the rows of a gallery, as notebooks 03 to 06 do."""
    rows = {"truth": "seen", "stage1": "stage 1", "stage2": "stage 2"}
    return evaluation.gallery(world.start(None), 1, rows, n=2)


def gather(world: World) -> object:
    run = world.start(None)
    return evaluation.gather(run, "accuracy.csv"), evaluation.gather_costs(run)


def time(world: World) -> object:
    return evaluation.notebook_seconds(world.start(None))


def floor(world: World) -> object:
    return evaluation.category_floor(world.start(None), 1)


def weigh(world: World) -> object:
    return surface_maps.weight_maps(world.start(None), 1)


def panels(world: World) -> object:
    run = world.start(None)
    scores = store.read_table(run.tree.tables / "scores.csv")
    return galleries.method_panels(run, 1, scores)


def report(world: World) -> object:
    """Make the page, as notebook 06 ends."""
    return report_contents.build_report(world.start(None), surface_maps.CorticalMaps(1))


def pick(world: World) -> object:
    run = world.start(None)
    return galleries.select_for_gallery(
        1, store.read_table(run.tree.tables / "scores.csv")
    )


def _case(
    act: Act,
    path: str,
    damage: Damage,
    found: str = DAMAGED,
    remedy: str = "move it away and run",
    names: str = "",
) -> Case:
    return Case(act, found, remedy, path, unlisted(damage), names)


def _changed(act: Act, path: str, damage: Damage) -> Case:
    """Return the case of a file that is not what its manifest says."""
    return Case(act, DAMAGED, "move it away and run again", path, damage)


CASES = {
    # what manifests tell
    "responses with a flipped bit": _changed(decode, RESPONSES, a_flipped_bit),
    "decoded with a flipped bit": _changed(reconstruct, DECODED, a_flipped_bit),
    "an image with a flipped bit": _changed(show, IMAGE, a_flipped_bit),
    "a figure with a flipped bit": _changed(
        report, f"{FIGURES}/method.png", a_flipped_bit
    ),
    "a table with a flipped bit": _changed(check_completeness, STAGE1, a_flipped_bit),
    "a ledger edited by hand": _changed(
        CLAIMS, LEDGER, words("supported", "SUPPORTED")
    ),
    "another image in its place": _changed(show, IMAGE, png((64, 64, 3))),
    # responses.h5 and stimuli.h5
    "responses gone": _case(decode, RESPONSES, gone, "does not exist", "run the note"),
    "responses cut short": _case(decode, RESPONSES, cut),
    "responses empty": _case(decode, RESPONSES, holds(""), "is empty"),
    "responses of text": _case(decode, RESPONSES, holds("no numbers here")),
    "responses a folder": _case(
        decode, RESPONSES, a_folder, "is no file", "move it away"
    ),
    "responses a loop": _case(
        decode, RESPONSES, a_loop, "a link to nothing", "mount the disk"
    ),
    "responses a link to nothing": _case(
        decode, RESPONSES, a_dangling_link, "a link to nothing", "mount the disk"
    ),
    "responses without a split": _case(
        decode, RESPONSES, h5("split", None), "lacks split"
    ),
    "responses without betas": _case(
        decode, RESPONSES, h5("betas", None), "lacks betas"
    ),
    "responses without test images": _case(
        decode,
        RESPONSES,
        h5("split", lambda v: np.full(v.shape, b"train")),
        "no test images",
        "run notebook 01",
    ),
    "stimuli without captions": _case(
        decode, STIMULI, h5("captions", None), "lacks captions"
    ),
    "stimuli without images": _case(
        decode, STIMULI, h5("images", None), "lacks images"
    ),
    # decoded.h5
    "decoded cut short": _case(reconstruct, DECODED, cut),
    "decoded without c": _case(
        reconstruct, DECODED, h5("c/decoded", None), "lacks c/decoded"
    ),
    "decoded of another shape": _case(
        reconstruct,
        DECODED,
        h5("z/decoded", lambda v: v[:, :-1]),
        "z/decoded",
        "notebook 02",
    ),
    "decoded of one image": _case(
        reconstruct,
        DECODED,
        h5("nsd_id", lambda v: v[:1]),
        "shape (",
        "run notebook 02 again",
    ),
    "other systems without pixels": _case(
        reconstruct, SYSTEMS, h5("pixel_ridge", None), "lacks pixel_ridge"
    ),
    "other systems of other images": _case(
        reconstruct,
        SYSTEMS,
        h5("nsd_id", lambda v: v[::-1]),
        "not of the images to reconstruct",
        "run notebook 02",
    ),
    # what evaluation reads
    "stage 1's table gone": _case(
        check_completeness, STAGE1, gone, "does not exist", "run the notebook"
    ),
    "stage 1's table empty": _case(check_completeness, STAGE1, holds(""), "is empty"),
    "stage 1's table not UTF-8": _case(check_completeness, STAGE1, holds(b"a\n\xff\n")),
    "stage 1's table without methods": _case(
        check_completeness, STAGE1, without("method"), "lacks the column method"
    ),
    "stage 1's table of other images": _case(
        check_completeness,
        STAGE1,
        as_table(lambda t: t.assign(nsd_id=1)),
        "other ones",
        "run notebooks 03 and 04",
    ),
    "accuracy gone": _case(
        check_completeness,
        f"{DERIVED}/accuracy.csv",
        gone,
        "does not exist",
        "run notebooks 02 to 04",
    ),
    "accuracy damaged": _case(
        gather, f"{DERIVED}/accuracy.csv", holds("a,b\n1,2\n1,2,3\n")
    ),
    "stimuli of other images": _case(
        see,
        STIMULI,
        h5("nsd_id", lambda v: v + 1),
        "do not belong together",
        "run notebooks 01 and 02",
    ),
    "decoded without neighbours": _case(
        reconstruct, DECODED, h5("retrieval_nsd_id", None), "lacks retrieval_nsd_id"
    ),
    "captions of other images": _case(
        floor,
        STIMULI,
        h5("nsd_id", lambda v: v + 1),
        "do not belong together",
        "run notebooks 01 and 02",
    ),
    "an image cut short": _case(show, IMAGE, cut),
    "an image of text": _case(show, IMAGE, holds("no picture")),
    "an image gone": _case(
        show, IMAGE, gone, "holds 1 of 2 images", "run notebooks 03", "stage2"
    ),
    "an image of another size": _case(
        show,
        IMAGE,
        png((4, 4, 3)),
        "different sizes",
        "move it away and run notebooks 03",
        "stage2",
    ),
    "a notebook's record cut short": _case(
        time, RECORD, holds('{"seconds": '), "seconds"
    ),
    "a notebook's record without seconds": _case(time, RECORD, holds("{}"), "seconds"),
    "a notebook's record of a list": _case(time, RECORD, holds("[1]"), "seconds"),
    # what the report shows
    "decoders without weights": _case(
        weigh, DECODERS, h5("z/voxel_weight", None), "lacks z/voxel_weight"
    ),
    "decoders of no weight": _case(
        weigh,
        DECODERS,
        h5("c/voxel_weight", lambda v: v * 0),
        "all zero",
        "run notebook 02 again",
    ),
    "trajectories without losses": _case(
        panels, f"{DERIVED}/trajectories.h5", h5("stage2/losses", None), "lacks stage2"
    ),
    "scores without values": _case(
        pick, f"{TABLES}/scores.csv", without("value"), "value", "notebook 05", "scores"
    ),
    "scores of no subject": _case(
        pick, f"{TABLES}/scores.csv", without("subject"), "", "notebook 05", "scores"
    ),
    "a figure gone": _case(
        report, f"{FIGURES}/method.png", gone, "does not exist", "run the notebook"
    ),
    "a figure of text": _case(report, f"{FIGURES}/method.png", holds("no picture" * 9)),
    "a figure cut short": _case(report, f"{FIGURES}/method.png", cut),
    "a figure a folder": _case(
        report, f"{FIGURES}/method.png", a_folder, "is no file", "move it away"
    ),
    "a table of the report empty": _case(
        report, f"{TABLES}/T1_comparison.csv", holds(""), "is empty"
    ),
    "a table of the report without its numbers": _case(
        report,
        f"{TABLES}/T1_comparison.csv",
        without("value"),
        "lacks the column value",
    ),
    "a table of the report of unequal rows": _case(
        report, f"{TABLES}/T1_comparison.csv", holds("a,b\n1\n2,3,4\n")
    ),
    "a table not UTF-8": _case(report, f"{TABLES}/sanity.csv", holds(b"a\n\xff\n")),
    "the ledger without profile": _case(
        report, LEDGER, without("profile"), "lacks the column profile"
    ),
    "the ledger without verdicts": _case(
        report, LEDGER, without("verdict"), "lacks the column verdict"
    ),
    # minddiff claims
    "no ledger": _case(CLAIMS, LEDGER, gone, "does not exist", "run the notebook"),
    "an empty ledger": _case(CLAIMS, LEDGER, holds(""), "is empty"),
    "a ledger without verdicts": _case(
        CLAIMS,
        LEDGER,
        without("verdict"),
        "lacks the column verdict",
    ),
}
