"""The ledger: the paper's claims C1 to C11 as data, their verdicts, and their nulls."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from minddiff_utils.evaluation.claims import decoding_rules, nulls
from minddiff_utils.evaluation.claims import reconstruction_rules as rules
from minddiff_utils.evaluation.claims.evidence import (
    CANNOT,
    FAILS,
    HOLDS,
    IN_SILICO,
    Claim,
    Evidence,
    Outcome,
    Pair,
    decide,
)

__all__ = [
    "CLAIMS",
    "COLUMNS",
    "MAX_HELD",
    "N_DRAWS",
    "conclusions",
    "evaluate_claims",
    "vacuity_lines",
    "vacuity_table",
]

#: Columns of `claims.csv`.
COLUMNS = (
    "claim",
    "statement",
    "paper_value",
    "our_value",
    "ci_low",
    "ci_high",
    "n",
    "floor",
    "ceiling",
    "verdict",
    "profile",
)
#: Draws of evidence in which a claim's null is true.
N_DRAWS = 20
#: A check is vacuous where it holds on more than this share of them. A rule at level
#: 0.05 holds on 1 of 20 on average, and on more than 4 with probability 0.003; a rule
#: that ignores its evidence holds on all.
MAX_HELD = 0.20


def _methods(*pairs: Pair) -> tuple[str, ...]:
    return tuple(dict.fromkeys(method for pair in pairs for method in pair[:2]))


def _ablations(evidence: Evidence) -> tuple[Pair, ...]:
    return tuple(rules.ablation_pairs(evidence).values())


def _number(claim: str, name: str, metric: str, value: float, null: str) -> Claim:
    return Claim(
        claim,
        f"subject 1: {name}",
        null=null,
        evaluate=rules.paper_number(metric, value),
        make_null=nulls.at_floor(metric),
        make_effect=nulls.number_effect(metric, value),
        metrics=(metric,),
        methods=("stage2",),
        paper_value=value,
        profiles=("nsd",),
    )


#: The ledger, in the paper's order.
CLAIMS: tuple[Claim, ...] = (
    _number("C1", "CLIP similarity", "clip_judge", 0.765, "similarity to other images"),
    _number("C2", "SSIM", "ssim_2d", 0.354, "SSIM with other images"),
    _number(
        "C3", "PCC (pixel correlation)", "pcc", 0.278, "correlation with other images"
    ),
    Claim(
        "C4",
        "better than Takagi & Nishimoto (2023); Ozcelik et al. (2022) not run",
        null="equal scores: the systems' images exchanged at random",
        evaluate=rules.other_systems,
        make_null=nulls.pair_null(lambda _: rules.TAKAGI),
        make_effect=nulls.pair_effect(lambda _: rules.TAKAGI),
        methods=_methods(*rules.TAKAGI),
    ),
    Claim(
        "C5",
        "stage 2 improves structure over stage 1 without losing semantics",
        null="stage 2 minus stage 1 is 0: the two exchanged at random",
        evaluate=rules.stage2_gain,
        make_null=nulls.pair_null(lambda _: rules.GAIN),
        make_effect=nulls.gain_effect(lambda _: rules.GAIN),
        methods=_methods(*rules.GAIN),
    ),
    Claim(
        "C6",
        "each of c, z, Z_CLIP contributes: removing one lowers its metric",
        null="removing a feature changes its metric by 0: with and without exchanged",
        evaluate=rules.each_feature,
        make_null=nulls.pair_null(_ablations),
        make_effect=nulls.pair_effect(_ablations),
        methods=_methods(*rules.FACTORIAL.values(), *rules.SINGLE_STEPS.values()),
    ),
    Claim(
        "C7",
        "works for subjects 1, 2, 5, 7 without any change per subject",
        null="a subject's scores equal the shuffled-pair floor",
        evaluate=rules.every_subject,
        make_null=nulls.at_floor("clip_judge", "pcc"),
        make_effect=nulls.floor_effect("clip_judge", "pcc"),
        metrics=("clip_judge", "pcc"),
        methods=("stage2",),
    ),
    Claim(
        "C8",
        "smaller k: higher decoding accuracy, less information; k = 25 balances",
        null="accuracy and information do not depend on k: k in random order",
        evaluate=decoding_rules.selection,
        make_null=nulls.shuffle_k,
        make_effect=nulls.plant_k,
        metrics=("r_selected_mean", "variance_kept"),
    ),
    Claim(
        "C9",
        "c leans on high-level areas; low CLIP layers and z lean on early areas",
        null="weights do not depend on the area: areas' names permuted",
        evaluate=decoding_rules.interpretable,
        make_null=nulls.shuffle_areas,
        make_effect=nulls.plant_weights,
        metrics=("weight",),
    ),
    Claim(
        "C10",
        "c, z, Z_CLIP decode above chance, and quality follows across subjects",
        null="accuracy equals that of permuted test images; subjects in any order",
        evaluate=decoding_rules.decodable,
        make_null=nulls.shuffle_decoding,
        make_effect=nulls.plant_decoding,
        metrics=("r_mean", "clip_judge"),
    ),
    Claim(
        "C11",
        "low CLIP with high SSIM: semantic misalignment; the reverse: distortion",
        null="the scores do not tell the two failures apart: the two exchanged",
        evaluate=rules.failure_signatures,
        make_null=nulls.pair_null(lambda _: rules.SIGNATURES),
        make_effect=nulls.pair_effect(lambda _: rules.SIGNATURES),
        metrics=("clip_judge", "ssim_2d"),
        methods=_methods(*rules.SIGNATURES),
    ),
)


def evaluate_claims(evidence: Evidence, *, label: str) -> pd.DataFrame:
    """Return the ledger: one row per claim, verdict in words.

    Parameters
    ----------
    evidence : Evidence
        Tables of the run; a missing one gives "cannot be said here".
    label : str
        The profile's words.

    Returns
    -------
    DataFrame
        The columns of `COLUMNS`. A verdict begins with "holds", "fails" or "cannot be
        said here", in silico followed by "(in silico, direction only)".
    """
    rows = []
    for claim in CLAIMS:
        outcome = decide(claim, evidence)
        verdict = outcome.verdict(in_silico=evidence.in_silico)
        numbers = (outcome.value, outcome.ci_low, outcome.ci_high, outcome.n)
        ends = (outcome.floor, outcome.ceiling, verdict, label)
        rows.append((claim.claim, claim.statement, claim.paper_value, *numbers, *ends))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def conclusions(ledger: pd.DataFrame) -> list[str]:
    """Return what to conclude from a ledger: a count, then a sentence for each row.

    Each sentence begins with the id of its row in `claims.csv`, where the whole verdict
    stands, and holds the claim, its state and the first reason for it.
    """
    parts = ledger["verdict"].str.partition(": ")
    states = parts[0].str.removesuffix(IN_SILICO)
    counts = [f"{s} {int((states == s).sum())}" for s in (HOLDS, FAILS, CANNOT)]
    mark = IN_SILICO if parts[0].str.endswith(IN_SILICO).any() else ""
    reasons = parts[2].str.partition(";")[0]
    sentences = zip(
        *(ledger["claim"], ledger["statement"], states, reasons), strict=True
    )
    return [
        f"Of {len(ledger)} claims: {', '.join(counts)}{mark}.",
        *(f"{k} {state} ({what}): {why}." for k, what, state, why in sentences),
    ]


# --- can the checks fail? -------------------------------------------------------------


def vacuity_table(
    evidence: Evidence,
    *,
    rng: np.random.Generator,
    label: str,
    claims: Sequence[Claim] = CLAIMS,
) -> pd.DataFrame:
    """Return whether each claim's rule refuses its null and accepts its effect.

    The rule that decided the claim decides again on `N_DRAWS` draws of evidence of the
    same shape in which the null is true, and on one draw with a planted effect. It is
    vacuous where it holds on more than `MAX_HELD` of the nulls, or not on the effect.

    Parameters
    ----------
    evidence : Evidence
        With the table `scores`, which claims on images need.
    rng : numpy Generator
        Each claim gets a child of its own, in the order of `claims`.
    label : str
        The profile's words.
    claims : sequence of Claim

    Returns
    -------
    DataFrame
        Columns claim, null, n_draws, n_held, vacuous, observed (the state of the
        verdict) and profile. `vacuous` is yes, no, or "not run" with 0 draws: the run
        says nothing on the claim, so that there is no check to doubt, or it kept no
        scores from which a null could be made.
    """
    rows = []
    for claim, own in zip(claims, rng.spawn(len(claims)), strict=True):
        observed = decide(claim, evidence)
        drawn = _draw(claim, evidence, observed, own)
        rows.append((claim.claim, claim.null, *drawn, observed.state, label))
    columns = ["claim", "null", "n_draws", "n_held", "vacuous", "observed", "profile"]
    return pd.DataFrame(rows, columns=columns)


def _draw(
    claim: Claim, evidence: Evidence, observed: Outcome, rng: np.random.Generator
) -> tuple[int, int, str]:
    """Return draws, draws that held, and the word."""
    scores = evidence.table("scores")
    if observed.state == CANNOT or (claim.methods and scores.empty):
        return 0, 0, "not run"
    if claim.methods:
        used = scores["method"].isin(claim.methods) & scores["metric"].isin(
            claim.metrics
        )
        own = scores[used].assign(subject=scores.loc[used, "subject"].astype(str))
        evidence = evidence.with_tables(scores=own)
    held = sum(
        claim.evaluate(claim.make_null(evidence, rng)).state == HOLDS
        for _ in range(N_DRAWS)
    )
    accepts = claim.evaluate(claim.make_effect(evidence, rng)).state == HOLDS
    vacuous = held > MAX_HELD * N_DRAWS or not accepts
    return N_DRAWS, held, "yes" if vacuous else "no"


def vacuity_lines(table: pd.DataFrame) -> list[str]:
    """Return one sentence per vacuous claim of a `vacuity_table`."""
    lines = []
    for row in table[table["vacuous"] == "yes"].to_dict("records"):
        why = "its rule does not hold where the effect was planted"
        if row["n_held"] > MAX_HELD * row["n_draws"]:
            share = f"{row['n_held']} of {row['n_draws']} draws"
            why = f"its rule holds on {share} of its null ({row['null']})"
        lines.append(f"{row['claim']} is vacuous: {why}")
    return lines
