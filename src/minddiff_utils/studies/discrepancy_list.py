"""The 27 differences between the paper's text and its released code, and the switches.

The numbers are those that the notebooks' deviations name. Facts are of the public
repository at commit c9773ac; "paper" is its text as far as it is known here.
"""

from dataclasses import dataclass

__all__ = ["DISCREPANCIES", "SWITCHES", "Discrepancy", "Switch"]


@dataclass(frozen=True)
class Discrepancy:
    """What the paper says and the code does; `why` there is no effect of its own."""

    number: str
    paper: str
    code: str
    why: str = ""


@dataclass(frozen=True)
class Switch:
    """One difference, turned: `arm` is the code's side, `reference` the paper's."""

    number: str
    words: str
    arm: str
    reference: str


_D = Discrepancy
DISCREPANCIES: tuple[Discrepancy, ...] = (
    _D("1", "updates c and z", "updates z alone"),
    _D("2", "plain gradient steps of .01", "Adam, .01, decaying by .999 an iteration"),
    _D("3", "until the loss converges", "300 iterations, no rule which image counts"),
    _D("4", "T = 50 forward and back", "noised to index 37, denoised by 35 of 50"),
    _D("5", "sum of squared errors", "layers weighted by norm and by 1.5, 1.2, 1, …"),
    _D("1 to 5", "Algorithm 1", "the released loop, fresh noise each time"),
    _D(
        *("6", "no global term", "adds .1 w (1 - cos) on CLIP's output"),
        "w is not defined in the code, and its default layers lack that output",
    ),
    _D(
        *("7", "VQ-VAE", "Stable Diffusion's AutoencoderKL, without a codebook"),
        "a name: there is one autoencoder",
    ),
    _D(
        *("8", "CLIP's text features", "captions cut to 15 tokens of 77"),
        "a choice of Stable Diffusion alone (models.n_tokens), which a demo lacks",
    ),
    _D("9", "CLIP's image features", "images scaled by ImageNet's mean and SD"),
    _D(
        *("10", "one extractor", "bilinear for targets, bicubic for generated images"),
        "the demo's CLIP sees images at the size they are made at: nothing is resized",
    ),
    _D(
        *("11", "low layers of CLIP", "perceptrons of blocks 1 to 6 of 12"),
        "the same, said exactly; fewer blocks: table T2, and the study's pilot",
    ),
    _D("12", "test data unseen", "test voxels scaled by their own statistics"),
    _D("13", "one normalisation", "three: with validation images, without, test's own"),
    _D("14", "correlation", "its absolute value, averaged"),
    _D("15", "one score", "c over targets with the mean, z a mean product"),
    _D("16", "L2-regularised regression", "FastL2LiR: each target its own voxels"),
    _D("17", "one number of voxels", "c: 450 trained, 125 loaded; z: 3000, 4000"),
    _D(
        *("18", "the layers that are used", "features selected of odd ones, used even"),
        "the selection is of other outputs (4 x 768) than the features: it fits none",
    ),
    _D("19", "the best 25 % of features", "the script's default keeps 80 %"),
    _D("k", "which k is best is left open", "(no difference: other k)"),
    _D("20", "Takagi and Nishimoto's method", "all areas for c and z, one sample"),
    _D(
        *("21", "Ozcelik et al.'s method", "noise vector drawn, without a seed"),
        "needs IC-GAN's weights, which this project does not have",
    ),
    _D(
        *("22", "Stable Diffusion v1-4", "an answer to users says v1-5"),
        "needs Stable Diffusion's weights, which a demo does not have",
    ),
    _D(
        *("23", "CLIP, SSIM, PCC", "no code of any metric"),
        "nothing to switch to; definitions side by side: table metrics of notebook 05",
    ),
    _D(
        *("24", "maps of weights on the cortex", "no code of them"),
        "nothing to switch to",
    ),
    _D(
        *("25", "subjects 1, 2, 5, 7", "masks of two subjects, features of one"),
        "files that are missing; here every subject has its own",
    ),
    _D(
        *("26", "eleven areas", "eleven, and a twelfth mask that nothing reads"),
        "the same areas",
    ),
    _D(
        *("27", "images of 512 px", "comments say 256"),
        "comments alone; the demo's images are 64 px",
    ),
)

_S = Switch
SWITCHES: tuple[Switch, ...] = (
    _S("1", "c stays as decoded", "c_stays", "loop"),
    _S("2", "Adam in place of plain steps", "adam", "loop"),
    _S("3", "half of the iterations", "half", "loop"),
    _S("4", "noise to 37, 35 steps; minus all 50", "noised_to_37", "noised_to_49"),
    _S("4", "the same, minus levels that match", "noised_to_37", "noised_to_34"),
    _S("5", "weighted layers", "layer_weights", "loop"),
    _S("1 to 5", "the released loop", "released_loop", "loop"),
    _S("9", "ImageNet's mean and SD", "imagenet", "loop"),
    _S("12", "test voxels by their own scale", "own_scaling", "paper_decoder"),
    _S("13", "scaled with validation images", "scaled_on_all", "paper_decoder"),
    _S("14", "absolute correlations", "absolute", "signed"),
    _S("14", "the same, of another image", "absolute_other", "signed_other"),
    _S("15", "a score for each feature", "three_scores", "signed"),
    _S("16", "FastL2LiR, minus ridge on all voxels", "paper_decoder", "dense"),
    _S("17", "voxels as loaded", "voxels", "paper_decoder"),
    _S("19", "80 % kept, minus 25 %", "k_80", "loop"),
    _S("k", "5 % kept, minus 25 %", "k_5", "loop"),
    _S("k", "all kept, minus 25 %", "k_100", "loop"),
    _S("20", "Takagi's as re-implemented", "takagi_minddiffuser", "takagi"),
)
