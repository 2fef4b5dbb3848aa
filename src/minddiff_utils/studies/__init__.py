"""Engines of stage 2 compared, a run of NSD's size rehearsed, costs.

`stage2_engines` runs and reads the comparison, `stage2_arms` says what is compared.
`cost` counts what stage 2 takes, `unit_rates` how fast a device is, `storage` what lies
on disk; `cost_report` prints them. `rehearsal` runs the notebooks at NSD's sizes on
`rehearsal_data` and random models, and reads other data sets at their sizes, in
`rehearsal_folders`; `timing_report` says what the whole run would take.

What the room hands on stands in `__init__.pyi` and is loaded when it is asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
