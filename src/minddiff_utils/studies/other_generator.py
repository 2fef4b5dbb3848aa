"""How much of a reconstruction is the generator's: the same features, another U-Net.

What one run decoded goes through a second U-Net that shares autoencoder and CLIP with
the first. The image of the run's own generator stands where the seen image stands
elsewhere: how like it are another draw of its noise, the other generator's image of the
same features, and images of other features? Not here: training a second U-Net
(`notebooks/appendix/demo_training.py`).
"""

from collections.abc import Iterator, Mapping

import pandas as pd

from minddiff_utils.core import provenance
from minddiff_utils.core.conditions import by_name
from minddiff_utils.core.errors import ConfigError
from minddiff_utils.core.run import Run, network_files
from minddiff_utils.evaluation.metrics import score_methods
from minddiff_utils.evaluation.subject_scores import embed_with
from minddiff_utils.generation import SubjectFeatures, generate
from minddiff_utils.models import Judge
from minddiff_utils.studies.again import finished_of
from minddiff_utils.studies.stage2_engines import ENDPOINTS

__all__ = ["likeness"]

#: The method that is stage 1 of the same generator, from other noise.
DRAW = "another draw"
_STAGES = ("stage1", "stage2")


def likeness(
    own: SubjectFeatures, others: Mapping[str, SubjectFeatures], judge: Judge
) -> pd.DataFrame:
    """Return how like an image of `own` others of the same features are.

    Parameters
    ----------
    own : SubjectFeatures
        Of the run that decoded.
    others : mapping
        Name -> the same features before another generator: a run of the same profile
        and subject whose `models.path` differs in the U-Net alone.
    judge : Judge

    Returns
    -------
    DataFrame
        Columns stage, subject, method (a name of `others`, or `DRAW`), nsd_id, metric,
        value, and floor: the same with own images of other features. Images without a
        number are left out.

    Raises
    ------
    ConfigError
        Another generator reads c or z with another CLIP or autoencoder, or there is
        no other U-Net in it.
    """
    for name, features in others.items():
        _check(name, features.run, own.run)
    tables = [_stage(stage, own, others, judge) for stage in _STAGES]
    return pd.concat(tables, ignore_index=True)


def _stage(
    stage: str,
    own: SubjectFeatures,
    others: Mapping[str, SubjectFeatures],
    judge: Judge,
) -> pd.DataFrame:
    row, run = by_name()[stage], own.run
    target = finished_of(generate(run, own.backbone, own, row), "truth")
    made = {name: generate(f.run, f.backbone, f, row) for name, f in others.items()}
    if stage == "stage1":
        again = by_name()["stage1_draw_2"]
        made[DRAW] = generate(run, own.backbone, own, again)
    shown = [finished_of(one, name, target.nsd_id) for name, one in made.items()]
    look = {"clip_judge": embed_with(judge, run.profile.models.batch_size)}
    table = score_methods(run.subject or 0, shown, target, look).table
    table = table[table["metric"].isin(ENDPOINTS)].assign(stage=stage)
    return table[["stage", "subject", "method", "nsd_id", "metric", "value", "floor"]]


def _check(name: str, other: Run, own: Run) -> None:
    """Raise ConfigError unless the U-Net differs and nothing else does."""
    ours, theirs = (dict(_weights(run)) for run in (own, other))
    differs = {k for k in {*ours, *theirs} if ours.get(k) != theirs.get(k)}
    others = sorted(k for k in differs if not k.startswith("unet/"))
    if others:
        raise ConfigError(
            f"The models of {name} in {other.tree.models} differ in {others[0]}: only"
            " the U-Net may, or the decoded features would mean something else."
        )
    if ours and not differs:
        raise ConfigError(
            f"The models of {name} in {other.tree.models} are those of the run: name a"
            " folder with another U-Net (models.path)."
        )


def _weights(run: Run) -> Iterator[tuple[str, str]]:
    kind = run.profile.models.backbone
    for path in network_files(run.tree.models, kind):
        if path.suffix == ".safetensors":
            name = path.relative_to(run.tree.models / kind).as_posix()
            yield name, provenance.digest_file(path)
