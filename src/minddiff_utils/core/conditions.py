"""The one table of conditions: every row of the tables is described here alone.

A condition is one way to make an image for each image that was seen: a stage, an
engine, another system, a floor, a ceiling, a cell of the ablation. Tables, contrasts,
galleries, plans of compute and disk ask this table, and notebooks 03 and 04 make the
images of each row that has an engine: a new row is one edit, here. Not here: how an
engine works (`generation`) and what the images score (`evaluation`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

from minddiff_utils.core.condition import Condition, Engine, Source
from minddiff_utils.core.profile import PaperConfig, Profile

__all__ = [
    "NOISE_WEIGHTS",
    "TABLE",
    "ablation_conditions",
    "by_name",
    "ceilings",
    "compared",
    "compared_words",
    "conditions_of",
    "draws",
    "factorial",
    "floors",
    "gallery_words",
    "generated",
    "iteration_name",
    "k_name",
    "layers_name",
    "n_images_of",
    "not_run",
]

#: Of a cell of the factorial that no other table has.
_CELL: dict[str, Any] = {"n_images": "ablation", "is_cell": True}


def _made(engine: Engine, source: Source, *names: str) -> dict[str, Any]:
    """Return an engine, and where the features called `names` come from."""
    return {"engine": engine, **dict.fromkeys(names, source)}


#: Every condition, in the order of the tables.
TABLE: tuple[Condition, ...] = (
    Condition(
        "stage1",
        "stage 1: decoded c and z",
        "method",
        **_made("sampler", "decoded", "c", "z"),
        ceiling="true_features",
        floor="shuffled",
        is_cell=True,
        short="stage 1",
    ),
    Condition(
        "stage2",
        "stage 2: aligned with decoded Z_CLIP",
        "method",
        **_made("preset", "decoded", "c", "z", "clip"),
        ceiling="stage2_true",
        floor="stage2_shuffled",
        short="stage 2",
    ),
    Condition(
        "stage2_guided",
        "stage 1's sampling steered by Z_CLIP (not Algorithm 1)",
        "method",
        **_made("bayes", "decoded", "c", "z", "clip"),
        n_images="ablation",
        ceiling="stage2_true",
        is_cell=True,
        short="stage 1, steered",
    ),
    Condition(
        "stage1_posterior",
        "stage 1 from the posterior mean of c, less noise on z (ours)",
        "method",
        **_made("sampler", "posterior", "c"),
        z="decoded",
        ceiling="true_features",
        short="stage 1 from the posterior of c",
    ),
    Condition(
        "stage2_paper",
        "stage 2 by Algorithm 1, first images only",
        "method",
        **_made("paper", "decoded", "c", "z", "clip"),
        n_images="paper",
        ceiling="stage2_true",
    ),
    Condition(
        "z_only",
        "decoded z through the autoencoder, no c",
        "part",
        **_made("autoencoder", "decoded", "z"),
        ceiling="true_features",
    ),
    Condition(
        "c_only",
        "decoded c from noise, no z",
        "part",
        **_made("sampler", "decoded", "c"),
        ceiling="true_features",
        is_cell=True,
    ),
    Condition(
        "takagi",
        "Takagi & Nishimoto: z from early, c from higher areas, no stage 2",
        "system",
        **_made("sampler", "own", "c", "z"),
        strength="takagi",
        ceiling="true_features",
        short="Takagi & Nishimoto",
    ),
    Condition(
        "takagi_minddiffuser",
        "Takagi as MindDiffuser re-implemented it: all areas",
        "system",
        **_made("sampler", "own", "c", "z"),
        ceiling="true_features",
        short="Takagi & Nishimoto, as MindDiffuser ran it",
    ),
    Condition(
        "brain_diffuser_style",
        "Brain-Diffuser's style: pixels read, then c and CLIP",
        "system",
        c="decoded",
        z="pixels",
        **_made("bayes", "decoded", "clip"),
        strength="brain_diffuser",
        layers="highest",
        settings={"strength": 0.2},  # of a pull: its own, whatever ours is
        short="Brain-Diffuser's style",
    ),
    Condition(
        "pixel_ridge",
        "ridge from voxels to pixels",
        "baseline",
        engine="pixels",
        short="ridge to pixels",
    ),
    Condition(
        "retrieval",
        "nearest training image by decoded features",
        "baseline",
        engine="nearest",
        short="retrieval",
    ),
    Condition(
        "retrieval_caption",
        "training image of the likeliest caption",
        "baseline",
        engine="likeliest",
        short="image of the likeliest caption",
    ),
    Condition(
        "posterior_image",
        "mean of the training images over the posterior of their captions",
        "baseline",
        engine="expected",
    ),
    Condition(
        "stage1_best",
        "best of 10 draws of stage 1 by the structural loss, no gradient",
        "baseline",
        **_made("sampler", "decoded", "c", "z", "clip"),
        short="best of 10 draws of stage 1",
        n_draws=10,
    ),
    Condition(
        "category_only",
        "mean c of training images of the true category, no z: control",
        "baseline",
        **_made("sampler", "own", "c"),
        short="the true category alone",
    ),
    *(
        Condition(
            f"stage1_draw_{k}",
            f"stage 1, draw {k} of its noise",
            "draw",
            **_made("sampler", "decoded", "c", "z"),
            draw=k,
        )
        for k in (2, 3)
    ),
    Condition(
        "random_train",
        "a training image at random: floor",
        "floor",
        engine="random",
        short="a training image at random",
    ),
    Condition(
        "mean_image",
        "mean training image, the same for every brain",
        "floor",
        engine="mean",
        short="the mean training image",
    ),
    Condition(
        "true_features",
        "true c and z: recovery ceiling of stage 1",
        "ceiling",
        **_made("sampler", "true", "c", "z"),
        ceiling="autoencoder",
    ),
    Condition(
        "stage2_true",
        "true c, z and Z_CLIP: recovery ceiling of stage 2",
        "ceiling",
        **_made("preset", "true", "c", "z", "clip"),
        n_images="controls",
        ceiling="autoencoder",
    ),
    Condition(
        "shuffled",
        "stage 1 from another image's brain: floor",
        "floor",
        **_made("sampler", "shuffled", "c", "z"),
        ceiling="true_features",
        short="stage 1 from another image's brain",
    ),
    Condition(
        "stage2_shuffled",
        "stage 2 from another image's brain: floor",
        "floor",
        **_made("preset", "shuffled", "c", "z", "clip"),
        n_images="controls",
        ceiling="stage2_true",
        short="stage 2 from another image's brain",
    ),
    Condition(
        "permuted_voxels",
        "stage 1 from responses with permuted voxels: floor",
        "floor",
        **_made("sampler", "own", "c", "z"),
        ceiling="true_features",
        short="stage 1 from responses with permuted voxels",
    ),
    Condition(
        "autoencoder",
        "true image through the autoencoder and back",
        "ceiling",
        **_made("autoencoder", "true", "z"),
    ),
    Condition(
        "ic_gan",
        "Ozcelik et al. 2022: instance-conditioned GAN",
        "system",
        why_not_run="Ozcelik et al. 2022 generate with an instance-conditioned GAN"
        " trained on ImageNet, whose weights are neither packaged nor licensed for this"
        " project; a stand-in of another architecture would not be their method",
    ),
    # the cells of the factorial that no other table has
    Condition(
        "none", "no feature: the generator alone", "part", engine="sampler", **_CELL
    ),
    Condition(
        "z_null",
        "decoded z, denoised under the empty caption",
        "part",
        **_made("sampler", "decoded", "z"),
        **_CELL,
    ),
    Condition(
        "clip_only",
        "decoded Z_CLIP alone, steered from noise",
        "part",
        **_made("bayes", "decoded", "clip"),
        **_CELL,
    ),
    Condition(
        "c_clip",
        "decoded c and Z_CLIP, steered from noise",
        "part",
        **_made("bayes", "decoded", "c", "clip"),
        **_CELL,
    ),
    Condition(
        "z_clip",
        "decoded z and Z_CLIP, steered under the empty caption",
        "part",
        **_made("bayes", "decoded", "z", "clip"),
        **_CELL,
    ),
)


def by_name() -> dict[str, Condition]:
    """Return the conditions of `TABLE` by name."""
    return {row.name: row for row in TABLE}


# --- what the tables of all methods show ----------------------------------------------


def compared() -> list[Condition]:
    """Return the rows of the table of all methods, as far as they are run."""
    run = (row for row in TABLE if row.kind != "draw" and not row.why_not_run)
    return [row for row in run if row.n_images != "ablation" or row.kind == "method"]


def draws() -> list[str]:
    """Return the conditions that are stage 1 from other noise, stage 1 first."""
    return ["stage1", *(row.name for row in TABLE if row.kind == "draw")]


def compared_words(n_iter: int) -> dict[str, str]:
    """Return the labels of the compared rows; Algorithm 1 cut short says so.

    >>> compared_words(2)["stage2_paper"]
    'stage 2 by 2 of the 300 iterations of Algorithm 1, first images only'
    """
    whole = PaperConfig().n_iter
    words = {row.name: row.label for row in compared()}
    if n_iter < whole:
        few = f"{n_iter} of the {whole} iterations of Algorithm 1"
        cut = [row.name for row in compared() if row.engine == "paper"]
        words |= dict.fromkeys(cut, f"stage 2 by {few}, first images only")
    return words


def not_run() -> dict[str, str]:
    """Return the systems that cannot be run here, each with the reason."""
    return {row.name: row.why_not_run for row in TABLE if row.why_not_run}


def ceilings() -> dict[str, str]:
    """Return each condition's ceiling, where it has one."""
    return {row.name: row.ceiling for row in TABLE if row.ceiling}


