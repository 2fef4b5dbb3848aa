"""What the last notebook shows: a run's artefacts gathered for figures and the report.

Reads artefacts and arranges them; draws nothing and decides nothing. Place in the flow:
layer 9, above `evaluation`, `cortex` and `report`; notebook 06.
"""

from collections.abc import Mapping

import numpy as np

from minddiff_utils import provenance, store
from minddiff_utils.config import AREAS
from minddiff_utils.cortex import CorticalData
from minddiff_utils.errors import StoreError
from minddiff_utils.evaluation import gallery, gather
from minddiff_utils.figures import MethodPanels
from minddiff_utils.report import FigureItem, Section, TableItem, render_report

__all__ = ["build_report", "method_panels", "weight_maps"]

#: Figure of the report -> its caption; `{subject}` stands for the first subject.
_OVERVIEW = {
    "method": "The method on one test image of subject {subject}.",
    "gallery": "Subject {subject}: first test images, not selected. Rows are methods.",
    "gallery_subjects": "The same test images in every subject, stage 2.",
}
_SCORES = {
    "comparison": "Every method over all subjects, with floor and ceiling.",
    "stage2_gain": "Stage 2 minus stage 1 on the same images.",
    "subjects": "Stage 1 and stage 2 in each subject.",
    "quality_vs_accuracy": "Decoding accuracy and quality of the subjects.",
}
_DECODING = {
    "accuracy_subj{subject:02d}": "Accuracy by feature and area set, with chance and"
    " ceiling, subject {subject}.",
    "histograms_subj{subject:02d}": "Accuracy of all targets, subject {subject}.",
    "decoders_subj{subject:02d}": "Five decoders on the same targets, and the rank of"
    " their predictions, subject {subject}.",
    "holdout_subj{subject:02d}": "Categories that were trained on, and that were not,"
    " subject {subject}.",
    "k_selection": "Accuracy and information against k.",
    "weights_subj{subject:02d}": "Decoder weights by area, subject {subject}.",
}
_STAGES = {
    "stage1_subj{subject:02d}": "Stage 1 and its parts, subject {subject}.",
    "losses_subj{subject:02d}": "Structural loss along stage 2, subject {subject}.",
    "trajectory_subj{subject:02d}": "Images along stage 2, subject {subject}.",
    "stage2_subj{subject:02d}": "Stage 2, its ceiling and floor, subject {subject}.",
}
_CORTEX = {
    "cortex_flat": "Decoder weights on the flattened cortex, subject {subject}.",
    "cortex_inflated": "The same on the inflated surface.",
}
_DATA = {
    "roi_counts_subj{subject:02d}": "Voxels by area, subject {subject}.",
    "reliability_subj{subject:02d}": "Noise ceilings by area, subject {subject}.",
}


def method_panels(run: store.Run, subject: int) -> MethodPanels:
    """Return the pictures and curves of a subject's first test image.

    Raises
    ------
    StoreError
        An image or an array of the subject is missing.
    """
    folder = run.tree.derived(subject)
    names = ("truth", "z_only", "c_only", "stage1", "stage2")
    made = gallery(run, subject, {name: name for name in names}, n=1)
    stored = store.read_arrays(folder / "responses.h5", ["betas", "split"])
    paths = store.read_arrays(folder / "trajectories.h5", ["stage2/losses"])
    return MethodPanels(
        seen=made["truth"][0],
        z_only=made["z_only"][0],
        c_only=made["c_only"][0],
        stage1=made["stage1"][0],
        stage2=made["stage2"][0],
        responses=stored["betas"][stored["split"] == "test"][0],
        losses=paths["stage2/losses"][0],
    )


