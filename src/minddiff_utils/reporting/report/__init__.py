"""The report: one HTML page that carries all its figures and tables.

It needs no network and no script, reads on paper, on a phone and by ear, and escapes
every word it is given. It states in plain words what kind of data the numbers come
from. Not here: any number or drawing, and no file is written.

`items` is what a section may hold; `page` puts the page together from `page.html` and
`style.css`. Enlarging and comparing pictures is done by links to the picture itself and
the style's `:target`, so that each picture is in the page once.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
