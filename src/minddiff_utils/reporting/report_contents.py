"""What the report holds: a finished run's ledger, figures, tables and settings.

Reads artefacts and arranges them; draws nothing and decides nothing. Name, number and
caption of each figure are said once, in `report/captions.csv`: F1 to F9 are the figures
that the paper has, S1 and on further ones. Notebooks write the number behind their own
("**Figure 2 (F6).**"), which the tests check. A caption says what is drawn, never what
came out.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from minddiff_utils.core import conditions, provenance, store
from minddiff_utils.core.images import encode_png
from minddiff_utils.core.run import Run
from minddiff_utils.evaluation import check_completeness
from minddiff_utils.evaluation.claims.evidence import engine_words
from minddiff_utils.evaluation.claims.ledger import COLUMNS, endpoint_words, verdicts
from minddiff_utils.evaluation.metrics import METRICS
from minddiff_utils.reporting import galleries, tables
from minddiff_utils.reporting.report import page
from minddiff_utils.reporting.surface_maps import CorticalMaps

__all__ = ["FIGURES", "Caption", "build_report", "conclusions"]


@dataclass(frozen=True)
class Caption:
    """A figure's number, what it shows, and the section of the report that it is in.

    `each_subject`: "yes" where each has its own, in files `<name>_subj01.png` and so
    on; `{subject}` in `words` stands for the one that is in the report; `optional`:
    "yes" where it is shown only if it was made, by the study of engines, by notebook 09
    or from captions that name categories.
    """

    number: str
    section: str
    each_subject: str
    optional: str
    words: str

    def file_name(self, name: str, subject: int) -> str:
        """Return the name of the figure's file, without its ending."""
        return f"{name}_subj{subject:02d}" if self.each_subject else name


def _captions() -> dict[str, Caption]:
    path = Path(__file__).parent / "report" / "captions.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return {row.pop("name"): Caption(**row) for row in csv.DictReader(file)}


#: Name of a figure's file -> number and caption, in the order of the report.
FIGURES = _captions()
TITLE = "MindDiffuser: a runnable artifact"
_SCORES = {name: METRICS[name].label for name in ("clip_judge", "ssim_2d", "pcc")}
#: Table -> its section, its caption, and how its rows are printed (`tables.for_print`).
_TABLES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "T1_comparison": (
        "Differences on the same images",
        "Every method, over all subjects.",
        {"rows": ("method",)},
    ),
    "T2_ablation": (
        "What each part is worth",
        "Combinations of features, main effects, blocks, iterations and k.",
        {"rows": ("group", "method")},
    ),
    "T4_decoding": (
        "Decoding",
        "Signed r by feature and area, over all subjects.",
        {"rows": ("area_set",), "across": "feature", "cell": tables.bounded_cell},
    ),
    "T5_cost": (
        "Stage 2, step by step",
        "Passes through the U-Net per image.",
        {"rows": ("method",), "cell": tables.count_cell},
    ),
}
#: Table of further measures -> its caption, and the column of which the rows "all" are
#: shown.
_FURTHER = {
    "T8_naming": ("Share of images whose object is named, by method.", "category"),
    "captions": (
        "What the captions nearest to decoded c share with those of the seen image.",
        "",
    ),
    "brain_correlation": (
        "Correlation of predicted and measured responses, over all voxels.",
        "area_set",
    ),
}


# --- its parts ------------------------------------------------------------------------


def _figures(run: Run, subject: int, names: Iterable[str]) -> list[page.FigureItem]:
    items = []
    for name in names:
        caption = FIGURES[name]
        path = run.tree.figures / f"{caption.file_name(name, subject)}.png"
        if caption.optional and not path.is_file():
            continue
        store.read_png(path)  # damaged, it would be a gap in the page that nobody tells
        words = caption.words.format(subject=subject)
        items.append(page.FigureItem(caption.number, store.read_bytes(path), words))
    return items


def _table(run: Run, name: str) -> page.TableItem:
    """Return the rows over all subjects as notebook 05 prints them."""
    _, caption, how = _TABLES[name]
    across, texts = how.get("across", "metric"), ("status", "settings")
    needed = (*how["rows"], across, "value", "ci_low", "ci_high", *texts)
    table = store.read_table(run.tree.tables / f"{name}.csv", needed)
    table = table.assign(**{c: table[c].astype(object).fillna("") for c in texts})
    if "subject" in table:
        table = table[table["subject"].astype(str) == "all"]
    words = {key: str(key) for key in table[across].unique()}
    if set(_SCORES) <= set(words):
        words = _SCORES
    printed = tables.for_print(table, words, **how)
    shown = printed.iloc[:-1]  # the last row: settings
    return page.TableItem(name[:2], shown, caption)


