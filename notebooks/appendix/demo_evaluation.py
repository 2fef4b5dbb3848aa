"""How good the demo models are, on scenes that none of them was trained on.

Used by A1_demo_models.ipynb. The probe that names objects in generated images is a
logistic regression on EfficientNet-Lite0, a network that took no part in training them.
It is fitted to true scenes and to the same scenes through the autoencoder, so that it
names objects and does not mistake the autoencoder's blur for another object.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from minddiff_utils.core.profile import Stage1Config
from minddiff_utils.core.rng import torch_stream
from minddiff_utils.generation.sampler import make_schedule, sample
from minddiff_utils.insilico import scenes
from minddiff_utils.insilico.categories import CATEGORIES, VOCABULARY
from minddiff_utils.insilico.efficientnet_lite import INPUT_SIZE, load_network
from minddiff_utils.models import Backbone, Judge

__all__ = [
    "AIMS",
    "SAID",
    "SHARP",
    "WITHIN_BOTH",
    "WITHIN_SETTING",
    "as_images",
    "as_tensor",
    "category_prompts",
    "held_out",
    "image_to_image",
    "likeness_within",
    "named_by_clip",
    "named_by_probe",
    "psnr",
    "right",
    "round_trip",
    "said_by_captions",
    "scenes_of_the_world",
    "summarise",
    "text_to_image",
    "train_probe",
]

Images = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float64]

#: How much of a picture its captions tell: the lower, the more is left to z and Z_CLIP.
WITHIN_SETTING = "scenes: r with the mean of the setting"
WITHIN_BOTH = "scenes: r with the mean of setting and category"
SAID = "scenes: share of the pixels' variance that c explains"
#: What scenes must stay below, and what the models should reach on held-out ones (after
#: the round trip nine tenths of what the probe names in true scenes); the rest is shown
#: for scale and has no aim.
AIMS = {
    WITHIN_SETTING: 0.30,
    WITHIN_BOTH: 0.35,
    "autoencoder PSNR, dB": 29.0,
    "EfficientNet probe after the round trip": 0.86,
    "CLIP zero-shot": 0.80,
    "judge zero-shot": 0.80,
    "text-to-image named by CLIP": 0.80,
    "text-to-image named by EfficientNet probe": 0.80,
    "image to image named by EfficientNet probe": 0.85,
}
#: The probe that never saw an image through the autoencoder: shown, no aim.
SHARP = "text-to-image named by EfficientNet probe of sharp scenes only"


def held_out(
    n: int, *, world: str = "held-out"
) -> tuple[Images, Tensor, list[int], list[tuple[str, ...]]]:
    """Render `n` single-object scenes.

    Returns images u8 (n, 64, 64, 3), the same as a tensor, categories by number, and
    five captions each.
    """
    seed = scenes.world_seed(world)
    made = [scenes.make_scene(seed, i, n_objects=1) for i in range(n)]
    big = np.stack([scenes.render(s, 128) for s in made]).astype(np.float32)
    small = np.rint(big.reshape(n, 64, 2, 64, 2, 3).mean((2, 4))).astype(np.uint8)
    x = as_tensor(small)
    categories = [CATEGORIES.index(s.objects[0].category) for s in made]
    return small, x, categories, [s.captions for s in made]


def scenes_of_the_world(n: int) -> tuple[Images, list[scenes.Scene]]:
    """Return `n` scenes of one to three objects as images u8 (n, 32, 32, 3)."""
    seed = scenes.world_seed("likeness")
    made = [scenes.make_scene(seed, i) for i in range(n)]
    return np.stack([scenes.render(scene, 32) for scene in made]), made


def likeness_within(images: Images, kinds: Sequence[object]) -> Scores:
    """Return each image's correlation with the mean of the others of its kind.

    Of kinds with at least five images; above 0 so far as the kind tells the picture.
    """
    flat = images.reshape(len(images), -1).astype(np.float64)
    found = []
    for _, rows in pd.Series(range(len(kinds))).groupby(list(map(str, kinds))):
        if len(rows) >= 5:
            total = flat[rows].sum(axis=0)
            found += [np.corrcoef(flat[r], total - flat[r])[0, 1] for r in rows]
    return np.array(found)


def said_by_captions(images: Images, c: npt.NDArray[np.float32]) -> Scores:
    """Return the share of the pixels' variance that ridge explains from c, by fold."""
    pixels = images.reshape(len(images), -1) / 255
    ridge, folds = RidgeCV(np.logspace(-1, 5, 13)), KFold(5)
    c = StandardScaler().fit_transform(c.reshape(len(c), -1))
    return np.asarray(
        cross_val_score(ridge, c, pixels, cv=folds, scoring=_explained), np.float64
    )


def _explained(model: RidgeCV, c: Scores, pixels: Scores) -> float:
    """Return the share of all pixels' variance together, not pixel by pixel."""
    left = np.square(pixels - model.predict(c)).sum()
    return float(1 - left / np.square(pixels - pixels.mean(axis=0)).sum())


