"""Every figure of the notebooks and the report: one function per figure, drawing only.

Arrays and tables in, a matplotlib `Figure` out. Its panels are `figure.axes`, in
reading order: a reader adds to them and shows the figure again. Nothing here computes a
result, reads a model or a file, or touches pyplot's global state. Each figure says what
it shows, in which unit, over how many units and with which interval; `run.show` adds
the profile's label.

What many of them take: `metrics`, `methods` and the like map a name to what a reader is
told, in the order shown, and what the table has no row of is left out; `confidence` is
that of the table's intervals, for the note. A table without rows or without a column
that is drawn is a DataError, and so are arrays of shapes that do not fit.

Modules follow the notebooks: `preparation` (00, 01), `decoding` (02), `reconstruction`
(03, 04, 06), `studies` (A3, 07 to 09), `evaluation` (05) and `maps` (06), all drawn on
`canvas`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
