"""Which rows of the table of conditions are compared, image by image.

Contrasts in the order of `contrasts.csv`, what is taken away of all three features, and
the controls of the ledger. Not here: what each condition is (`conditions`).
"""

from collections.abc import Mapping

__all__ = ["CONTRASTS", "CONTROLS", "FROM_ALL_THREE", "ONE_STEP_EACH", "Pair"]

Pair = tuple[str, str]
#: Feature -> conditions with and without it, it alone taken from all three, steered.
FROM_ALL_THREE: Mapping[str, Pair] = {
    "c": ("stage2_guided", "z_clip"),
    "z": ("stage2_guided", "c_clip"),
    "Z_CLIP": ("stage2_guided", "stage1"),
}
#: The same by steps of the method itself: c and z taken from stage 1, Z_CLIP from
#: stage 2.
ONE_STEP_EACH: Mapping[str, Pair] = {
    "c": ("stage1", "z_only"),
    "z": ("stage1", "c_only"),
    "Z_CLIP": ("stage2", "stage1"),
}
#: (condition, reference) of every contrast the claims and the sanity table read, in the
#: order of `contrasts.csv`. A run makes those whose conditions it has.
CONTRASTS: tuple[Pair, ...] = (
    ONE_STEP_EACH["Z_CLIP"],
    ONE_STEP_EACH["c"],
    ONE_STEP_EACH["z"],
    ("c_only", "z_only"),
    ("stage1", "shuffled"),
    ("stage1", "permuted_voxels"),
    ("stage1", "random_train"),
    ("stage1", "mean_image"),
    ("stage1", "retrieval"),
    ("stage2", "stage1_best"),
    ("stage2", "stage1_posterior"),
    ("stage2", "retrieval"),
    ("stage2", "retrieval_caption"),
    ("stage2", "category_only"),
    ("stage2", "mean_image"),
    ("stage2", "pixel_ridge"),
    ("stage2", "takagi"),
    ("stage2", "takagi_minddiffuser"),
    ("stage2", "brain_diffuser_style"),
    ("stage2", "stage2_shuffled"),
    ("stage2", "z_only"),
    *FROM_ALL_THREE.values(),
    ("true_features", "stage1"),
    ("stage2_true", "stage2"),
    ("stage2_true", "true_features"),
)

#: Controls of stage 2 in the ledger that the paper does not have -> what it must beat.
CONTROLS: Mapping[str, str] = {
    "retrieval": "retrieval of a training image",
    "mean_image": "the mean training image",
    "category_only": "what the category alone gives",
    "retrieval_caption": "the training image of the likeliest caption",
}
