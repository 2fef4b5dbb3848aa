from .brain_correlation import brain_correlation_table as brain_correlation_table
from .captions import caption_table as caption_table
from .naming import naming_table as naming_table
from .scores import (
    NAMED_BY as NAMED_BY,
    ROLES as ROLES,
    all_scores as all_scores,
)
from .shared_images import compare_on as compare_on, shared515 as shared515