def psnr(x: Tensor, y: Tensor) -> npt.NDArray[np.float64]:
    """Return the peak signal-to-noise ratio in dB of images in [-1, 1], per image."""
    mse = ((x - y.clamp(-1, 1)) / 2).double().square().mean((1, 2, 3))
    return (-10 * mse.log10()).numpy()


@torch.no_grad()
def round_trip(backbone: Backbone, x: Tensor) -> Tensor:
    """Return images (n, 3, S, S) in [-1, 1] through the autoencoder and back."""
    return torch.cat(
        [backbone.decode_latents(backbone.encode_images(part)) for part in x.split(100)]
    )


def as_images(x: Tensor) -> Images:
    """Return a tensor (n, 3, S, S) in [-1, 1] as images u8 (n, S, S, 3)."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def category_prompts() -> list[str]:
    """Return one prompt per category, with its article."""
    names = [VOCABULARY[c].names[0][0] for c in CATEGORIES]
    return [f"a photo of {_article(name)}" for name in names]


def _article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


@torch.no_grad()
def named_by_clip(model: Backbone | Judge, x: Tensor) -> list[int]:
    """Return the category whose prompt is nearest to each image, for a CLIP."""
    if isinstance(model, Judge):
        images, texts = model.image_embed(x), model.text_embed(category_prompts())
    else:
        images = model.clip_image_embed(x)
        texts = model.clip_text_embed(category_prompts())
    return (images @ texts.T).argmax(1).tolist()


def _late_features(images: Images) -> npt.NDArray[np.float32]:
    size = (INPUT_SIZE, INPUT_SIZE)
    big = [Image.fromarray(i).resize(size, Image.Resampling.BICUBIC) for i in images]
    pixels = np.stack([np.asarray(i, np.float32) for i in big])  # 0..255, as it asks
    network = load_network()
    blocks = [network.see(p)[2] for p in np.array_split(pixels, -(-len(pixels) // 64))]
    return np.concatenate(blocks)


def train_probe(images: Images, categories: Sequence[int]) -> object:
    """Fit a linear probe from EfficientNet-Lite0's last features to the category."""
    model = LogisticRegression(C=0.02, max_iter=300)
    return make_pipeline(StandardScaler(), model).fit(
        _late_features(images), categories
    )


def named_by_probe(probe: object, images: Images) -> list[int]:
    """Return the category that the probe names in each image."""
    return [int(c) for c in probe.predict(_late_features(images))]


def right(said: Sequence[int], asked: Sequence[int] | npt.NDArray[np.int64]) -> Scores:
    """Return 1 where the named category is the one asked for, else 0, per image."""
    return (np.asarray(said) == np.asarray(asked)).astype(np.float64)


def summarise(measured: Mapping[str, Scores]) -> pd.DataFrame:
    """Return mean, standard error and aim of each measure.

    A measure is (n,), one number per image, or (n, n_repeats): repeats under one prompt
    are not independent, so they are averaged before the standard error is taken.
    """
    rows = []
    for measure, scores in measured.items():
        each = scores.reshape(len(scores), -1).mean(1)
        error = each.std(ddof=1) / np.sqrt(len(each))
        aim = f"{AIMS[measure]:g}" if measure in AIMS else "none"
        rows.append((measure, float(each.mean()), float(error), scores.size, aim))
    names = ["measure", "mean", "standard_error", "n_images", "aim"]
    return pd.DataFrame(rows, columns=names)


@torch.no_grad()
def text_to_image(
    backbone: Backbone,
    captions: Sequence[str],
    *,
    n_steps: int,
    guidance_scale: float,
    seed: int,
) -> Images:
    """Sample one image per caption from pure noise, u8 (n, S, S, 3), by DDIM."""
    scheduler = backbone.scheduler(n_steps)
    generator = torch_stream(seed, "text-to-image")
    x = torch.randn((len(captions), *backbone.latent_shape), generator=generator)
    c = backbone.encode_text(list(captions))
    both = torch.cat([backbone.null_text().expand_as(c), c])
    for t in scheduler.timesteps:
        without, under = backbone.unet(torch.cat([x, x]), t, both).chunk(2)
        guided = without + guidance_scale * (under - without)
        x = scheduler.step(guided, t, x).prev_sample
    return as_images(backbone.decode_latents(x))


@torch.no_grad()
def image_to_image(
    backbone: Backbone,
    x: Tensor,
    captions: Sequence[Sequence[str]],
    stage1: Stage1Config,
    *,
    seed: int = 0,
) -> Images:
    """Return stage 1's images, u8 (n, S, S, 3), from the true z and c of scenes.

    c is the mean over the captions of a scene, as everywhere in this project.
    """
    schedule = make_schedule(backbone, stage1)
    generator = torch_stream(seed, "image-to-image")
    parts = []
    for start in range(0, len(x), 60):
        rows = slice(start, start + 60)
        z = backbone.encode_images(x[rows])
        c = torch.stack([backbone.encode_text(list(t)).mean(0) for t in captions[rows]])
        noise = torch.randn(z.shape, generator=generator)
        parts.append(sample(backbone, z, c, noise, schedule))
    return as_images(torch.cat(parts))


def as_tensor(images: Images) -> Tensor:
    """Return images u8 (n, S, S, 3) as a tensor (n, 3, S, S) in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
