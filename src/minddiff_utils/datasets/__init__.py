"""The data sets and their files: read, checked and downloaded.

`protocol` says what preparation needs of any data set, `opening` opens one by its name;
`published` reads tables, arrays, MATLAB files and HDF5 for all of them.
Of NSD `nsd.layout` lists the files and `nsd.reader` reads them; `check` says what a
folder holds, `download` (on `transfer` and `part_files`) brings what it lacks, from
where `nsd.source` says. `validity` and `leaks` say what makes values unusable.

What the room hands on stands in `__init__.pyi` and is loaded when it is asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
