"""COCO-like scenes: open emoji art in settings that vary without end, five captions.

A scene is a pure function of (world seed, index); rendering is a pure function of the
scene. Not photographs: a small visual world whose every fact is known. The in-silico
NSD and the training of the demo models draw from worlds with different seeds, so that
no test scene is a training scene.

References
----------
Sprites: Fluent Emoji by Microsoft (MIT), see `data/README.md`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from minddiff_utils.core.errors import DataError, check_exists
from minddiff_utils.core.places import project_root
from minddiff_utils.core.rng import derive_seed, stream
from minddiff_utils.insilico.backgrounds import SETTINGS, Look, draw_look, lit, paint
from minddiff_utils.insilico.captions import Group, captions
from minddiff_utils.insilico.categories import CATEGORIES, COLOURS, VOCABULARY

__all__ = ["Scene", "SceneObject", "make_scene", "render", "world_seed"]

#: Size of an object as a fraction of the side, by the number of objects.
_SIZES = {1: (0.5, 0.7), 2: (0.4, 0.5), 3: (0.35, 0.42)}
_SLOTS = {1: (0.5,), 2: (0.26, 0.74), 3: (0.19, 0.5, 0.81)}
_WANDER = {1: 0.16, 2: 0.06, 3: 0.03}
_SHARES = {1: 0.47, 2: 0.35, 3: 0.18}
_HUE_WINDOW = 40.0  # degrees around a sprite's own hue that take another colour


@dataclass(frozen=True)
class SceneObject:
    """One object: centre (x, y) and height as fractions of the image side, degrees.

    `hue` is in degrees, None for the sprite's own colours; `foot` is the height of the
    ground under the object, as a fraction of the side.
    """

    category: str
    x: float
    y: float
    foot: float
    size: float
    angle: float
    mirrored: bool
    light: float
    hue: float | None

    @property
    def supercategory(self) -> str:
        """COCO's supercategory."""
        return VOCABULARY[self.category].supercategory


@dataclass(frozen=True)
class Scene:
    """One scene; objects are ordered from back to front."""

    seed: int
    index: int
    setting: str
    look: Look
    objects: tuple[SceneObject, ...]
    captions: tuple[str, str, str, str, str]


def world_seed(name: str) -> int:
    """Return the seed of the world `name`; worlds with different names share no scene.

    >>> world_seed("train") != world_seed("insilico-nsd")
    True
    """
    return derive_seed(0, "world", name)


def make_scene(
    seed: int,
    index: int,
    *,
    n_objects: int | None = None,
    categories: Sequence[str] = CATEGORIES,
) -> Scene:
    """Draw the scene `index` of the world `seed`, with one to three objects.

    Parameters
    ----------
    seed, index : int
        Which scene.
    n_objects : int, optional
        1, 2 or 3; by default drawn.
    categories : sequence of str
        What its objects are drawn from.

    Raises
    ------
    DataError
        If `n_objects` is given and is not 1, 2 or 3.
    """
    if n_objects not in (None, *_SHARES):
        raise DataError(f"A scene has 1 to 3 objects, not {n_objects}: ask for those.")
    rng = stream(seed, "scene", index)
    setting = str(rng.choice(list(SETTINGS)))
    drawn = int(rng.choice(list(_SHARES), p=list(_SHARES.values())))
    groups = _groups(rng, n_objects or drawn, categories)
    look = draw_look(rng, setting)
    objects = _placed(rng, groups, look.horizon)
    texts = captions(rng, groups, SETTINGS[setting].phrases)
    return Scene(seed, index, setting, look, objects, texts)


def _groups(
    rng: np.random.Generator, n: int, categories: Sequence[str]
) -> tuple[Group, ...]:
    """Draw what is seen: `n` objects in one to three groups, the most first."""
    splits = {1: ((1,),), 2: ((1, 1), (2,)), 3: ((2, 1), (3,), (1, 1, 1))}[n]
    counts = splits[int(rng.choice(len(splits), p=_SPLIT_SHARES[n]))]
    drawn = rng.choice(categories, size=len(counts), replace=False)
    groups = []
    for category, count in zip(drawn, counts, strict=True):
        coloured = VOCABULARY[category].coloured
        colour = str(rng.choice(list(COLOURS))) if coloured else None
        groups.append(Group(str(category), count, bool(rng.random() < 0.35), colour))
    return tuple(groups)


_SPLIT_SHARES = {1: (1.0,), 2: (0.65, 0.35), 3: (0.45, 0.2, 0.35)}


def _placed(
    rng: np.random.Generator, groups: Sequence[Group], horizon: float
) -> tuple[SceneObject, ...]:
    singles = [group for group in groups for _ in range(group.n)]
    n = len(singles)
    slots = rng.permutation(_SLOTS[n])
    objects = [
        _place(rng, group, float(slot), n, horizon)
        for group, slot in zip(singles, slots, strict=True)
    ]
    return tuple(sorted(objects, key=lambda o: o.foot))


