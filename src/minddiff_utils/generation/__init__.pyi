from .decoded_features import SubjectFeatures
from .generate import generate, noise_generators
from .results import write_results, zero_iterations_equal
from .sampler import draw_noise, img2img, make_schedule
from .structural_loss import StructuralLoss

__all__ = [
    "StructuralLoss",
    "SubjectFeatures",
    "draw_noise",
    "generate",
    "img2img",
    "make_schedule",
    "noise_generators",
    "write_results",
    "zero_iterations_equal",
]
