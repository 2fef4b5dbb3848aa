from .ledger import (
    CLAIMS as CLAIMS,
    COLUMNS as COLUMNS,
    collect_evidence as collect_evidence,
    conclusions as conclusions,
    evaluate_claims as evaluate_claims,
    ledger_lines as ledger_lines,
    verdicts as verdicts,
)
from .rules import image_pairs as image_pairs
from .rules_of_studies import image_slopes as image_slopes
from .sanity_checks import sanity_table as sanity_table
