"""The report: one HTML page that carries all its figures and tables.

It needs no network and no script, reads on paper, on a phone and by ear, and escapes
every word it is given. It states in plain words what kind of data the numbers come
from. Not here: any number or drawing, and no file is written.

`page` says what a page may hold; `page.html` and `style.css` lay it out.
"""