def weight_maps(run: store.Run, subject: int) -> CorticalData:
    """Return each voxel's weight over the mean: c, z and the lowest CLIP layer.

    Raises
    ------
    StoreError
        An artefact is missing, or a feature's weights are all zero.
    """
    folder = run.tree.derived(subject)
    lowest = f"clip/{run.profile.features.clip_layers[0]}"
    names = {"c": "c", "z": "z", "lowest CLIP layer": lowest}
    keys = [f"{name}/voxel_weight" for name in names.values()]
    weights = store.read_arrays(folder / "decoders.h5", keys)
    voxels = store.read_arrays(folder / "responses.h5", ["voxel_ijk", "roi"])
    found = {words: weights[f"{name}/voxel_weight"] for words, name in names.items()}
    for words, weight in found.items():
        if not np.any(weight):
            raise StoreError(
                f"{folder / 'decoders.h5'}: the weights of {words} are all zero, so no"
                " voxel's share can be shown: run notebook 02 again with a lower"
                " decoding.alpha."
            )
    values = {words: w / np.mean(w) for words, w in found.items()}
    return CorticalData(voxels["voxel_ijk"], voxels["roi"], AREAS, values)


# --- the report -----------------------------------------------------------------------


def _figures(run: store.Run, captions: Mapping[str, str]) -> list[FigureItem]:
    subject = run.profile.subjects[0]
    items = []
    for pattern, words in captions.items():
        name = pattern.format(subject=subject)
        png = store.read_bytes(run.tree.figures / f"{name}.png")
        items.append(FigureItem(name, png, words.format(subject=subject)))
    return items


def _table(run: store.Run, name: str, caption: str) -> TableItem:
    return TableItem(name, store.read_table(run.tree.tables / f"{name}.csv"), caption)


def _claims(run: store.Run) -> Section:
    ledger = store.read_table(run.tree.figures / "claims.csv")
    return Section(
        "The claims of the paper, here",
        [
            "One row per claim. A directional claim is supported only where its null"
            " fails; numbers from in-silico subjects are not compared with the paper.",
        ],
        [TableItem("claims", ledger.drop(columns="profile"), "The claims ledger.")],
    )


def _sections(run: store.Run) -> list[Section]:
    sanity = _table(run, "sanity", "Each check, what was expected and what was seen.")
    compared = store.read_table(run.tree.tables / "comparison.csv")
    pooled = compared[compared["subject"].astype(str) == "all"]
    scores = TableItem("comparison", pooled, "Scores over all subjects.")
    paired = _table(run, "paired", "Stage 2 minus stage 1, pairs of images.")
    frechet = _table(run, "frechet", "Fréchet distances by the judge's features.")
    accuracy = TableItem(
        "accuracy", gather(run, "accuracy.csv"), "Decoding accuracy of all subjects."
    )
    return [
        Section("The method and what it makes", (), (), _figures(run, _OVERVIEW)),
        _claims(run),
        Section("What a sceptic asks first", (), [sanity]),
        Section("Scores", (), [scores, paired, frechet], _figures(run, _SCORES)),
        Section("Decoding", (), [accuracy], _figures(run, _DECODING)),
        Section("The two stages", (), (), _figures(run, _STAGES)),
        Section("On the cortex", (), (), _figures(run, _CORTEX)),
        Section("The responses", (), (), _figures(run, _DATA)),
    ]


def build_report(run: store.Run) -> str:
    """Return the report page of a finished run as self-contained HTML.

    Raises
    ------
    StoreError
        A figure or table of the run is missing.
    """
    profile = run.profile
    lead = (
        "From responses of visual cortex three features of the seen image are decoded:"
        " c (semantics), z (detail) and Z_CLIP (structure). Stage 1 makes an image from"
        " c and z by diffusion; stage 2 adjusts both until the image shows the decoded"
        " structure. Everything on this page was made by one run of the notebooks."
    )
    stage2 = profile.stage2
    facts = {
        "profile": f"{profile.name}, digest {profile.digest}",
        "subjects": ", ".join(map(str, profile.subjects)),
        "images per subject": str(profile.data.n_reconstruct),
        "seed": str(profile.seed),
        "stage 2": f"preset {stage2.preset}, {stage2.n_iter} iterations",
        "code": provenance.code_digest(),
    }
    title = "MindDiffuser, reproduced"
    return render_report(title, profile.label, lead, _sections(run), facts=facts)