def floors() -> dict[str, str]:
    """Return the conditions that know nothing of the image, in words."""
    return {row.name: row.short for row in TABLE if row.kind == "floor"}


def gallery_words() -> dict[str, str]:
    """Return the rows of the gallery of compared systems, in words.

    MindDiffuser's come first, those with Z_CLIP above the stage that they start from.
    """
    whole = [row for row in TABLE if row.short and row.n_images == "all"]
    rows = [row for row in whole if row.kind != "floor"]
    methods = [row for row in rows if row.kind == "method"]
    methods.sort(key=lambda row: row.clip is None)
    others = [row for row in rows if row.kind != "method"]
    return {row.name: row.short for row in [*methods, *others]}


# --- the ablation ---------------------------------------------------------------------


def factorial() -> dict[str, tuple[bool, bool, bool]]:
    """Return the cells of the factorial -> which of c, z and Z_CLIP each has.

    >>> list(factorial())[:3]
    ['none', 'c_only', 'z_null']
    """
    flags = {
        row.name: (row.c is not None, row.z is not None, row.clip is not None)
        for row in TABLE
        if row.is_cell
    }
    return dict(sorted(flags.items(), key=lambda item: item[1][::-1]))


def layers_name(layers: Sequence[int]) -> str:
    """Return the condition's name for some CLIP blocks: guided_layers_1_2."""
    return "guided_layers_" + "_".join(map(str, layers))


