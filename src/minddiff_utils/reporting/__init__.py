"""Drawing and printing: figures, tables, galleries, surface maps, the report.

`figures` and `tables` are used by name; the rest of the room's face stands in
`__init__.pyi` and is loaded when it is asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
