"""COCO-like scenes: open 3D emoji art on procedural backgrounds, with five captions.

A scene is a pure function of (world seed, index); rendering is a pure function of the
scene. Not photographs: a small visual world whose every fact is known. The in-silico
NSD and the training of the demo models draw from worlds with different seeds, so that
no test scene is a training scene.

References
----------
Sprites: Fluent Emoji by Microsoft (MIT), see `data/README.md`.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from minddiff_utils.core.errors import DataError, check_exists
from minddiff_utils.core.places import project_root
from minddiff_utils.core.rng import derive_seed, stream
from minddiff_utils.insilico.backgrounds import BACKGROUNDS, paint_background

__all__ = [
    "CATEGORIES",
    "SUPERCATEGORY",
    "Scene",
    "SceneObject",
    "make_scene",
    "render",
    "world_seed",
]

#: COCO category -> COCO supercategory, for every category that has a sprite.
SUPERCATEGORY = {
    "person": "person",
    "bicycle": "vehicle",
    "car": "vehicle",
    "motorcycle": "vehicle",
    "airplane": "vehicle",
    "bus": "vehicle",
    "train": "vehicle",
    "truck": "vehicle",
    "boat": "vehicle",
    "traffic light": "outdoor",
    "stop sign": "outdoor",
    "bird": "animal",
    "cat": "animal",
    "dog": "animal",
    "horse": "animal",
    "sheep": "animal",
    "cow": "animal",
    "elephant": "animal",
    "bear": "animal",
    "zebra": "animal",
    "giraffe": "animal",
    "backpack": "accessory",
    "umbrella": "accessory",
    "handbag": "accessory",
    "suitcase": "accessory",
    "sports ball": "sports",
    "kite": "sports",
    "surfboard": "sports",
    "bottle": "kitchen",
    "bowl": "kitchen",
    "banana": "food",
    "apple": "food",
    "sandwich": "food",
    "broccoli": "food",
    "pizza": "food",
    "donut": "food",
    "chair": "furniture",
    "couch": "furniture",
    "potted plant": "furniture",
    "bed": "furniture",
    "tv": "electronic",
    "laptop": "electronic",
    "book": "indoor",
    "clock": "indoor",
    "teddy bear": "indoor",
}
CATEGORIES = tuple(SUPERCATEGORY)

_SKY_HOMED = ("airplane", "kite", "bird")


@dataclass(frozen=True)
class SceneObject:
    """One object: centre (x, y) and height as fractions of the image side, degrees."""

    category: str
    supercategory: str
    x: float
    y: float
    size: float
    angle: float
    mirrored: bool
    light: float


@dataclass(frozen=True)
class Scene:
    """One scene; objects are ordered from back to front."""

    seed: int
    index: int
    background: str
    light: float
    objects: tuple[SceneObject, ...]
    captions: tuple[str, str, str, str, str]


def world_seed(name: str) -> int:
    """Return the seed of the world `name`; worlds with different names share no scene.

    >>> world_seed("train") != world_seed("insilico-nsd")
    True
    """
    return derive_seed(0, "world", name)


def make_scene(seed: int, index: int, *, n_objects: int | None = None) -> Scene:
    """Draw the scene `index` of the world `seed`, with one or two objects.

    Raises
    ------
    DataError
        If `n_objects` is given and is neither 1 nor 2.
    """
    if n_objects not in (None, 1, 2):
        raise DataError(f"A scene has 1 or 2 objects, not {n_objects}: ask for 1 or 2.")
    rng = stream(seed, "scene", index)
    background = str(rng.choice(list(BACKGROUNDS)))
    drawn = 1 if rng.random() < 0.65 else 2
    n = n_objects or drawn
    chosen = [str(c) for c in rng.choice(CATEGORIES, size=2, replace=False)[:n]]
    objects = tuple(
        sorted(
            (
                _place(rng, category, background, i, n)
                for i, category in enumerate(chosen)
            ),
            key=lambda o: o.y + o.size / 2,
        )
    )
    captions = _captions(rng, objects, background)
    return Scene(
        seed, index, background, float(rng.uniform(0.82, 1.12)), objects, captions
    )


def _place(
    rng: np.random.Generator, category: str, background: str, i: int, n: int
) -> SceneObject:
    size = float(rng.uniform(0.46, 0.78) if n == 1 else rng.uniform(0.36, 0.52))
    if n == 1:
        x = float(rng.uniform(0.30, 0.70))
    else:
        x = float(rng.uniform(0.20, 0.34) if i == 0 else rng.uniform(0.66, 0.80))
    horizon = BACKGROUNDS[background][2]
    if background == "sky" or (category in _SKY_HOMED and rng.random() < 0.6):
        y = float(rng.uniform(0.30, 0.62))
    else:  # feet between the horizon and the lower edge
        foot = rng.uniform(max(horizon + 0.08, size * 0.9), 0.97)
        y = float(foot - size / 2)
    return SceneObject(
        category=category,
        supercategory=SUPERCATEGORY[category],
        x=x,
        y=y,
        size=size,
        angle=float(rng.uniform(-12, 12)),
        mirrored=bool(rng.random() < 0.5),
        light=float(rng.uniform(0.85, 1.12)),
    )


def _article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _side(x: float) -> str:
    return (
        "on the left" if x < 0.42 else "on the right" if x > 0.58 else "in the middle"
    )


def _captions(
    rng: np.random.Generator, objects: tuple[SceneObject, ...], background: str
) -> tuple[str, str, str, str, str]:
    where = BACKGROUNDS[background][0]
    ordered = sorted(objects, key=lambda o: o.x)
    names = " and ".join(_article(o.category) for o in ordered)
    main = max(objects, key=lambda o: o.size)
    scale = "large" if main.size > 0.6 else "small" if main.size < 0.42 else "big"
    facing = "facing right" if main.mirrored else "facing left"
    verb = rng.choice(["a photo of", "a picture of", "an image of"])
    third = " and ".join(f"{_article(o.category)} {_side(o.x)}" for o in ordered)
    return (
        f"{names} {where}",
        f"{verb} {names}",
        third,
        f"a {scale} {main.category} {facing} {where}",
        f"there is {names} {where}",
    )


def render(scene: Scene, size: int = 128) -> npt.NDArray[np.uint8]:
    """Render `scene` as RGB, shape (size, size, 3), uint8.

    Deterministic: the texture noise is drawn from the scene's own stream.
    """
    rng = stream(scene.seed, "texture", scene.index)
    canvas = paint_background(scene.background, rng, size)
    for item in scene.objects:
        _shadow(canvas, item, scene.background, size)
        sprite = _sprite_at(item, size)
        corner = (
            round(item.x * size - sprite.width / 2),
            round(item.y * size - sprite.height / 2),
        )
        canvas.paste(sprite, corner, sprite)
    return _lit(canvas, scene.light)


def _lit(image: Image.Image, *gains: float) -> npt.NDArray[np.uint8]:
    """Return the pixels of `image` times one gain, or one per channel."""
    pixels = np.asarray(image, np.float32) * np.array(gains, np.float32)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


@cache
def _sprite(category: str) -> Image.Image:
    """Return a sprite as it is resized: colours times opacity (mode RGBa)."""
    path = project_root() / "data" / "sprites" / f"{category.replace(' ', '_')}.webp"
    check_exists(
        path, f"Sprite of {category!r}", "restore data/sprites from the repository"
    )
    return Image.open(path).convert("RGBA").convert("RGBa")


def _sprite_at(item: SceneObject, size: int) -> Image.Image:
    side = max(4, round(item.size * size))
    sprite = _sprite(item.category)
    if item.mirrored:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    sprite = sprite.resize((side, side), Image.Resampling.BOX).convert("RGBA")
    sprite = sprite.rotate(item.angle, Image.Resampling.BILINEAR, expand=True)
    light = item.light
    return Image.fromarray(_lit(sprite, light, light, light, 1), "RGBA")


def _shadow(canvas: Image.Image, item: SceneObject, background: str, size: int) -> None:
    if background == "sky" or item.y + item.size / 2 < BACKGROUNDS[background][2]:
        return
    w, h = item.size * 0.40 * size, item.size * 0.07 * size
    cx, cy = item.x * size, (item.y + item.size * 0.47) * size
    mask = Image.new("L", (size, size), 0)
    ImageDraw.Draw(mask).ellipse((cx - w, cy - h, cx + w, cy + h), fill=95)
    canvas.paste((15, 15, 25), (0, 0), mask)
