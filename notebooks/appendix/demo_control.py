"""The control run of the demo's U-Net: what learning from c gives; another generator.

    python demo_control.py

Before it, train both arms (`demo_training.py unet --control ...`) and run the demo to
notebook 04 of all subjects. Each arm's U-Net makes validation images of every subject
from decoded features, beside the shipped autoencoder, CLIP and judge; what is written
to `data/study/<profile>/control.csv` is the arm that learned from c as decoded minus
the one that never did, paired by image, for stage 1, the posterior of c, and `bayes`.
In `generators.csv`: how like the run's own images those of both arms are, which begin
from other random weights (appendix A5).
"""

import shutil
from pathlib import Path

import demo_training
import pandas as pd
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from minddiff_utils import start
from minddiff_utils.core import store
from minddiff_utils.core.run import Run
from minddiff_utils.evaluation.summaries import contrast_table, summarise
from minddiff_utils.generation import SubjectFeatures, generate
from minddiff_utils.models import Judge, load_backbone, load_judge
from minddiff_utils.models.weights import write_digests
from minddiff_utils.studies.other_generator import likeness
from minddiff_utils.studies.stage2_arms import arms_of
from minddiff_utils.studies.stage2_engines import ENDPOINTS, score_arms

ARMS = ("corrupted", "uncorrupted")
PROFILE = "demo"


def write_models(arm: str) -> Path:
    """Write the shipped models with an arm's U-Net; return the folder of folders."""
    folder = demo_training.WORK / arm
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(demo_training.MODELS, folder / "demo")
    unet = UNet2DConditionModel(**demo_training.UNET_CONFIG)
    unet = demo_training.load_average(f"unet_{arm}", unet)
    weights = folder / "demo" / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({k: v.contiguous() for k, v in unet.state_dict().items()}, weights)
    write_digests(folder / "demo")
    return folder


def score(arm: str, subject: int) -> pd.DataFrame:
    """Return the scores of an arm's images, with the arm in each method's name."""
    features = opened(subject, arm, decoded="decoded_validation.h5")
    run = features.run
    given = (run, features.backbone, features)
    made = [generate(*given, row) for row in arms_of(run.profile, "heldout")]
    scores = score_arms(features, judge_of(run), made)
    return scores.assign(method=scores["method"] + ", " + arm)


def opened(
    subject: int, arm: str = "", *, decoded: str = "decoded.h5"
) -> SubjectFeatures:
    """Return what a subject's run decoded, before the shipped models or an arm's.

    Of validation images as many as the study's pilot has.
    """
    overrides = {"models.path": str(demo_training.WORK / arm)} if arm else {}
    run = start(PROFILE, subject=subject, overrides=overrides)
    n = run.profile.study.n_images_pilot if decoded != "decoded.h5" else None
    backbone = load_backbone(run.profile.models, run.tree.models)
    return SubjectFeatures(run, backbone, decoded=decoded, n=n)


def judge_of(run: Run) -> Judge:
    return load_judge(run.tree.models, kind=run.profile.models.backbone)


def alike(subject: int) -> pd.DataFrame:
    """Return how like the shipped generator's images those of the arms are."""
    own = opened(subject)
    others = {arm: opened(subject, arm) for arm in ARMS}
    return likeness(own, others, judge_of(own.run))


def write_generators() -> None:
    """Write the table of appendix A5."""
    run = start(PROFILE)
    scores = pd.concat([alike(s) for s in run.profile.subjects], ignore_index=True)
    sure = {"confidence": run.profile.evaluation.confidence, "ceilings": {}}
    tables = [
        summarise(own, **sure).assign(stage=stage)
        for stage, own in scores.groupby("stage")
    ]
    table = pd.concat(tables, ignore_index=True)
    store.write_table(run.tree.study / "generators.csv", table, run=run)
    print(table[table["subject"] == "all"].round(3).to_string())


def main() -> None:
    torch.set_num_threads(1)
    for arm in ARMS:
        write_models(arm)
    write_control()
    write_generators()


def write_control() -> None:
    """Write what the arm that learned from c as decoded has above the other."""
    run = start(PROFILE)
    tables = [score(arm, s) for s in run.profile.subjects for arm in ARMS]
    scores = pd.concat(tables, ignore_index=True)
    scores = scores[scores["metric"].isin((*ENDPOINTS, "named_by_judge"))]
    # subjects share no validation image: the images of all of them are one sample
    ids = scores["subject"].astype(int) * 100_000 + scores["nsd_id"]
    scores = scores.assign(nsd_id=ids, subject="all subjects")
    rows = [row.name for row in arms_of(run.profile, "heldout")]
    pairs = [tuple(f"{row}, {arm}" for arm in ARMS) for row in rows]
    store.write_table(
        run.tree.study / "control.csv", contrast_table(scores, pairs), run=run
    )
    means = scores.groupby(["method", "metric"])["value"].mean().unstack()
    print(means.round(3).to_string())


if __name__ == "__main__":
    main()
