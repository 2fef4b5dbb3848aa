"""The data sets and their files: read, checked and downloaded.

`protocol` says what preparation needs of any data set, `opening` opens one by its name.
A data set's folder lists its files (`inventory`) and reads them, with what all share:
`published` (tables, arrays, MATLAB, HDF5, volumes), `surfaces`, `visual_areas`, `coco`.
`check` says what NSD's folder holds; `download` (on `transfer` and `part_files`) brings
what a folder lacks, from where `sources` says. `validity` and `leaks` say what makes
values unusable.

What the room hands on stands in `__init__.pyi` and is loaded when it is asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
