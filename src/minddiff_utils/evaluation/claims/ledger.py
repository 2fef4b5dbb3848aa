"""The ledger: the paper's claims, controls and open questions, and their verdicts."""

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
import pandas as pd

from minddiff_utils.core import store
from minddiff_utils.core.contrasts import CONTROLS
from minddiff_utils.core.run import Run
from minddiff_utils.evaluation.claims import rules, rules_of_k, rules_of_studies
from minddiff_utils.evaluation.claims.evidence import (
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_TESTABLE,
    SUPPORTED,
    Claim,
    Endpoint,
    Evidence,
    count_words,
    decide,
    engine_words,
)
from minddiff_utils.evaluation.subject_tables import gather
from minddiff_utils.evaluation.summaries import ESTIMATE

__all__ = [
    "CLAIMS",
    "COLUMNS",
    "collect_evidence",
    "conclusions",
    "endpoint_words",
    "evaluate_claims",
    "ledger_lines",
    "verdicts",
]

#: Columns of `claims.csv`, one row per endpoint of a claim.
COLUMNS = (
    *("claim", "statement", "engine", "verdict", "reason"),
    *("endpoint", "result", "unit", "scale"),
    *ESTIMATE,
    *("above", "below", "paper_value", "missing", "profile"),
)


def _number(claim: str, name: str, metric: str, value: float) -> Claim:
    return Claim(
        claim,
        f"subject 1: {name}, equal within {rules.MARGIN_NUMBER}",
        rules.paper_number(metric, value),
        "run",
        paper_value=value,
        profiles=("nsd",),
    )


_STAGE2 = "stage 2 improves structure over stage 1 without losing semantics"
_LEAKAGE: dict[str, Any] = {"method": "stage1", "source": "leakage"}
_READ = ("c_r", "z_r")
_OF_CLIPS = ("frame_order_1000", "two_way_motion", "temporal_ssim")
#: The ledger: the paper's claims in its order, then what it does not ask.
CLAIMS: tuple[Claim, ...] = (
    _number("C1", "CLIP similarity 0.765", "clip_method", 0.765),
    _number("C2", "SSIM 0.354", "ssim_2d", 0.354),
    _number("C3", "PCC (pixel correlation) 0.278", "pcc", 0.278),
    Claim(
        "C4",
        "better than Takagi & Nishimoto (2023); Ozcelik et al. (2022) not run",
        rules.above("takagi"),
        "run",
    ),
    Claim("C5a", _STAGE2, rules.engine_gain("paper"), "paper"),
    Claim("C5b", _STAGE2, rules.engine_gain("released"), "released"),
    Claim("C5c", _STAGE2, rules.engine_gain("bayes"), "bayes"),
    Claim(
        "C5d",
        "stage 2 beats the best of N draws of stage 1 (what each costs: T5)",
        rules.engine_gain("bayes", "stage1_best"),
        "bayes",
    ),
    Claim(
        "C6",
        "each of c, z, Z_CLIP contributes: removing one lowers its metric",
        rules.each_feature,
        "stage 1, steered (ours)",
    ),
    Claim(
        "C7",
        "works for every subject without any change per subject",
        rules.every_subject,
        "run",
    ),
    Claim(
        "C8",
        "smaller k: higher decoding accuracy; quality is best at k = 25",
        rules_of_k.balance_of_k,
        "stage 1, steered (ours)",
    ),
    Claim(
        "C9",
        "c is read from high-level areas; low CLIP layers and z from early areas",
        rules.where_read,
    ),
    Claim(
        "C10",
        "c, z, Z_CLIP decode above chance, and quality follows accuracy",
        rules.decodable,
        "run",
    ),
    Claim(
        "C11",
        "low CLIP with high structure: semantics misread; the reverse: detail misread",
        rules.signatures,
        "run",
    ),
    *(
        Claim(f"K{k}", f"control: above {words}", rules.above(reference), "run")
        for k, (reference, words) in enumerate(CONTROLS.items(), 1)
    ),
    Claim(
        "O1a",
        "an image that is read better is made better, subject and image aside",
        rules_of_studies.follows_accuracy,
        "run",
    ),
    Claim(
        "O1b",
        "a quarter of the trials costs more accuracy than a quarter of the voxels",
        rules.above("trials_25", _READ, method="voxels_25", source="factors"),
    ),
    Claim(
        "O1c",
        "a new subject's first session says more when aligned to a trained subject",
        rules.above(
            "own_50", (*_READ, "clip_judge"), method="aligned_50", source="factors"
        ),
        "stage 1",
    ),
    Claim(
        "O2",
        "what is read goes beyond the kind of thing and of place",
        rules_of_studies.beyond_category,
        "stage 1",
    ),
    Claim(
        "O3",
        "categories that trained no decoder are read above chance",
        rules_of_studies.held_out,
        "stage 1",
    ),
    Claim(
        "O4a",
        "the brain adds to the prior: above a decoder fitted to noise",
        rules.above("noise_refit", ["clip_judge", "pcc", "ssim_2d"], **_LEAKAGE),
        "stage 1",
    ),
    Claim(
        "O4b",
        "more than ten principal axes each of c and z are read",
        rules.above("axes_10", ["clip_judge", "pcc"], **_LEAKAGE),
        "stage 1",
    ),
    Claim(
        "O5a",
        "k trades information for accuracy: few features tell less, decoded better",
        rules_of_k.accuracy_against_information,
        "stage 1, steered (ours)",
    ),
    Claim(
        "O5b",
        "weights by the decoder's errors replace k: better than any",
        rules_of_k.weights_for_k,
        "stage 1, steered (ours)",
    ),
    Claim(
        "O6a",
        "clips: lags and a temporal prior read more than each volume as a picture",
        rules.above("picture", _OF_CLIPS, method="lags_prior", source="video"),
        "stage 1",
    ),
    Claim(
        "O6b",
        "clips: frames of 4 s are ordered, those of 0.25 s are not",
        rules_of_studies.in_order,
    ),
)


