"""The files of NSD: read, checked and downloaded; what makes their values unusable.

`nsd.layout` lists the files and `nsd.reader` reads them; `check` says what a folder
holds, `download` (on `transfer` and `part_files`) brings what it lacks, from where
`nsd.source` says. `validity` and `leaks` compare numbers and images.

What the room hands on stands in `__init__.pyi` and is loaded when it is asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