def _place(
    rng: np.random.Generator, group: Group, slot: float, n: int, horizon: float
) -> SceneObject:
    size = float(rng.uniform(*_SIZES[n]))
    lowest = min(0.9, max(horizon + 0.06, 0.9 * size))
    foot = float(rng.uniform(lowest, 0.97))
    lift = 0.0
    if group.moving:
        lift = float(rng.uniform(0.05, 0.14))
        if VOCABULARY[group.category].in_the_air:
            lift = float(rng.uniform(0.15, 0.4))
    hue = None
    if group.colour is not None:
        hue = float(COLOURS[group.colour] + rng.normal(0, 6)) % 360
    return SceneObject(
        category=group.category,
        x=slot + float(rng.uniform(-1, 1)) * _WANDER[n],
        y=max(foot - lift - size / 2, 0.45 * size),
        foot=foot,
        size=size,
        angle=float(rng.normal(0, 10 if group.moving else 3)),
        mirrored=bool(rng.random() < 0.5),
        light=float(rng.uniform(0.85, 1.12)),
        hue=hue,
    )


def render(scene: Scene, size: int = 128) -> npt.NDArray[np.uint8]:
    """Render `scene` as RGB, shape (size, size, 3), uint8."""
    rng = stream(scene.seed, "setting", scene.index)
    canvas = paint(scene.setting, scene.look, rng, size)
    for item in scene.objects:
        _shadow(canvas, item, size)
    for item in scene.objects:
        sprite = _sprite_at(item, size)
        corner = (
            round(item.x * size - sprite.width / 2),
            round(item.y * size - sprite.height / 2),
        )
        canvas.paste(sprite, corner, sprite)
    return lit(scene.look, canvas)


@cache
def _sprite(category: str) -> Image.Image:
    path = project_root() / "data" / "sprites" / f"{category.replace(' ', '_')}.webp"
    check_exists(
        path, f"Sprite of {category!r}", "restore data/sprites from the repository"
    )
    return Image.open(path).convert("RGBA")


@cache
def _weighted(category: str) -> Image.Image:
    """Return a sprite as it is resized: colours times opacity (mode RGBa)."""
    return _sprite(category).convert("RGBa")


def _near(degrees: npt.NDArray[np.float32], hue: float) -> npt.NDArray[np.bool_]:
    limit = np.cos(np.deg2rad(_HUE_WINDOW))
    return np.asarray(np.cos(np.deg2rad(degrees - np.float32(hue))) > limit)


def _degrees(sprite: Image.Image) -> npt.NDArray[np.float32]:
    """Return hue in degrees, saturation and value 0 to 255, shape (h, w, 3)."""
    hsv = np.asarray(sprite.convert("RGB").convert("HSV"), np.float32)
    return hsv * np.array([360 / 256, 1, 1], np.float32)


@cache
def _main_hue(category: str) -> float:
    """Return the hue that most of a sprite has, degrees."""
    sprite = _sprite(category).resize((64, 64), Image.Resampling.BOX)
    hsv, opacity = _degrees(sprite), np.asarray(sprite, np.float32)[..., 3]
    weight = hsv[..., 1] * hsv[..., 2] * opacity
    counts, edges = np.histogram(hsv[..., 0], 24, (0, 360), weights=weight)
    near = _near(hsv[..., 0], float(edges[int(np.argmax(counts))]) + 7.5)
    turns = np.exp(1j * np.deg2rad(hsv[..., 0]))
    return float(np.rad2deg(np.angle((turns * weight)[near].sum())))


def _recoloured(sprite: Image.Image, own: float, hue: float) -> Image.Image:
    """Return a sprite whose main hue, `own`, is `hue`; other colours stay."""
    hsv = _degrees(sprite)
    near = _near(hsv[..., 0], own)
    hsv[..., 0] = np.where(near, hsv[..., 0] + hue - own, hsv[..., 0]) % 360
    pixels = np.floor(hsv * np.array([256 / 360, 1, 1], np.float32)).astype(np.uint8)
    image = Image.fromarray(pixels, "HSV").convert("RGB")
    image.putalpha(sprite.getchannel("A"))
    return image


def _sprite_at(item: SceneObject, size: int) -> Image.Image:
    side = max(4, round(item.size * size))
    sprite = _weighted(item.category).resize((side, side), Image.Resampling.BOX)
    sprite = sprite.convert("RGBA")
    if item.hue is not None:
        sprite = _recoloured(sprite, _main_hue(item.category), item.hue)
    if item.mirrored:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    sprite = sprite.rotate(item.angle, Image.Resampling.BILINEAR, expand=True)
    pixels = np.asarray(sprite, np.float32) * np.array([*[item.light] * 3, 1])
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), "RGBA")


def _shadow(canvas: Image.Image, item: SceneObject, size: int) -> None:
    w, h = item.size * 0.38 * size, item.size * 0.06 * size
    cx, cy = item.x * size, (item.foot - 0.02 * item.size) * size
    mask = Image.new("L", (size, size), 0)
    ImageDraw.Draw(mask).ellipse((cx - w, cy - h, cx + w, cy + h), fill=80)
    canvas.paste((15, 15, 25), (0, 0), mask)