def iteration_name(n_iter: int) -> str:
    """Return the condition's name for a number of iterations: stage2_iter_4."""
    return f"stage2_iter_{n_iter}"


#: Z_CLIP steers with all features, each weighted by the decoder's errors: no k.
NOISE_WEIGHTS = "guided_likelihood"


def k_name(k_percent: float, clip: Literal["decoded", "true"] = "decoded") -> str:
    """Return the condition's name for some k: guided_k5, guided_true_k12.5."""
    return f"guided_{'' if clip == 'decoded' else 'true_'}k{k_percent:g}"


def ablation_conditions(profile: Profile) -> list[Condition]:
    """Return the ablation's conditions that no other table has: cells, then ladders."""
    cells = [r for r in TABLE if r.n_images == "ablation" and r.kind == "part"]
    return [*cells, *_ladders(profile)]


def _ladders(profile: Profile) -> Iterator[Condition]:
    """Yield what the profile varies beside the factorial: blocks, k, iterations.

    And what steers in the place of the k % best decoded features: the same ones without
    error, and all of them, weighted.
    """
    three = _made("bayes", "decoded", "c", "z", "clip")
    steered = Condition("", "", "part", **three, n_images="ablation")
    for layers in profile.ablation.layers:
        words = f"steered, CLIP blocks {', '.join(map(str, layers))}"
        yield replace(steered, name=layers_name(layers), label=words, layers=layers)
    for k in profile.ablation.k_grid:
        words = f"steered, k = {k:g} %"
        yield replace(steered, name=k_name(k), label=words, k_percent=k)
    # the same k, and c and z, but no error in Z_CLIP: what is lost is information
    true = replace(steered, clip="true", n_images="few")
    for k in profile.ablation.k_grid:
        words = f"steered by true Z_CLIP, k = {k:g} %"
        yield replace(true, name=k_name(k, "true"), label=words, k_percent=k)
    words, settings = "steered, weights by decoder noise", {"loss": "likelihood"}
    yield replace(steered, name=NOISE_WEIGHTS, label=words, settings=settings)
    loop = replace(steered, engine="preset")
    for n_iter in profile.ablation.iterations:
        words = f"the loop of stage 2, {n_iter} iterations"
        yield replace(loop, name=iteration_name(n_iter), label=words, n_iter=n_iter)


def conditions_of(profile: Profile) -> list[Condition]:
    """Return every condition of a run: those compared, draws, then the ablation's."""
    again = [row for row in TABLE if row.kind == "draw"]
    return [*compared(), *again, *ablation_conditions(profile)]


# --- how many images, and where they are made -----------------------------------------


def generated(profile: Profile, stage: Literal[1, 2]) -> list[Condition]:
    """Return the conditions whose images notebook 03 or 04 makes, in order."""
    rows = [row for row in conditions_of(profile) if row.engine]
    return [row for row in rows if row.stage == stage]


def n_images_of(row: Condition, profile: Profile, n: int) -> int:
    """Return how many of `n` images to reconstruct a condition has."""
    if row.n_images == "controls":
        return min(n, profile.stage2.n_images_controls or n)
    if row.n_images == "paper":
        return min(n, profile.stage2.paper.n_images)
    if row.n_images == "ablation":
        return min(n, profile.ablation.n_images)
    if row.n_images == "few":
        return min(n, -(-profile.ablation.n_images // 2))
    return n
