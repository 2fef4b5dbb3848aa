from .registry import (
    METRICS as METRICS,
    definitions as definitions,
    with_settings as with_settings,
)
from .scores import (
    ConditionImages as ConditionImages,
    Seen as Seen,
    SubjectScores as SubjectScores,
    frechet_table as frechet_table,
    score_methods as score_methods,
    score_rows as score_rows,
)
