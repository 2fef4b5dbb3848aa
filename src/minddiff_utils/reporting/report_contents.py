"""What the report holds: a finished run's figures, tables and settings, in sections.

Reads artefacts and arranges them; draws nothing and decides nothing.
"""

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from minddiff_utils.core import provenance, store
from minddiff_utils.core.errors import StoreError
from minddiff_utils.core.images import encode_png
from minddiff_utils.core.run import Run
from minddiff_utils.evaluation import check_completeness, gallery
from minddiff_utils.evaluation.claims.ledger import COLUMNS, endpoint_words, verdicts
from minddiff_utils.reporting.galleries import select_for_gallery, system_rows
from minddiff_utils.reporting.report import (
    FigureItem,
    GalleryItem,
    LinkItem,
    Section,
    TableItem,
    render_report,
)
from minddiff_utils.reporting.surface_maps import CorticalMaps

__all__ = ["build_report", "conclusions"]

#: Section -> its tables, then its figures, each with its caption; `{subject}` stands
#: for the first subject. T1 to T5 are shown as printed, with intervals in the cells.
_CONTENTS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "What a sceptic asks first": (
        {
            "sanity": "Each check, what was expected and what was seen.",
            "subjects": "Subjects of this run.",
        },
        {},
    ),
    "The method and what it makes": (
        {},
        {
            "method": "F1. The method on one test image of subject {subject}.",
            "gallery": "F2. Compared systems, subject {subject}; images picked by"
            " rule.",
            "gallery_subjects": "F3. The same test images in every subject, stage 2.",
        },
    ),
    "Scores": (
        {
            "T1_comparison": "T1. Every method: first subject, and all.",
            "floors": "What knowing nothing scores.",
            "contrasts": "Paired differences on the same images.",
            "T3_subjects": "T3. Stages 1 and 2 in each subject.",
            "frechet": "Fréchet distances, by network.",
            "metrics": "Definition of every metric, and whether it was scored.",
        },
        {
            "comparison": "Every method over all subjects, with floor and ceiling.",
            "differences": "Differences from stage 1, and of stage 2 from controls.",
            "stage2_gain": "Stage 2 minus stage 1 on the same images.",
            "subjects": "Stage 1 and stage 2 in each subject.",
            "quality_vs_accuracy": "Decoding accuracy and quality, image by image.",
            "failures": "F9. Failure signatures, subject {subject}.",
        },
    ),
    "What each part is worth": (
        {"T2_ablation": "T2. Factorial, blocks, iterations and k."},
        {
            "ablation": "Every combination of c, z and Z_CLIP.",
            "gallery_ablation": "F4. The same, as images; the first ones of subject"
            " {subject}.",
            "k_quality": "F6. Accuracy, information and final quality against k.",
        },
    ),
    "Decoding": (
        {"T4_decoding": "T4. Accuracy by feature and area, over all."},
        {
            "accuracy_subj{subject:02d}": "Accuracy by feature and area set, with"
            " chance and ceiling, subject {subject}.",
            "predictions_subj{subject:02d}": "Decoded against true values of two"
            " targets, subject {subject}.",
            "histograms_subj{subject:02d}": "F8. Accuracy of all targets, subject"
            " {subject}.",
            "decoders_subj{subject:02d}": "Five decoders on the same targets, and the"
            " rank of their predictions, subject {subject}.",
            "holdout_subj{subject:02d}": "Categories that were trained on, and that"
            " were not, subject {subject}.",
            "k_selection": "Accuracy and information against k, layer by layer.",
            "weights_subj{subject:02d}": "Decoder weights by area, subject {subject}.",
        },
    ),
    "The two stages": (
        {"T5_cost": "T5. U-Net passes per image."},
        {
            "stage1_subj{subject:02d}": "Stage 1 and its parts, subject {subject}.",
            "losses_subj{subject:02d}": "F5. Structural loss along stage 2, subject"
            " {subject}.",
            "trajectory_subj{subject:02d}": "F5. Images along stage 2, subject"
            " {subject}.",
            "stage2_subj{subject:02d}": "Stage 2, its ceiling and floor, subject"
            " {subject}.",
        },
    ),
    "On the cortex": (
        {},
        {
            "cortex_flat": "F7. Decoder weights on the flattened cortex, subject"
            " {subject}.",
            "cortex_inflated": "F7. The same on the inflated surface.",
        },
    ),
    "The responses": (
        {},
        {
            "roi_counts_subj{subject:02d}": "Voxels by area, subject {subject}.",
            "repeats_subj{subject:02d}": "Single trials of the most and the least"
            " reliable voxel, subject {subject}.",
            "reliability_subj{subject:02d}": "Noise ceilings by area, subject"
            " {subject}.",
        },
    ),
}


def _figures(
    run: Run, subject: int | None, captions: Mapping[str, str]
) -> list[FigureItem]:
    items = []
    for pattern, words in captions.items():
        name = pattern.format(subject=subject)
        path = run.tree.figures / f"{name}.png"
        store.read_png(path)  # damaged, it would be a gap in the page that nobody tells
        png = store.read_bytes(path)
        items.append(FigureItem(name, png, words.format(subject=subject)))
    return items


def _table(run: Run, name: str, caption: str) -> TableItem:
    path = run.tree.tables / f"{name}.csv"
    if re.match(r"T\d_", name):
        return TableItem(name, _printed(run, name), caption)
    table = store.read_table(path).drop(columns="profile", errors="ignore")
    return TableItem(name, table, caption)


