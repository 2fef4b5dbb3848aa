from .decoded_features import SubjectFeatures
from .generate import generate, noise_generators
from .results import write_results, zero_iterations_equal
from .sampler import draw_noise, img2img, make_schedule
from .structural_loss import layer_weights, structural_loss

__all__ = [
    "SubjectFeatures",
    "draw_noise",
    "generate",
    "img2img",
    "layer_weights",
    "make_schedule",
    "noise_generators",
    "structural_loss",
    "write_results",
    "zero_iterations_equal",
]
