"""All subjects together: scores of every compared method, and the claims' evidence.

Reads what notebooks 01 to 04 wrote for each subject and hands it to `metrics`,
`summaries` and `claims`, which know nothing of files.

`images` reads images, `subject_tables` says which subjects are finished and gathers
their tables, `subject_scores` scores every method, `summaries` has means and
differences with intervals, `claims` the ledger. A table of scores has columns subject,
method, nsd_id, metric, value and, where other images were compared, floor: a row for
each image of a method and metric.

What the room hands on stands in `__init__.pyi` and is loaded when it is asked for, as
its networks take seconds.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
