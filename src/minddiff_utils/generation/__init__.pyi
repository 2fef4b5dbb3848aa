from .decoded_features import SubjectFeatures as SubjectFeatures
from .generate import generate as generate, noise_generators as noise_generators
from .results import (
    write_results as write_results,
    zero_iterations_equal as zero_iterations_equal,
)
from .sampler import (
    draw_noise as draw_noise,
    img2img as img2img,
    make_schedule as make_schedule,
)
from .structural_loss import StructuralLoss as StructuralLoss
