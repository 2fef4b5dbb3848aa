"""Procedural backgrounds of the in-silico scenes: skies, grounds, what stands there."""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

__all__ = ["BACKGROUNDS", "paint_background"]

#: Background -> (words in captions, is it indoors, horizon as a fraction of height).
BACKGROUNDS: dict[str, tuple[str, bool, float]] = {
    "field": ("on the grass", False, 0.52),
    "beach": ("on the beach", False, 0.60),
    "street": ("on the street", False, 0.62),
    "night": ("in the street at night", False, 0.66),
    "forest": ("in the forest", False, 0.68),
    "snow": ("in the snow", False, 0.55),
    "desert": ("in the desert", False, 0.56),
    "sky": ("in the sky", False, 1.0),
    "room": ("in a room", True, 0.66),
    "kitchen": ("in a kitchen", True, 0.58),
}


def _gradient(
    top: tuple[int, ...], bottom: tuple[int, ...], size: int
) -> npt.NDArray[np.uint8]:
    """Return the rows of a vertical gradient, shape (size, 1, 3)."""
    t = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
    rows = (1 - t) * np.array(top, np.float32) + t * np.array(bottom, np.float32)
    return rows.astype(np.uint8)


def _ground(
    canvas: Image.Image,
    rng: np.random.Generator,
    horizon: float,
    colours: tuple[tuple[int, ...], tuple[int, ...]],
    grain: float,
) -> None:
    size = canvas.width
    top = round(horizon * size)
    if top >= size:
        return
    noise = rng.normal(0, grain, (size // 4, size // 4)).astype(np.float32)
    enlarged = Image.fromarray(noise, "F").resize(
        (size, size), Image.Resampling.BILINEAR
    )
    seen = slice(0, size - top)
    rows = _gradient(*colours, size)[seen].astype(np.float32)
    ground = rows + np.asarray(enlarged)[seen, :, None]
    tile = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8), "RGB")
    canvas.paste(tile, (0, top))


_SKIES = {
    "field": ((84, 150, 235), (196, 226, 250)),
    "beach": ((70, 140, 235), (190, 225, 250)),
    "street": ((120, 175, 235), (215, 230, 245)),
    "night": ((8, 10, 34), (28, 32, 74)),
    "forest": ((120, 180, 215), (170, 215, 200)),
    "snow": ((170, 200, 225), (232, 240, 248)),
    "desert": ((95, 160, 235), (250, 232, 195)),
    "sky": ((60, 130, 235), (190, 222, 252)),
    "room": ((222, 204, 190), (232, 216, 204)),
    "kitchen": ((226, 236, 232), (214, 228, 222)),
}
_GROUNDS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "field": ((98, 178, 62), (52, 122, 40)),
    "beach": ((236, 214, 158), (214, 184, 120)),
    "street": ((128, 128, 134), (88, 88, 94)),
    "night": ((46, 46, 58), (26, 26, 36)),
    "forest": ((74, 112, 52), (44, 74, 34)),
    "snow": ((244, 248, 252), (214, 226, 238)),
    "desert": ((232, 188, 112), (204, 150, 80)),
    "sky": ((0, 0, 0), (0, 0, 0)),
    "room": ((150, 100, 72), (118, 74, 52)),
    "kitchen": ((196, 142, 86), (160, 108, 62)),
}


def paint_background(name: str, rng: np.random.Generator, size: int) -> Image.Image:
    """Return the background `name`, RGB, `size` px wide and high."""
    sky = np.repeat(_gradient(*_SKIES[name], size), size, axis=1)
    canvas = Image.fromarray(sky, "RGB")
    horizon = BACKGROUNDS[name][2]
    horizon += rng.uniform(-0.03, 0.03) if horizon < 1 else 0.0
    draw = ImageDraw.Draw(canvas)
    _DECORATIONS[name](draw, rng, size, horizon)
    _ground(canvas, rng, horizon, _GROUNDS[name], grain=7.0)
    _FOREGROUND.get(name, _nothing)(ImageDraw.Draw(canvas), rng, size, horizon)
    return canvas


def _nothing(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: int, horizon: float
) -> None:
    del draw, rng, size, horizon


def _clouds(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: int, horizon: float
) -> None:
    for _ in range(int(rng.integers(1, 4))):
        x, y = rng.uniform(0.05, 0.95), rng.uniform(0.05, max(0.12, horizon * 0.6))
        for _ in range(3):
            dx, r = rng.uniform(-0.09, 0.09), rng.uniform(0.05, 0.09)
            box = (x + dx - r, y - r * 0.5, x + dx + r, y + r * 0.5)
            draw.ellipse([b * size for b in box], fill=(246, 249, 253))


def _hills(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: int, horizon: float
) -> None:
    _clouds(draw, rng, size, horizon)
    for colour in ((124, 186, 108), (106, 176, 84)):
        x, r = rng.uniform(0.1, 0.9), rng.uniform(0.35, 0.55)
        box = (x - r, horizon - 0.10, x + r, horizon + 0.20)
        draw.ellipse([b * size for b in box], fill=colour)


def _dunes(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: int, horizon: float
) -> None:
    x, r = rng.uniform(0.1, 0.9), rng.uniform(0.4, 0.6)
    box = (x - r, horizon - 0.09, x + r, horizon + 0.2)
    draw.ellipse([b * size for b in box], fill=(240, 204, 136))


