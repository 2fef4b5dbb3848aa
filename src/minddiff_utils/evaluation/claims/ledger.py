"""The ledger: the paper's claims, controls and open questions, and their verdicts."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
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
    Rule,
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


_LEAKAGE: dict[str, Any] = {"method": "stage1", "source": "leakage"}
_FACTORS: dict[str, Any] = {"source": "factors"}
_CLIPS: dict[str, Any] = {"method": "lags_prior", "source": "video"}
_READ = ("c_r", "z_r")
#: Claim -> the metric of the paper's number.
_NUMBERS = {"C1": "clip_method", "C2": "ssim_2d", "C3": "pcc"}
#: Other claims -> their rule; statements and engines stand in `claims.csv`.
_RULES: Mapping[str, Rule] = {
    "C4": rules.above("takagi"),
    "C5a": rules.engine_gain("paper"),
    "C5b": rules.engine_gain("released"),
    "C5c": rules.engine_gain("bayes"),
    "C5d": rules.engine_gain("bayes", "stage1_best"),
    "C6": rules.each_feature,
    "C7": rules.every_subject,
    "C8": rules_of_k.balance_of_k,
    "C9": rules.where_read,
    "C10": rules.decodable,
    "C11": rules.signatures,
    "O1a": rules_of_studies.follows_accuracy,
    "O1b": rules.above("trials_25", _READ, method="voxels_25", **_FACTORS),
    "O1c": rules.above(
        "own_50", (*_READ, "clip_judge"), method="aligned_50", **_FACTORS
    ),
    "O2": rules_of_studies.beyond_category,
    "O3": rules_of_studies.held_out,
    "O4a": rules.above("noise_refit", ["clip_judge", "pcc", "ssim_2d"], **_LEAKAGE),
    "O4b": rules.above("axes_10", ["clip_judge", "pcc"], **_LEAKAGE),
    "O5a": rules_of_k.accuracy_against_information,
    "O5b": rules_of_k.weights_for_k,
    "O6a": rules.above(
        "picture", ("frame_order_1000", "two_way_motion", "temporal_ssim"), **_CLIPS
    ),
    "O6b": rules_of_studies.in_order,
}


def _read_claims() -> Iterator[Claim]:
    path = Path(__file__).with_name("claims.csv")
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            name, value = row["claim"], float(row["paper_value"] or "nan")
            if name in _NUMBERS:
                rule = rules.paper_number(_NUMBERS[name], value)
            else:
                rule = _RULES[name]
            profiles = tuple(row["profiles"].split())
            yield Claim(name, row["statement"], rule, row["engine"], value, profiles)


_STATED = {claim.claim: claim for claim in _read_claims()}
#: The ledger: the paper's claims in its order, then what it does not ask.
CLAIMS: tuple[Claim, ...] = (
    *(claim for name, claim in _STATED.items() if name.startswith("C")),
    *(
        Claim(f"K{k}", f"control: above {words}", rules.above(reference), "run")
        for k, (reference, words) in enumerate(CONTROLS.items(), 1)
    ),
    *(claim for name, claim in _STATED.items() if name.startswith("O")),
)


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
        engine = evidence.preset if claim.engine == "run" else claim.engine
        words = engine if engine == "none" else engine_words(engine)
        about = (claim.claim, claim.statement, words)
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
