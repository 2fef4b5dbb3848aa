"""The ledger: the paper's claims C1 to C11 as data, their verdicts, and their nulls."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from minddiff_utils.evaluation.claims import (
    decoding_rules,
    nulls,
    reconstruction_rules,
)
from minddiff_utils.evaluation.claims.evidence import (
    CANNOT,
    HOLDS,
    SHORT,
    Claim,
    Evidence,
    Outcome,
    decide,
)
from minddiff_utils.evaluation.claims.reconstruction_rules import (
    FACTORIAL,
    SINGLE_STEPS,
    Pair,
)

__all__ = [
    "CLAIMS",
    "COLUMNS",
    "MAX_HELD",
    "N_DRAWS",
    "claim_table",
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

_NAN = float("nan")
_REAL, _DIRECTION = ("nsd",), ("demo", "nsd")
_THREE = tuple(SHORT)

_TAKAGI = tuple(Pair("stage2", "takagi", metric) for metric in _THREE)
_GAIN = tuple(Pair("stage2", "stage1", metric) for metric in _THREE)
_SIGNATURES = (
    Pair("c_only", "z_only", "clip_judge"),
    Pair("c_only", "z_only", "ssim_2d", -1),
)


def _methods(*pairs: Pair) -> tuple[str, ...]:
    return tuple(dict.fromkeys(method for pair in pairs for method in pair[:2]))


def _ablations(evidence: Evidence) -> tuple[Pair, ...]:
    return tuple(reconstruction_rules.ablation_pairs(evidence).values())


def _number(claim: str, name: str, metric: str, value: float, null: str) -> Claim:
    return Claim(
        claim=claim,
        statement=f"subject 1: {name}",
        paper_value=value,
        metrics=(metric,),
        methods=("stage2",),
        direction="the paper's number lies in our interval",
        null=null,
        profiles=_REAL,
        evaluate=reconstruction_rules.paper_number(metric, value),
        make_null=nulls.at_floor(metric),
        make_effect=nulls.number_effect(metric, value),
    )


#: The ledger, in the paper's order.
CLAIMS: tuple[Claim, ...] = (
    _number("C1", "CLIP similarity", "clip_judge", 0.765, "similarity to other images"),
    _number("C2", "SSIM", "ssim_2d", 0.354, "SSIM with other images"),
    _number(
        "C3",
        "PCC (pixel correlation)",
        "pcc",
        0.278,
        "correlation with other images",
    ),
    Claim(
        claim="C4",
        statement=(
            "better than Takagi & Nishimoto (2023); Ozcelik et al. (2022) not run"
        ),
        paper_value=_NAN,
        metrics=_THREE,
        methods=_methods(*_TAKAGI),
        direction="higher in semantics and in structure",
        null="equal scores: the systems' images exchanged at random",
        profiles=_DIRECTION,
        evaluate=reconstruction_rules.other_systems,
        make_null=nulls.pair_null(lambda _: _TAKAGI),
        make_effect=nulls.pair_effect(lambda _: _TAKAGI),
    ),
    Claim(
        claim="C5",
        statement="stage 2 improves structure over stage 1 without losing semantics",
        paper_value=_NAN,
        metrics=_THREE,
        methods=_methods(*_GAIN),
        direction="higher in structure, not lower in semantics by a tenth of the lead",
        null="stage 2 minus stage 1 is 0: the two exchanged at random",
        profiles=_DIRECTION,
        evaluate=reconstruction_rules.stage2_gain,
        make_null=nulls.pair_null(lambda _: _GAIN),
        make_effect=nulls.gain_effect(lambda _: _GAIN),
    ),
    Claim(
        claim="C6",
        statement="each of c, z, Z_CLIP contributes: removing one lowers its metric",
        paper_value=_NAN,
        metrics=_THREE,
        methods=_methods(*FACTORIAL.values(), *SINGLE_STEPS.values()),
        direction="lower without it, for each of the three",
        null="removing a feature changes its metric by 0: with and without exchanged",
        profiles=_DIRECTION,
        evaluate=reconstruction_rules.each_feature,
        make_null=nulls.pair_null(_ablations),
        make_effect=nulls.pair_effect(_ablations),
    ),
    Claim(
        claim="C7",
        statement="works for subjects 1, 2, 5, 7 without any change per subject",
        paper_value=_NAN,
        metrics=("clip_judge", "pcc"),
        methods=("stage2",),
        direction="higher than the floor in every subject",
        null="a subject's scores equal the shuffled-pair floor",
        profiles=_DIRECTION,
        evaluate=reconstruction_rules.every_subject,
        make_null=nulls.at_floor("clip_judge", "pcc"),
        make_effect=nulls.floor_effect("clip_judge", "pcc"),
    ),
    Claim(
        claim="C8",
        statement=(
            "smaller k: higher decoding accuracy, less information; k = 25 balances"
        ),
        paper_value=_NAN,
        metrics=("r_selected_mean", "variance_kept"),
        methods=(),
        direction="accuracy falls and information rises with k; 25 as good as the best",
        null="accuracy and information do not depend on k: k in random order",
        profiles=_DIRECTION,
        evaluate=decoding_rules.selection,
        make_null=nulls.shuffle_k,
        make_effect=nulls.plant_k,
    ),
    Claim(
        claim="C9",
        statement=(
            "c leans on high-level areas; low CLIP layers and z lean on early areas"
        ),
        paper_value=_NAN,
        metrics=("weight",),
        methods=(),
        direction="c above 1, z and the lowest CLIP layer below 1",
        null="weights do not depend on the area: areas' names permuted",
        profiles=_DIRECTION,
        evaluate=decoding_rules.interpretable,
        make_null=nulls.shuffle_areas,
        make_effect=nulls.plant_weights,
    ),
    Claim(
        claim="C10",
        statement=(
            "c, z, Z_CLIP decode above chance, and quality follows across subjects"
        ),
        paper_value=_NAN,
        metrics=("r_mean", "clip_judge"),
        methods=(),
        direction="higher than chance, and subjects in the same order",
        null="accuracy equals that of permuted test images; subjects in any order",
        profiles=_DIRECTION,
        evaluate=decoding_rules.decodable,
        make_null=nulls.shuffle_decoding,
        make_effect=nulls.plant_decoding,
    ),
    Claim(
        claim="C11",
        statement=(
            "low CLIP with high SSIM: semantic misalignment; the reverse: distortion"
        ),
        paper_value=_NAN,
        metrics=("clip_judge", "ssim_2d"),
        methods=_methods(*_SIGNATURES),
        direction="without c lower in CLIP, without z lower in SSIM",
        null="the scores do not tell the two failures apart: the two exchanged",
        profiles=_DIRECTION,
        evaluate=reconstruction_rules.failure_signatures,
        make_null=nulls.pair_null(lambda _: _SIGNATURES),
        make_effect=nulls.pair_effect(lambda _: _SIGNATURES),
    ),
)


def claim_table(claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """Return what was fixed before the numbers, one row per claim.

    Returns
    -------
    DataFrame
        Columns claim, statement, paper_value, metrics, direction, null, profiles.
    """
    rows = [
        {
            "claim": claim.claim,
            "statement": claim.statement,
            "paper_value": claim.paper_value,
            "metrics": ", ".join(SHORT.get(m, m) for m in claim.metrics),
            "direction": claim.direction,
            "null": claim.null,
            "profiles": ", ".join(claim.profiles),
        }
        for claim in claims
    ]
    return pd.DataFrame(rows)


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
        found = decide(claim, evidence)
        verdict = found.verdict(in_silico=evidence.in_silico)
        numbers = (found.value, found.ci_low, found.ci_high, found.n)
        ends = (found.floor, found.ceiling, verdict, label)
        rows.append((claim.claim, claim.statement, claim.paper_value, *numbers, *ends))
    return pd.DataFrame(rows, columns=list(COLUMNS))


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
    found = table[table["vacuous"] == "yes"]
    return [_vacuous_words(row) for _, row in found.iterrows()]


def _vacuous_words(row: pd.Series) -> str:
    held, drawn = int(row["n_held"]), int(row["n_draws"])
    if held > MAX_HELD * drawn:
        why = f"its rule holds on {held} of {drawn} draws of its null ({row['null']})"
    else:
        why = "its rule does not hold where the effect was planted"
    return f"{row['claim']} is vacuous: {why}"
