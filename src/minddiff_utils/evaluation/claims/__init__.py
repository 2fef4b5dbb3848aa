"""The claims as a ledger: statement, engine, endpoints with intervals, verdict.

`evidence` says what a claim, its endpoints and its verdict are; `rules`, `rules_of_k`
and `rules_of_studies` (O1 to O4, O6) turn tables into endpoints; `ledger` is C1 to
C11 with controls K and questions O; `sanity_checks` is what a sceptic asks first. Not
here: making the tables.

What the folder hands on stands in `__init__.pyi` and is loaded when it is asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
