"""From decoded features to images: every condition of stages 1 and 2.

A condition of the table (`core.conditions`) says which features (decoded, true, another
image's) go through which part of the generator; `generate` makes its images batch by
batch, from one cache of checkpoints, and `write_results` what is kept of them.

`decoded_features` reads what was decoded, `presets` says how, `sampler` is stage 1,
`structural_loss`, `alignment` and `guided_sampling` are stage 2, `baselines` need no
generator, `device_memory` says how many images go through at once, `checkpoints` keeps
batches, `results` writes. What the room hands on stands in `__init__.pyi`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
