"""The paper's tables T1 to T5, and their form for readers.

Tables in, tables out. Long tables hold a number, its interval, n, floor and ceiling in
each row, and say in `status` what a number does not cover; `for_print` sets them in
columns for readers. Nothing is dropped in silence: a subject without scores is a row
"missing", a method that was not run a row with the reason. Not here: files, and how a
score is computed (`evaluation.metrics`).

`rows` holds what all tables share, with T1 and T3, and sets them in columns; `ablation`
is T2, `decoding` T4 and T5.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