def _further(run: Run) -> list[page.TableItem]:
    """Return the tables of further measures that the run has, folded."""
    items = []
    for name, (caption, of_all) in _FURTHER.items():
        path = run.tree.tables / f"{name}.csv"
        if path.is_file():
            table = store.read_table(path, [of_all] if of_all else [])
            kept = table[table[of_all] == "all"] if of_all else table
            drawn = kept.drop(columns=[of_all, "profile"], errors="ignore")
            counts = [name for name in drawn if str(name).startswith("n_")]
            drawn = drawn.astype(dict.fromkeys(counts, "Int64"))  # also beside a gap
            items.append(page.TableItem(name, drawn, caption))
    return items


def _ledger(run: Run) -> page.LedgerItem:
    ledger = store.read_table(run.tree.figures / "claims.csv", COLUMNS)
    ends = {
        str(claim): [*map(_endpoint, rows.to_dict("records"))]
        for claim, rows in ledger[ledger["value"].notna()].groupby("claim", sort=False)
    }
    caption = (
        "Each claim with its verdict and the engine that is judged; below it, its"
        " endpoints. An endpoint is shown where its interval, over images or over"
        " subjects, lies above the bound. “Above 0” counts the subjects whose own"
        " effect is; “could show” is the smallest effect that this n shows with a power"
        " of 80 %."
    )
    return page.LedgerItem(verdicts(ledger), ends, caption)


def _endpoint(row: Mapping[Any, Any]) -> dict[str, str]:
    """Return an endpoint in words, one quantity per column."""
    by_subject = row["unit"] == "subject"
    ends = "subjects" if by_subject else "ci"
    low, high = row[f"{ends}_low"], row[f"{ends}_high"]
    return {
        "endpoint": row["endpoint"],
        "result": row["result"],
        "effect": f"{row['value']:+.3f}",
        "interval": f"[{low:+.3f}, {high:+.3f}]",
        "unit": str(row["scale"]),
        "bound": f"{row['above']:+g}" if row["above"] else "0",
        "over": f"{row['unit']}s",
        "images": "–" if by_subject else _known(row["n_images"]),
        "subjects": _known(row["n_subjects"]),
        "above 0": _known(row["n_subjects_positive"]),
        "could show": _known(row["smallest_effect"], ".3f"),
    }


def _known(number: Any, form: str = ".0f") -> str:
    return "–" if pd.isna(number) or np.isinf(number) else f"{number:{form}}"


def _gallery(run: Run, subject: int) -> page.GalleryItem:
    """Return the comparison gallery, picture by picture, with scores."""
    scores = store.read_table(run.tree.tables / "scores.csv")
    selection = galleries.select_for_gallery(subject, scores)
    ids, systems = selection.nsd_id, galleries.system_rows(run.profile.stage2.preset)
    rows, below = galleries.scored_gallery(run, subject, systems, scores, ids=ids)
    pictures = {words: [*map(encode_png, made)] for words, made in rows.items()}
    left_out = "".join(f" Not run: {why}." for why in conditions.not_run().values())
    caption = (
        f"{FIGURES['gallery'].words.format(subject=subject)} Below each picture: CLIP"
        f" similarity by the judge, and SSIM. {selection.rule}.{left_out}"
    )
    number = FIGURES["gallery"].number
    return page.GalleryItem(number, pictures, selection.titles, caption, below)


def _checks(run: Run) -> tuple[list[str], list[page.TableItem]]:
    """Return how many checks passed, in words, and their folded table."""
    table = store.read_table(run.tree.tables / "sanity.csv")
    failed = table[~table["passed"].astype(bool)]
    words = f"{len(table) - len(failed)} of {len(table)} checks passed."
    lines = [f"Failed: {row.check}: {row.observed}." for row in failed.itertuples()]
    shown = table[["check", "observed", "passed"]]
    caption = "Each check of the pipeline with what was seen."
    return [words, *lines], [page.TableItem("Checks", shown, caption)]


def _links(run: Run) -> list[tuple[str, str]]:
    """Return links to the executed notebooks, and to the tables and claims."""
    notebooks = {path.name for path in run.tree.notebooks.glob("*.ipynb")}
    notebooks.add("06_figures.ipynb")  # this one is written when it has ended
    made = sorted(path.name for path in run.tree.tables.glob("*.csv"))
    links = [(name, f"notebooks/{name}") for name in sorted(notebooks)]
    return [*links, ("claims.csv", "claims.csv"), *((n, f"tables/{n}") for n in made)]


