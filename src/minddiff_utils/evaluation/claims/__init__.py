"""The paper's claims as a ledger: statement, our evidence, verdict in words.

Every claim is data: what it says, the paper's number, the rule that decides it, stated
before the numbers, the null that must fail the same rule, and the profiles that can
speak to it. Numbers of in-silico subjects are never compared with the paper's.

`evidence` says what a claim, its evidence and its outcome are, `collect` reads it;
`reconstruction_rules` and `decoding_rules` decide; `nulls` makes evidence in which a
null is true; `ledger` is C1 to C11, their verdicts, and whether a check could fail at
all; `sanity_checks` is the sceptic's table. Not here: making the tables (`summaries`).
"""

from minddiff_utils.evaluation.claims.collect import collect_evidence
from minddiff_utils.evaluation.claims.evidence import CANNOT, FAILS, HOLDS
from minddiff_utils.evaluation.claims.ledger import (
    CLAIMS,
    COLUMNS,
    conclusions,
    evaluate_claims,
    vacuity_lines,
    vacuity_table,
)
from minddiff_utils.evaluation.claims.sanity_checks import sanity_table

__all__ = [
    "CANNOT",
    "CLAIMS",
    "COLUMNS",
    "FAILS",
    "HOLDS",
    "collect_evidence",
    "conclusions",
    "evaluate_claims",
    "sanity_table",
    "vacuity_lines",
    "vacuity_table",
]
