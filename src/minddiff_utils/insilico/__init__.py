"""An in-silico NSD: scenes, anatomy, a brain model, and NSD files written from them.

`scenes` (on `backgrounds`) are what is shown, `experiment_design` says when;
`image_features` is what a brain could see in them, `anatomy` where its voxels lie,
`voxel_model` how they respond and `noise` how much that varies; `assumptions` has the
numbers behind both. `nsd_writer` writes it all (`subject_files`,
`file_formats`) into a `folder`; `ground_truth` is what was planted, `true_brain`
answers to other images, and `clips` moves objects before it.

What the room hands on stands in `__init__.pyi` and is loaded when it is asked for: the
metrics read EfficientNet-Lite0 here and nothing else.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