def _settings(run: Run) -> list[tuple[str, str]]:
    """Return the settings that a reader asks for, from the profile."""
    profile, sure = run.profile, run.profile.evaluation.confidence
    stage1, stage2, k = profile.stage1, profile.stage2, profile.decoding.k_percent
    chosen = "chosen for each layer by cross-validation" if k is None else f"{k:g} %"
    own = getattr(stage2, stage2.preset).model_dump()
    return [
        ("decoder", f"{profile.decoder} ridge, k = {chosen}"),
        (
            "stage 1",
            f"DDIM, grid of {stage1.n_steps}, noised to index {stage1.encode_index},"
            f" {stage1.decode_steps} steps, guidance {stage1.guidance_scale:g}",
        ),
        (
            "stage 2",
            f"preset {stage2.preset}: "
            + ", ".join(f"{name} {value}" for name, value in own.items()),
        ),
        ("statistics", f"Student's t over images, confidence {sure:g}"),
    ]


# --- the page -------------------------------------------------------------------------


def _sections(run: Run, first: int, maps: CorticalMaps) -> list[page.Section]:
    """Return the sections behind the gallery, those with nothing to show left out."""
    sections = []
    for title in dict.fromkeys(c.section for c in FIGURES.values() if c.section):
        on_cortex = title == "On the cortex"
        subject = maps.subject if on_cortex else first
        names = [name for name, c in FIGURES.items() if c.section == title]
        items = _figures(run, subject, names) if subject is not None else []
        notes = [maps.note] if on_cortex and maps.note else []
        folded = [_table(run, name) for name, t in _TABLES.items() if t[0] == title]
        further = _further(run) if title == "Further measures" else []
        content: list[page.Item] = [*items, *folded, *further]
        if content or notes:
            sections.append(page.Section(title, notes, content))
    return sections


def build_report(run: Run, maps: CorticalMaps) -> str:
    """Return the report page of a finished run as self-contained HTML.

    `run`: of no single subject; `maps`: what notebook 06 has drawn of the cortex. A
    figure or table is missing or damaged, or no subject is finished: StoreError.
    """
    profile, completeness = run.profile, check_completeness(run)
    subjects = completeness.complete
    first = subjects[0]
    (method,) = _figures(run, first, ["method"])
    ledger, parts = _ledger(run), _sections(run, first, maps)
    made: list[page.Item] = [
        _gallery(run, first),
        *_figures(run, first, ["gallery_subjects"]),
    ]
    checks, sanity = _checks(run)
    sections = [
        page.Section("The claims of the paper, here", items=[ledger]),
        page.Section("What is made", items=made),
        *parts,
        page.Section("Checks", checks, sanity),
        page.Section("Settings", settings=_settings(run)),
        page.Section("Files of this run", links=_links(run)),
    ]
    lead = (
        f"Engine of stage 2 in this run: {engine_words(profile.stage2.preset)}. Rows of"
        " the ledger name the engine that they judge.",
        "From responses of visual cortex three features of the seen image are decoded:"
        " c (semantics), z (detail) and Z_CLIP (structure). Stage 1 makes an image from"
        " c and z by diffusion; stage 2 changes it until it shows the decoded"
        " structure.",
    )
    missing = [f"{s} ({why})" for s, why in completeness.missing.items()]
    facts = {
        "profile": f"{profile.name}, digest {profile.digest}",
        "subjects": ", ".join(map(str, subjects)),
        "not finished": "; ".join(missing),
        "images per subject": completeness.image_words(),
        "seed": str(profile.seed),
        "code": provenance.code_digest(),
    }
    known = [(name, words) for name, words in facts.items() if words]
    report = page.Report(TITLE, run.label, lead, method, ledger, sections, known)
    return page.render_report(report)


def conclusions(ledger: pd.DataFrame, figures: Mapping[str, str]) -> list[str]:
    """Return a line for each endpoint that a figure bears on.

    `ledger`: notebook 05's `claims.csv`; `figures`: claim -> the figures that show it.
    """
    lines = []
    for _, row in ledger[ledger["claim"].isin(figures)].iterrows():
        shown = endpoint_words(row) if pd.notna(row["value"]) else row["reason"]
        lines.append(
            f"{row['claim']} ({figures[row['claim']]}) {row['verdict']}: {shown}"
        )
    return lines