def _engine(claim: Claim, evidence: Evidence) -> str:
    """Return the engine that a claim judges, in words."""
    name = evidence.preset if claim.engine == "run" else claim.engine
    return name if name == "none" else engine_words(name)


def collect_evidence(
    run: Run,
    scores: pd.DataFrame,
    *,
    subjects: Sequence[int] | None = None,
) -> Evidence:
    """Return everything that the claims are decided on, the study of stage 2 too.

    `scores`: image by image, of notebook 05; `subjects`: the finished ones, by default
    all of the profile.
    """
    done = run.profile.subjects if subjects is None else subjects
    names = ("accuracy", "image_accuracy", "k_selection", "weights", "stage2")
    tables = {name: gather(run, f"{name}.csv", done) for name in names}
    tables |= {"scores": scores.assign(subject=scores["subject"].astype(str))}
    own = run.tree.tables / "video.csv"  # notebook 09 is run by hand: else as kept
    further = {
        "study": run.tree.study / "scores.csv",
        "leakage": run.tree.tables / "leakage.csv",
        "factors": run.tree.tables / "factors.csv",
        "video": own if own.is_file() else run.tree.study / "video.csv",
    }
    for name, path in further.items():
        if path.is_file():
            tables[name] = store.read_table(path).astype({"subject": str})
    return Evidence(
        tables,
        in_silico=run.origin != "measured",
        profile=run.profile.name,
        preset=run.profile.stage2.preset,
        backbone=run.profile.models.backbone,
        missing=[s for s in run.profile.subjects if s not in done],
        confidence=run.profile.evaluation.confidence,
    )


