"""The pretrained models as one object: autoencoder, U-Net, scheduler, text and CLIP.

A `Backbone` turns images into latents z, captions into token sequences c and images
into layer-wise CLIP features, and back from latents to images; nobody else knows if
the models are the demo's, Stable Diffusion v1-4's or random ones. Weights are
safetensors only, their digests are checked, and all parameters are frozen. It trains
nothing and knows nothing of brains.

What the room hands on stands in `__init__.pyi` and is loaded when it is asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