def _mountains(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: int, horizon: float
) -> None:
    for _ in range(2):
        x, r, h = rng.uniform(0.1, 0.9), rng.uniform(0.25, 0.4), rng.uniform(0.14, 0.26)
        peak = [(x - r, horizon + 0.02), (x, horizon - h), (x + r, horizon + 0.02)]
        draw.polygon([(a * size, b * size) for a, b in peak], fill=(196, 210, 226))


def _sea(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: int, horizon: float
) -> None:
    _clouds(draw, rng, size, horizon * 0.5)
    top = horizon - 0.18
    draw.rectangle((0, top * size, size, size), fill=(34, 118, 186))
    for _ in range(4):
        x, y = rng.uniform(0, 0.9), rng.uniform(top + 0.02, horizon)
        draw.line(
            (x * size, y * size, (x + 0.12) * size, y * size), fill=(110, 178, 222)
        )


def _buildings(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: int, horizon: float
) -> None:
    palette = ((176, 112, 100), (134, 144, 168), (196, 176, 140), (118, 132, 146))
    _houses(draw, rng, size, horizon, palette, (225, 238, 246))


def _night_buildings(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: int, horizon: float
) -> None:
    for _ in range(14):
        x, y = rng.uniform(0, size, 2) * np.array([1.0, 0.5])
        draw.point((float(x), float(y)), fill=(240, 240, 220))
    x, y = rng.uniform(0.1, 0.9) * size, rng.uniform(0.08, 0.2) * size
    r = 0.06 * size
    draw.ellipse((x - r, y - r, x + r, y + r), fill=(242, 238, 205))
    _houses(draw, rng, size, horizon, ((22, 24, 46), (30, 32, 58)), (244, 210, 96))


def _houses(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    size: int,
    horizon: float,
    palette: tuple[tuple[int, ...], ...],
    window: tuple[int, ...],
) -> None:
    x = 0.0
    while x < 1.0:
        w, h = rng.uniform(0.14, 0.22), rng.uniform(0.18, 0.40)
        colour = palette[int(rng.integers(len(palette)))]
        top = horizon - h
        box = (x * size, top * size, (x + w) * size, (horizon + 0.03) * size)
        draw.rectangle(box, fill=colour)
        for wy in np.arange(top + 0.04, horizon - 0.03, 0.085):
            for wx in np.arange(x + 0.03, x + w - 0.04, 0.065):
                if rng.random() < 0.75:
                    pane = (wx, wy, wx + 0.03, wy + 0.045)
                    draw.rectangle([p * size for p in pane], fill=window)
        x += w


def _trees(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: int, horizon: float
) -> None:
    for x in np.linspace(-0.02, 1.02, 7) + rng.uniform(-0.05, 0.05, 7):
        h, shade = rng.uniform(0.45, 0.66), int(rng.integers(-16, 16))
        trunk = (x - 0.018, horizon - 0.1, x + 0.018, horizon + 0.03)
        draw.rectangle([t * size for t in trunk], fill=(92, 64, 42))
        for level in range(3):
            y, r = horizon - 0.06 - level * h * 0.26, 0.15 - level * 0.035
            crown = [(x - r, y), (x, y - h * 0.42), (x + r, y)]
            fill = (30 + shade // 2, 92 + shade, 48 + shade // 2)
            draw.polygon([(a * size, b * size) for a, b in crown], fill=fill)


def _wall(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: int, horizon: float
) -> None:
    hue = rng.integers(-22, 22, 3)
    wall = tuple(int(v) for v in np.array([222, 206, 194]) + hue)
    draw.rectangle((0, 0, size, horizon * size), fill=wall)
    x, y = rng.uniform(0.08, 0.66), rng.uniform(0.06, 0.2)
    frame = (x, y, x + 0.24, y + 0.2)
    draw.rectangle([f * size for f in frame], fill=(96, 66, 46))
    inner = tuple(int(v) for v in rng.integers(90, 220, 3))
    draw.rectangle(
        [f * size for f in (x + 0.025, y + 0.025, x + 0.215, y + 0.175)], fill=inner
    )


def _tiles(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: int, horizon: float
) -> None:
    line = tuple(int(v) for v in np.array([178, 204, 194]) + rng.integers(-18, 18, 3))
    for y in np.arange(0.0, horizon, 0.125):
        draw.line((0, y * size, size, y * size), fill=line)
    for x in np.arange(rng.uniform(0, 0.125), 1.0, 0.125):
        draw.line((x * size, 0, x * size, horizon * size), fill=line)


def _road(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: int, horizon: float
) -> None:
    y = (horizon + (1 - horizon) * 0.55) * size
    for x in np.arange(rng.uniform(-0.1, 0.1), 1.0, 0.25):
        box = (x * size, y - 0.012 * size, (x + 0.13) * size, y + 0.012 * size)
        draw.rectangle(box, fill=(226, 214, 140))


_DECORATIONS = {
    "field": _hills,
    "beach": _sea,
    "street": _buildings,
    "night": _night_buildings,
    "forest": _trees,
    "snow": _mountains,
    "desert": _dunes,
    "sky": _clouds,
    "room": _wall,
    "kitchen": _tiles,
}
_FOREGROUND = {"street": _road, "night": _road}
