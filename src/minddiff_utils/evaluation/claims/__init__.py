"""The claims as a ledger: statement, engine, endpoints with intervals, verdict.

`evidence` says what a claim, its endpoints and its verdict are; `rules`, `rules_of_k`
and `rules_of_studies` (O1 to O4, O6) turn tables into endpoints; `ledger` is C1 to
C11 with controls K and questions O; `sanity_checks` is what a sceptic asks first. Not
here: making the tables.
"""

from minddiff_utils.evaluation.claims.evidence import (
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_TESTABLE,
    SUPPORTED,
)
from minddiff_utils.evaluation.claims.ledger import (
    CLAIMS,
    COLUMNS,
    collect_evidence,
    conclusions,
    evaluate_claims,
    ledger_lines,
    verdicts,
)
from minddiff_utils.evaluation.claims.rules import image_pairs
from minddiff_utils.evaluation.claims.rules_of_studies import image_slopes
from minddiff_utils.evaluation.claims.sanity_checks import sanity_table

__all__ = [
    "CLAIMS",
    "COLUMNS",
    "CONTRADICTED",
    "INCONCLUSIVE",
    "NOT_TESTABLE",
    "SUPPORTED",
    "collect_evidence",
    "conclusions",
    "evaluate_claims",
    "image_pairs",
    "image_slopes",
    "ledger_lines",
    "sanity_table",
    "verdicts",
]
