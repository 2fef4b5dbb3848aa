from .brain_correlation import brain_correlation_table
from .captions import caption_table
from .naming import naming_table
from .scores import NAMED_BY, ROLES, FurtherScores, all_scores
from .shared_images import compare_on, shared515

__all__ = [
    "NAMED_BY",
    "ROLES",
    "FurtherScores",
    "all_scores",
    "brain_correlation_table",
    "caption_table",
    "compare_on",
    "naming_table",
    "shared515",
]