def _printed(run: Run, name: str) -> pd.DataFrame:
    """Return a table as its Markdown twin prints it."""
    path = run.tree.tables / f"{name}.md"
    try:
        lines = store.read_bytes(path).decode("utf-8").splitlines()
    except UnicodeDecodeError:
        lines = []
    rows = [
        line.removeprefix("| ").removesuffix(" |").split(" | ")
        for line in lines
        if line.startswith("| ")
    ]
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        raise StoreError(
            f"{path} holds no table: move it away and run notebook 05 again."
        )
    return pd.DataFrame(rows[1:], columns=rows[0])


def _ledger(run: Run) -> TableItem:
    ledger = store.read_table(run.tree.figures / "claims.csv", COLUMNS)
    return TableItem("claims", verdicts(ledger), "The claims ledger.")


def _gallery(run: Run, subject: int) -> GalleryItem:
    """Return the comparison gallery, picture by picture."""
    selection = select_for_gallery(
        subject, store.read_table(run.tree.tables / "scores.csv")
    )
    ids = selection.nsd_id
    rows = gallery(run, subject, system_rows(), n=len(ids), picked=ids)
    pictures = {
        words: [encode_png(one) for one in made] for words, made in rows.items()
    }
    titles = (
        title.partition(":")[0] for title in selection.titles
    )  # "fixed: 12" has it
    columns = [f"{i} ({t})" for i, t in zip(ids, titles, strict=True)]
    caption = f"What subject {subject} saw, and what each system made of the responses."
    return GalleryItem("systems", pictures, columns, caption, selection.rule)


def _links(run: Run) -> list[LinkItem]:
    """Return links to the executed notebooks and to the tables and claims."""
    notebooks = {path.name for path in run.tree.notebooks.glob("*.ipynb")}
    notebooks.add("06_figures.ipynb")  # this one is written when it has ended
    tables = sorted(path.name for path in run.tree.tables.glob("*.csv"))
    links = [LinkItem(name, f"notebooks/{name}") for name in sorted(notebooks)]
    links += [LinkItem(name, f"tables/{name}") for name in tables]
    return [*links, LinkItem("claims.csv", "claims.csv")]


def _settings(run: Run) -> list[tuple[str, str]]:
    """Return the settings that a reader asks for, from the profile."""
    profile, evaluation = run.profile, run.profile.evaluation
    stage1, stage2, k = profile.stage1, profile.stage2, profile.decoding.k_percent
    chosen = "chosen for each layer by cross-validation" if k is None else f"{k:g} %"
    n_iter = getattr(getattr(stage2, stage2.preset), "n_iter", stage2.fast.n_iter)
    return [
        ("decoder", f"{profile.decoder} ridge, k = {chosen}"),
        (
            "stage 1",
            f"DDIM, grid of {stage1.n_steps}, noised to index {stage1.encode_index},"
            f" {stage1.decode_steps} steps, guidance {stage1.guidance_scale:g}",
        ),
        (
            "stage 2",
            f"preset {stage2.preset}, {n_iter} iterations, CLIP blocks"
            f" {', '.join(map(str, stage2.fast.layers))}, {stage2.fast.n_steps} solver"
            f" steps ({stage2.fast.solver})",
        ),
        (
            "statistics",
            f"Student's t over images, confidence {evaluation.confidence:g}",
        ),
    ]


def _sections(
    run: Run, first: int, ledger: TableItem, maps: CorticalMaps
) -> list[Section]:
    def section(title: str, subject: int = first, **more: Any) -> Section:
        tables, figures = _CONTENTS[title]
        items = [_table(run, name, caption) for name, caption in tables.items()]
        drawn = _figures(run, subject, figures)
        return Section(title, tables=items, figures=drawn, **more)

    words = (
        "One row per claim. A directional claim holds only where its null fails the"
        " same check; numbers from in-silico subjects are not compared with the paper."
    )
    cortex, notes = "On the cortex", [maps.note] if maps.note else []
    return [
        Section("The claims of the paper, here", [words], [ledger]),
        section("What a sceptic asks first"),
        section("The method and what it makes", galleries=[_gallery(run, first)]),
        section("Scores"),
        section("What each part is worth"),
        section("Decoding"),
        section("The two stages"),
        Section(cortex, notes)
        if maps.subject is None
        else section(cortex, maps.subject, paragraphs=notes),
        section("The responses"),
        Section("Settings", definitions=_settings(run)),
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
    sections = _sections(run, subjects[0], ledger, maps)
    title = "MindDiffuser, reproduced"
    return render_report(title, run.label, lead, sections, facts=facts, ledger=ledger)


def conclusions(ledger: pd.DataFrame, figures: Mapping[str, str]) -> list[str]:
    """Return a line for each endpoint that a figure bears on.

    Parameters
    ----------
    ledger : DataFrame
        `claims.csv` of notebook 05.
    figures : mapping of str to str
        Claim -> the figures that show it.
    """
    lines = []
    for _, row in ledger[ledger["claim"].isin(figures)].iterrows():
        shown = endpoint_words(row) if pd.notna(row["value"]) else row["reason"]
        lines.append(
            f"{row['claim']} ({figures[row['claim']]}) {row['verdict']}: {shown}"
        )
    return lines