def evaluate_claims(
    evidence: Evidence, *, label: str, claims: Sequence[Claim] = CLAIMS
) -> pd.DataFrame:
    """Return the ledger: one row per endpoint, the verdict of its claim beside it.

    A missing table of the run gives "not testable here"; `label`: the profile's words.
    The columns of `COLUMNS`: `verdict` is "supported", "contradicted", "inconclusive"
    or "not testable here"; `result` of an endpoint "shown", "opposite" or "open". A
    claim without endpoints has one row without numbers.
    """
    rows = []
    for claim in claims:
        outcome = decide(claim, evidence)
        about = (claim.claim, claim.statement, _engine(claim, evidence))
        found = (outcome.verdict, outcome.reason)
        for numbers in [_numbers(e) for e in outcome.endpoints] or [_NONE]:
            rows.append((*about, *found, *numbers, claim.paper_value))
    table = pd.DataFrame(rows, columns=list(COLUMNS[:-2]))
    counts = ["n_images", "n_subjects", "n_subjects_positive"]
    missing = ", ".join(f"subject {s}" for s in evidence.missing)
    table["n_images"] = table["n_images"].replace(0, np.nan)  # subjects are the unit
    return table.astype(dict.fromkeys(counts, "Int64")).assign(
        missing=missing, profile=label
    )


#: The row of a claim without endpoints.
_NONE = (*("",) * 4, *(np.nan,) * (len(ESTIMATE) + 2))


def _numbers(endpoint: Endpoint) -> tuple[object, ...]:
    about = (endpoint.name, endpoint.result, endpoint.unit, endpoint.scale)
    return (*about, *astuple(endpoint.result_of), endpoint.above, endpoint.below)


def verdicts(ledger: pd.DataFrame) -> pd.DataFrame:
    """Return one row per claim: claim, statement, engine, verdict, reason."""
    return ledger.drop_duplicates("claim")[
        ["claim", "statement", "engine", "verdict", "reason"]
    ].reset_index(drop=True)


def ledger_lines(ledger: pd.DataFrame) -> list[str]:
    """Return the ledger for a terminal: each verdict, then its endpoints."""
    lines = []
    for claim, rows in ledger.groupby("claim", sort=False):
        first = rows.iloc[0]
        engine = "" if first["engine"] == "none" else f" [{first['engine']}]"
        lines.append(f"{claim:>4}  {first['verdict']}  ·  {first['statement']}{engine}")
        if rows["value"].isna().all():
            lines.append(f"        {first['reason']}")
            continue
        lines += [f"        {endpoint_words(row)}" for _, row in rows.iterrows()]
    for missing in ledger["missing"].dropna().unique():
        if missing:
            lines.append(f"(not finished, and not in these numbers: {missing})")
    return [*lines, *(f"({label})" for label in ledger["profile"].unique())]


def endpoint_words(row: pd.Series) -> str:
    """Return an endpoint's effect, its interval, how many it is of, and the result."""
    by_subject = row["unit"] == "subject"
    ends = ("subjects_low", "subjects_high") if by_subject else ("ci_low", "ci_high")
    bound = f", bound {row['above']:+g}" if row["above"] else ""
    n = count_words(int(row["n_subjects"]), "subject")
    images = "" if by_subject else f"{count_words(int(row['n_images']), 'image')}, "
    open_words = f"; could show {row['smallest_effect']:.3f}"
    return (
        f"{row['result']}: {row['endpoint']}, {row['scale']} {row['value']:+.3f}"
        f" [{row[ends[0]]:+.3f}, {row[ends[1]]:+.3f}]{bound}; unit {row['unit']},"
        f" {images}{int(row['n_subjects_positive'])} of {n} above 0"
        f"{open_words if row['result'] == 'open' else ''}"
    )


def conclusions(ledger: pd.DataFrame) -> list[str]:
    """Return what to conclude from a ledger: a count, then a sentence for each claim.

    Each sentence begins with the id of its rows in `claims.csv`.
    """
    table = verdicts(ledger)
    states = (SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_TESTABLE)
    counts = [f"{s} {int((table['verdict'] == s).sum())}" for s in states]
    label = ledger["profile"].iloc[0] if len(ledger) else ""
    engines = [f" [{e}]" if e != "none" else "" for e in table["engine"]]
    return [
        f"Of {len(table)} rows: {', '.join(counts)} ({label}).",
        *(
            f"{row.claim} {row.verdict}: {row.statement}{engine}. {row.reason}."
            for row, engine in zip(table.itertuples(), engines, strict=True)
        ),
    ]
