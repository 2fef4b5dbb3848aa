"""All subjects together: scores of every compared method, and the claims' evidence.

Reads what notebooks 01 to 04 wrote for each subject and hands it to `metrics`,
`summaries` and `claims`, which know nothing of files.

`images` reads images, `completeness` says which subjects are finished,
`subject_tables` gathers their tables, `subject_scores` scores every method,
`summaries` has means and differences with intervals, `floors` what knowing nothing
scores, `claims` the ledger.

What the room hands on stands in `__init__.pyi` and is loaded when it is asked for, as
its networks take seconds.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
