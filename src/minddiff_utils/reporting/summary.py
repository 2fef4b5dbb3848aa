"""What the last notebook shows: a run's artefacts gathered for figures and the report.

Reads artefacts and arranges them; draws nothing and decides nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from minddiff_utils.core import provenance, store
from minddiff_utils.core.conditions import factorial, gallery_words
from minddiff_utils.core.errors import DataError, StoreError
from minddiff_utils.core.images import encode_png
from minddiff_utils.core.run import Run
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.evaluation import check_completeness, gallery
from minddiff_utils.evaluation.metrics import METRICS
from minddiff_utils.reporting.cortex import CorticalData, flat_maps, inflated_maps
from minddiff_utils.reporting.figures import FlatMap, InflatedMap, MethodPanels
from minddiff_utils.reporting.report import (
    FigureItem,
    GalleryItem,
    LinkItem,
    Section,
    TableItem,
    render_report,
)
from minddiff_utils.reporting.tables import FEATURES, Picks, pick_images

__all__ = [
    "CorticalMaps",
    "ablation_rows",
    "build_report",
    "cortical_maps",
    "marked_pairs",
    "method_panels",
    "own_scores",
    "pick_for_gallery",
    "system_rows",
    "weight_maps",
]

#: Images that the galleries always show: the first of the test set.
_N_FIXED = 4
#: Images of the galleries.
_N_SHOWN = 9

#: Figure of the report -> its caption; `{subject}` stands for the first subject.
_OVERVIEW = {
    "method": "F1. The method on one test image of subject {subject}.",
    "gallery": "F2. Compared systems, subject {subject}; images picked by rule.",
    "gallery_subjects": "F3. The same test images in every subject, stage 2.",
}
_SCORES = {
    "comparison": "Every method over all subjects, with floor and ceiling.",
    "stage2_gain": "Stage 2 minus stage 1 on the same images.",
    "subjects": "Stage 1 and stage 2 in each subject.",
    "quality_vs_accuracy": "Decoding accuracy and quality of the subjects.",
    "failures": "F9. Failure signatures, subject {subject}.",
}
_ABLATION = {
    "ablation": "Every combination of c, z and Z_CLIP.",
    "gallery_ablation": "F4. The same, as images; the first ones of subject {subject}.",
    "k_quality": "F6. Accuracy, information and final quality against k.",
}
_DECODING = {
    "accuracy_subj{subject:02d}": "Accuracy by feature and area set, with chance and"
    " ceiling, subject {subject}.",
    "predictions_subj{subject:02d}": "Decoded against true values of two targets,"
    " subject {subject}.",
    "histograms_subj{subject:02d}": "F8. Accuracy of all targets, subject {subject}.",
    "decoders_subj{subject:02d}": "Five decoders on the same targets, and the rank of"
    " their predictions, subject {subject}.",
    "holdout_subj{subject:02d}": "Categories that were trained on, and that were not,"
    " subject {subject}.",
    "k_selection": "Accuracy and information against k, layer by layer.",
    "weights_subj{subject:02d}": "Decoder weights by area, subject {subject}.",
}
_STAGES = {
    "stage1_subj{subject:02d}": "Stage 1 and its parts, subject {subject}.",
    "losses_subj{subject:02d}": "F5. Structural loss along stage 2, subject {subject}.",
    "trajectory_subj{subject:02d}": "F5. Images along stage 2, subject {subject}.",
    "stage2_subj{subject:02d}": "Stage 2, its ceiling and floor, subject {subject}.",
}
_CORTEX = {
    "cortex_flat": "F7. Decoder weights on the flattened cortex, subject {subject}.",
    "cortex_inflated": "F7. The same on the inflated surface.",
}
_DATA = {
    "roi_counts_subj{subject:02d}": "Voxels by area, subject {subject}.",
    "repeats_subj{subject:02d}": "Single trials of the most and the least reliable"
    " voxel, subject {subject}.",
    "reliability_subj{subject:02d}": "Noise ceilings by area, subject {subject}.",
}


# --- which images are shown -------------------------------------------------------


def system_rows() -> dict[str, str]:
    """Return the rows of the comparison gallery (F2): condition -> words."""
    return {"truth": "seen image", **gallery_words()}


def ablation_rows() -> dict[str, str]:
    """Return the rows of the ablation gallery (F4), from all features to none.

    >>> list(ablation_rows().values())[-2:]
    ['Z_CLIP', 'nothing']
    """
    cells = sorted(factorial().items(), key=lambda cell: cell[1], reverse=True)
    cells.sort(key=lambda cell: sum(cell[1]), reverse=True)
    rows = {"truth": "seen image"}
    for name, flags in cells:
        there = [feature for feature, has in zip(FEATURES, flags, strict=True) if has]
        first, last = ", ".join(there[:-1]), "".join(there[-1:])
        rows[name] = " and ".join(filter(None, (first, last))) or "nothing"
    return rows


def own_scores(scores: pd.DataFrame, subject: int, method: str) -> pd.DataFrame:
    """Return the rows of one method of one subject.

    Raises
    ------
    StoreError
        `scores` lacks a column.
    """
    missing = sorted({"subject", "method", "metric", "nsd_id", "value"} - {*scores})
    if missing:
        raise StoreError(
            f"The scores have no column {missing[0]}: delete scores.csv in the run's"
            " tables and run notebook 05 again."
        )
    mine = scores["subject"].astype(str) == str(subject)
    return scores[mine & (scores["method"] == method)]


def pick_for_gallery(subject: int, scores: pd.DataFrame) -> Picks:
    """Pick the images of the galleries: the first ones, then quantiles of stage 2.

    Only images that every subject saw and has a reconstruction of: subjects who came to
    fewer sessions lack some.

    Parameters
    ----------
    scores : DataFrame
        `tables/scores.csv` of notebook 05.
    """
    own = own_scores(scores, subject, "stage2")
    own = own[own["metric"] == "clip_judge"]
    scored = scores[["subject", "nsd_id"]].drop_duplicates()["nsd_id"].value_counts()
    shared = scored.index[scored == scores["subject"].nunique()]
    own = own[own["nsd_id"].isin(shared)]
    words = f"{METRICS['clip_judge'].label} (stage 2, subject {subject})"
    fixed = [int(i) for i in own["nsd_id"][:_N_FIXED]]
    return pick_images(own, _N_SHOWN, words=words, fixed=fixed)


def marked_pairs(
    run: Run, subject: int, points: pd.DataFrame
) -> dict[int, tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
    """Return seen image and reconstruction of the images marked as failures.

    `points`: from `tables.failure_table`.
    """
    marked = points.loc[points["place"] > 0, "nsd_id"].astype(int).tolist()
    if not marked:
        return {}
    method = str(points["method"].iloc[0])
    names = {"truth": "seen", method: "made"}
    rows = gallery(run, subject, names, n=len(marked), picked=marked)
    return {i: (rows["seen"][k], rows["made"][k]) for k, i in enumerate(marked)}


def method_panels(run: Run, subject: int) -> MethodPanels:
    """Return the pictures and curves of a subject's first test image.

    Raises
    ------
    StoreError
        An image or an array of the subject is missing.
    """
    folder = run.tree.derived(subject)

    def first(name: str) -> npt.NDArray[np.uint8]:
        (image,) = gallery(run, subject, {name: name}, n=1)[name]
        return np.asarray(image)

    stored = store.read_arrays(folder / "responses.h5", ["betas", "split"])
    paths = store.read_arrays(folder / "trajectories.h5", ["stage2/losses"])
    return MethodPanels(
        seen=first("truth"),
        z_alone=first("z_only"),
        c_alone=first("c_only"),
        sampled=first("stage1"),
        aligned=first("stage2"),
        responses=stored["betas"][stored["split"] == "test"][0],
        losses=paths["stage2/losses"][0],
    )


def weight_maps(run: Run, subject: int) -> CorticalData:
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
    voxels = store.read_arrays(
        folder / "responses.h5", ["voxel_ijk", "roi", "roi_names"]
    )
    found = {words: weights[f"{name}/voxel_weight"] for words, name in names.items()}
    for words, weight in found.items():
        if not np.any(weight):
            raise StoreError(
                f"{folder / 'decoders.h5'}: the weights of {words} are all zero, so no"
                " voxel's share can be shown: run notebook 02 again with a lower"
                " decoding.alpha."
            )
    values = {words: w / np.mean(w) for words, w in found.items()}
    areas = tuple(map(str, voxels["roi_names"]))
    return CorticalData(voxels["voxel_ijk"], voxels["roi"], areas, values)


@dataclass(frozen=True)
class CorticalMaps:
    """Decoder weights on a subject's cortex, or a note that says why there are none.

    Attributes
    ----------
    subject : int or None
        Whose cortex; None where no subject has all surfaces and transforms.
    flat, inflated : mapping
        By feature; empty without a subject.
    note : str
        Which subjects have no maps, and why; empty where the first one has them.
    """

    subject: int | None
    flat: Mapping[str, FlatMap] = field(default_factory=dict)
    inflated: Mapping[str, InflatedMap] = field(default_factory=dict)
    note: str = ""


def cortical_maps(run: Run, tree: NsdTree, subjects: Sequence[int]) -> CorticalMaps:
    """Return the maps of the first subject whose surfaces can be read.

    Surfaces and transforms are optional files of NSD: without them there is a note.

    Raises
    ------
    StoreError
        As `weight_maps`.
    """
    reasons = []
    for subject in subjects:
        data = weight_maps(run, subject)
        try:
            flat = flat_maps(tree, subject, data)
            inflated = inflated_maps(tree, subject, data)
        except DataError as error:
            reasons.append(f"Subject {subject} is not shown on the cortex: {error}")
        else:
            return CorticalMaps(subject, flat, inflated, " ".join(reasons))
    note = f"{' '.join(reasons)} Surfaces are optional, all else is here without them."
    return CorticalMaps(None, note=note)


# --- the report -----------------------------------------------------------------------


def _figures(run: Run, subject: int, captions: Mapping[str, str]) -> list[FigureItem]:
    items = []
    for pattern, words in captions.items():
        name = pattern.format(subject=subject)
        path = run.tree.figures / f"{name}.png"
        store.read_png(path)  # damaged, it would be a gap in the page that nobody tells
        png = store.read_bytes(path)
        items.append(FigureItem(name, png, words.format(subject=subject)))
    return items


def _table(run: Run, name: str, caption: str) -> TableItem:
    table = store.read_table(run.tree.tables / f"{name}.csv")
    return TableItem(name, table.drop(columns="profile", errors="ignore"), caption)


def _printed(run: Run, name: str, caption: str) -> TableItem:
    """Return a table as its Markdown twin prints it: intervals in the cells."""
    path = run.tree.tables / f"{name}.md"
    try:
        lines = store.read_bytes(path).decode("utf-8").splitlines()
    except UnicodeDecodeError:
        lines = []
    cells = [
        line.removeprefix("| ").removesuffix(" |") for line in lines if line[:2] == "| "
    ]
    rows = [line.split(" | ") for line in cells]
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        raise StoreError(
            f"{path} holds no table: move it away and run notebook 05 again."
        )
    return TableItem(name, pd.DataFrame(rows[1:], columns=rows[0]), caption)


def _ledger(run: Run) -> TableItem:
    columns = ["claim", "statement", "verdict", "profile"]
    ledger = store.read_table(run.tree.figures / "claims.csv", columns)
    return TableItem("claims", ledger.drop(columns="profile"), "The claims ledger.")


def _gallery(run: Run, subject: int) -> GalleryItem:
    """Return the comparison gallery, picture by picture."""
    scores = store.read_table(run.tree.tables / "scores.csv")
    picks = pick_for_gallery(subject, scores)
    rows = gallery(
        run, subject, system_rows(), n=len(picks.nsd_id), picked=picks.nsd_id
    )
    pictures = {
        words: [encode_png(one) for one in made] for words, made in rows.items()
    }
    titles = (title.partition(":")[0] for title in picks.titles)  # "fixed: 12" has it
    columns = [f"{i} ({t})" for i, t in zip(picks.nsd_id, titles, strict=True)]
    caption = f"What subject {subject} saw, and what each system made of the responses."
    return GalleryItem("systems", pictures, columns, caption, picks.rule)


def _links(run: Run) -> list[LinkItem]:
    """Return links to the executed notebooks and to the tables and claims."""
    names = {path.name for path in run.tree.notebooks.glob("*.ipynb")}
    names.add("06_figures.ipynb")  # this one is written when it has ended
    notebooks = [LinkItem(name, f"notebooks/{name}") for name in sorted(names)]
    tables = [
        LinkItem(path.name, f"tables/{path.name}")
        for path in sorted(run.tree.tables.glob("*.csv"))
    ]
    return [*notebooks, *tables, LinkItem("claims.csv", "claims.csv")]


def _methods(run: Run) -> list[tuple[str, str]]:
    """Return the settings that a reader asks for, from the profile."""
    profile = run.profile
    stage1, stage2, decoding = profile.stage1, profile.stage2, profile.decoding
    k = decoding.k_percent
    chosen = "chosen for each layer by cross-validation" if k is None else f"{k:g} %"
    return [
        ("decoder", f"{profile.decoder} ridge, k = {chosen}"),
        (
            "stage 1",
            f"DDIM, grid of {stage1.n_steps}, noised to index {stage1.encode_index},"
            f" {stage1.decode_steps} steps, guidance {stage1.guidance_scale:g}",
        ),
        (
            "stage 2",
            f"preset {stage2.preset}, {stage2.n_iter} iterations, CLIP blocks"
            f" {', '.join(map(str, stage2.layers_fast))}, {stage2.n_steps_fast} solver"
            f" steps ({stage2.solver_fast})",
        ),
        (
            "statistics",
            f"{profile.evaluation.n_bootstrap} bootstrap draws and"
            f" {profile.evaluation.n_permutations} permutations, confidence"
            f" {profile.evaluation.confidence:g}",
        ),
    ]


def _score_tables(run: Run) -> list[TableItem]:
    return [
        _printed(run, "T1_comparison", "T1. Every method: first subject, and all."),
        _table(run, "floors", "What knowing nothing scores."),
        _table(run, "paired", "Stage 2 minus stage 1, pairs of images."),
        _printed(run, "T3_subjects", "T3. Stages 1 and 2 in each subject."),
        _table(run, "frechet", "Fréchet distances, by network."),
        _table(
            run, "metrics", "Definition of every metric, and whether it was scored."
        ),
    ]


def _cortex(run: Run, maps: CorticalMaps) -> Section:
    """Return the section of the cortical maps; without any it says why."""
    drawn = [] if maps.subject is None else _figures(run, maps.subject, _CORTEX)
    return Section("On the cortex", [maps.note] if maps.note else (), (), drawn)


def _sections(
    run: Run, subject: int, ledger: TableItem, maps: CorticalMaps
) -> list[Section]:
    def drawn(captions: Mapping[str, str]) -> list[FigureItem]:
        return _figures(run, subject, captions)

    words = (
        "One row per claim. A directional claim holds only where its null fails the"
        " same check; numbers from in-silico subjects are not compared with the paper."
    )
    sanity = _table(run, "sanity", "Each check, what was expected and what was seen.")
    nulls = _table(run, "claims_null", "Each claim's check on evidence without effect.")
    ablation = _printed(run, "T2_ablation", "T2. Factorial, blocks, iterations and k.")
    decoding = _printed(
        run, "T4_decoding", "T4. Accuracy by feature and area, over all."
    )
    cost = _printed(run, "T5_cost", "T5. U-Net passes per image.")
    present = _table(run, "subjects", "Subjects of this run.")
    return [
        Section("The claims of the paper, here", [words], [ledger]),
        Section("What a sceptic asks first", (), [sanity, nulls, present]),
        Section(
            "The method and what it makes",
            figures=drawn(_OVERVIEW),
            galleries=[_gallery(run, subject)],
        ),
        Section("Scores", (), _score_tables(run), drawn(_SCORES)),
        Section("What each part is worth", (), [ablation], drawn(_ABLATION)),
        Section("Decoding", (), [decoding], drawn(_DECODING)),
        Section("The two stages", (), [cost], drawn(_STAGES)),
        _cortex(run, maps),
        Section("The responses", (), (), drawn(_DATA)),
        Section("Settings", definitions=_methods(run)),
        Section("Notebooks and tables of this run", links=_links(run)),
    ]


def build_report(run: Run, maps: CorticalMaps) -> str:
    """Return the report page of a finished run as self-contained HTML.

    Parameters
    ----------
    maps : CorticalMaps
        What notebook 06 has drawn of the cortex.

    Raises
    ------
    StoreError
        A figure or table of the run is missing.
    """
    profile, completeness = run.profile, check_completeness(run)
    subjects = completeness.complete
    lead = (
        "From responses of visual cortex three features of the seen image are decoded:"
        " c (semantics), z (detail) and Z_CLIP (structure). Stage 1 makes an image from"
        " c and z by diffusion; stage 2 adjusts both until the image shows the decoded"
        " structure. Everything on this page was made by one run of the notebooks."
    )
    facts = {
        "profile": f"{profile.name}, digest {profile.digest}",
        "subjects": ", ".join(map(str, subjects)),
        "images per subject": completeness.image_words(),
        "seed": str(profile.seed),
        "code": provenance.code_digest(),
    }
    ledger = _ledger(run)
    return render_report(
        "MindDiffuser, reproduced",
        run.label,
        lead,
        _sections(run, subjects[0], ledger, maps),
        facts=facts,
        ledger=ledger,
    )
