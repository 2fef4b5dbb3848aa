"""Settings of the in-silico scenes: six kinds, each in endlessly many looks.

A caption names the kind ("on a street"). All that a caption leaves unsaid varies
continuously: colours, brightness, horizon, slope, the direction of the light, what
stands in the distance. So an image cannot be guessed from its setting, and surfaces are
smooth, so that a small generator spends its effort on objects.
"""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

__all__ = ["SETTINGS", "Look", "Setting", "draw_look", "lit", "paint"]

Colour = tuple[float, float, float]
Range = tuple[float, float]


@dataclass(frozen=True)
class Setting:
    """A kind of place: the ranges from which hue, saturation and value are drawn.

    Ranges of `above` and `below` the horizon are (hue, saturation, value), 0 to 1; a
    hue range may run past 1. `horizon` is a range of fractions of the height.
    """

    phrases: tuple[str, ...]
    indoors: bool
    above: tuple[Range, Range, Range]
    below: tuple[Range, Range, Range]
    horizon: Range = (0.3, 0.72)


SETTINGS = {
    "park": Setting(
        ("in a park", "on the grass", "in a grassy field", "on a lawn"),
        False,
        ((0.42, 1.1), (0.1, 0.6), (0.15, 1.0)),
        ((0.12, 0.45), (0.25, 0.75), (0.2, 0.95)),
    ),
    "street": Setting(
        ("on a street", "on a city street", "on the road", "in a town"),
        False,
        ((0.0, 1.0), (0.05, 0.4), (0.15, 1.0)),
        ((0.0, 1.0), (0.0, 0.14), (0.15, 0.7)),
    ),
    "beach": Setting(
        ("on a beach", "at the beach", "on the sand by the sea", "at the sea"),
        False,
        ((0.4, 1.1), (0.1, 0.6), (0.15, 1.0)),
        ((0.0, 0.17), (0.15, 0.6), (0.3, 1.0)),
    ),
    "snow": Setting(
        ("in the snow", "on a snowy hill", "in the mountains", "on the snow"),
        False,
        ((0.4, 1.15), (0.1, 0.65), (0.15, 1.0)),
        ((0.4, 1.1), (0.0, 0.22), (0.5, 1.0)),
    ),
    "room": Setting(
        ("in a room", "in a living room", "on the floor of a room", "indoors"),
        True,
        ((0.0, 1.0), (0.1, 0.55), (0.2, 1.0)),
        ((0.9, 1.3), (0.15, 0.6), (0.15, 0.9)),
    ),
    "kitchen": Setting(
        ("in a kitchen", "on a kitchen table", "on a table", "on a counter"),
        True,
        ((0.0, 1.0), (0.0, 0.35), (0.25, 1.0)),
        ((0.0, 1.0), (0.1, 0.6), (0.25, 0.95)),
        (0.35, 0.75),
    ),
}


@dataclass(frozen=True)
class Look:
    """How a setting looks in one scene; colours are RGB, 0 to 1.

    `slope` is the rise of the horizon over the width, as a share of the height;
    `light_from` an angle in radians, `shade` the share by which light falls off,
    `exposure` and `tint` gains of the finished image.
    """

    above: tuple[Colour, Colour]
    below: tuple[Colour, Colour]
    horizon: float
    slope: float
    light_from: float
    shade: float
    exposure: float
    tint: Colour


def _hsv(rng: np.random.Generator, ranges: tuple[Range, Range, Range]) -> Colour:
    hue, saturation, value = (float(rng.uniform(*r)) for r in ranges)
    return hue % 1, saturation, value


def _near(rng: np.random.Generator, colour: Colour) -> Colour:
    """Return a colour near another one: the far end of a gradient."""
    hue, saturation, value = colour
    return (
        (hue + float(rng.normal(0, 0.03))) % 1,
        float(np.clip(saturation + rng.normal(0, 0.1), 0, 1)),
        float(np.clip(value + rng.normal(0, 0.13), 0.1, 1)),
    )


def draw_look(rng: np.random.Generator, kind: str) -> Look:
    """Draw what a caption leaves unsaid about a setting."""
    setting = SETTINGS[kind]
    gradients = []
    for ranges in (setting.above, setting.below):
        colour = _hsv(rng, ranges)
        far = _near(rng, colour)
        gradients.append((colorsys.hsv_to_rgb(*colour), colorsys.hsv_to_rgb(*far)))
    warmth = float(rng.normal(0, 0.06))
    return Look(
        above=gradients[0],
        below=gradients[1],
        horizon=float(rng.uniform(*setting.horizon)),
        slope=float(rng.normal(0, 0.05)) if not setting.indoors else 0.0,
        light_from=float(rng.uniform(0, 2 * np.pi)),
        shade=float(rng.uniform(0.05, 0.3)),
        exposure=float(rng.uniform(0.7, 1.15)),
        tint=(1 + warmth, 1.0, 1 - warmth),
    )


def paint(kind: str, look: Look, rng: np.random.Generator, size: int) -> Image.Image:
    """Return the empty setting, RGB, `size` px wide and high."""
    canvas = Image.fromarray(_bytes(_gradient(look.above, size)), "RGB")
    _BEHIND[kind](ImageDraw.Draw(canvas, "RGBA"), rng, look, size)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    ground = y > look.horizon + look.slope * (x - 0.5)
    mask = Image.fromarray(ground.astype(np.uint8) * 255, "L")
    canvas.paste(
        Image.fromarray(_bytes(_gradient(look.below, size)), "RGB"), (0, 0), mask
    )
    _ON_GROUND.get(kind, _nothing)(ImageDraw.Draw(canvas, "RGBA"), rng, look, size)
    return canvas


def lit(look: Look, image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return the pixels of a finished scene under the look's light."""
    size = image.width
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    along = np.cos(look.light_from) * x + np.sin(look.light_from) * y
    gain = look.exposure * (1 - look.shade * along)[..., None]
    pixels = np.asarray(image, np.float32) * gain * np.array(look.tint, np.float32)
    finished: npt.NDArray[np.uint8] = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return finished


def _gradient(ends: tuple[Colour, Colour], size: int) -> npt.NDArray[np.float32]:
    t = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
    rows = (1 - t) * np.array(ends[0], np.float32) + t * np.array(ends[1], np.float32)
    return np.broadcast_to(rows, (size, size, 3))


def _bytes(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(np.clip(np.rint(values * 255), 0, 255).astype(np.uint8))


def _shade(colour: Colour, value: float, alpha: int = 255) -> tuple[int, ...]:
    """Return `colour` brighter or darker, as bytes with opacity."""
    rgb = (int(np.clip(255 * c * value, 0, 255)) for c in colour)
    return (*rgb, alpha)


Draw = ImageDraw.ImageDraw
Painter = Callable[[Draw, np.random.Generator, Look, int], None]


def _nothing(draw: Draw, rng: np.random.Generator, look: Look, size: int) -> None:
    del draw, rng, look, size


def _trees(draw: Draw, rng: np.random.Generator, look: Look, size: int) -> None:
    """Round trees or bushes on the horizon."""
    for _ in range(int(rng.integers(2, 5))):
        x, r = rng.uniform(0, 1), rng.uniform(0.09, 0.2)
        y = look.horizon - rng.uniform(0.3, 1.0) * r
        trunk = (x - 0.02, y, x + 0.02, look.horizon + 0.05)
        draw.rectangle([t * size for t in trunk], fill=(92, 66, 48, 255))
        box = (x - r, y - r, x + r, y + r)
        fill = _shade(look.below[0], rng.uniform(0.5, 0.9))
        draw.ellipse([b * size for b in box], fill=fill)


def _houses(draw: Draw, rng: np.random.Generator, look: Look, size: int) -> None:
    x = float(rng.uniform(-0.1, 0.1))
    while x < 1.0:
        w, h = rng.uniform(0.18, 0.34), rng.uniform(0.12, 0.42)
        wall = colorsys.hsv_to_rgb(
            rng.uniform(), rng.uniform(0.05, 0.4), rng.uniform(0.3, 0.85)
        )
        if rng.random() < 0.75:
            top = look.horizon - h
            box = (x, top, x + w, look.horizon + 0.08)
            draw.rectangle([b * size for b in box], fill=_shade(wall, 1))
            pane = _shade(wall, rng.choice([0.6, 1.4]))
            for wx in (x + 0.2 * w, x + 0.6 * w):
                window = (wx, top + 0.05, wx + 0.2 * w, top + 0.13)
                draw.rectangle([p * size for p in window], fill=pane)
        x += w + float(rng.uniform(0, 0.08))


def _stripe(draw: Draw, rng: np.random.Generator, look: Look, size: int) -> None:
    """Draw the middle line of a road."""
    y = look.horizon + (1 - look.horizon) * rng.uniform(0.35, 0.8)
    start = rng.uniform(-0.2, 0.0)
    fill = _shade((0.95, 0.9, 0.7), rng.uniform(0.6, 1))
    for x in np.arange(start, 1.0, 0.34):
        box = (x, y - 0.014, x + 0.2, y + 0.014)
        draw.rectangle([b * size for b in box], fill=fill)


def _sea(draw: Draw, rng: np.random.Generator, look: Look, size: int) -> None:
    """Draw the sea between sky and sand."""
    top = look.horizon - rng.uniform(0.1, 0.28)
    colour = colorsys.hsv_to_rgb(
        rng.uniform(0.45, 0.65), rng.uniform(0.35, 0.8), rng.uniform(0.25, 0.9)
    )
    draw.rectangle((0, top * size, size, size), fill=_shade(colour, 1))
    _sun(draw, rng, size)


def _sun(draw: Draw, rng: np.random.Generator, size: int) -> None:
    if rng.random() < 0.4:
        x, y, r = rng.uniform(0.1, 0.9), rng.uniform(0.05, 0.2), rng.uniform(0.05, 0.09)
        box = (x - r, y - r, x + r, y + r)
        draw.ellipse([b * size for b in box], fill=(255, 244, 205, 255))


def _mountains(draw: Draw, rng: np.random.Generator, look: Look, size: int) -> None:
    for _ in range(int(rng.integers(1, 4))):
        x, w, h = rng.uniform(0, 1), rng.uniform(0.25, 0.5), rng.uniform(0.15, 0.4)
        base, top = look.horizon + 0.08, look.horizon - h
        colour = _shade(look.above[0], rng.uniform(0.5, 0.8))
        peak = [(x - w, base), (x, top), (x + w, base)]
        draw.polygon([(a * size, b * size) for a, b in peak], fill=colour)
        cap = [(x - 0.3 * w, top + 0.3 * h), (x, top), (x + 0.3 * w, top + 0.3 * h)]
        white = _shade(look.below[0], 1)
        draw.polygon([(a * size, b * size) for a, b in cap], fill=white)


def _wall(draw: Draw, rng: np.random.Generator, look: Look, size: int) -> None:
    """Hang a window or a picture on a wall."""
    for _ in range(int(rng.integers(1, 3))):
        x, y = rng.uniform(-0.05, 0.8), rng.uniform(0.02, 0.25)
        w, h = rng.uniform(0.16, 0.34), rng.uniform(0.16, 0.34)
        frame = _shade(look.below[0], rng.uniform(0.5, 1.2))
        draw.rectangle([b * size for b in (x, y, x + w, y + h)], fill=frame)
        pane = colorsys.hsv_to_rgb(
            rng.uniform(), rng.uniform(0.1, 0.5), rng.uniform(0.3, 1)
        )
        m = 0.03
        inner = (x + m, y + m, x + w - m, y + h - m)
        draw.rectangle([b * size for b in inner], fill=_shade(pane, 1))


def _skirting(draw: Draw, rng: np.random.Generator, look: Look, size: int) -> None:
    """Draw a skirting board, and now and then a round rug."""
    y = look.horizon
    fill = _shade(look.above[0], rng.choice([0.6, 1.4]))
    draw.rectangle([b * size for b in (0, y - 0.025, 1, y + 0.01)], fill=fill)
    if rng.random() < 0.5:
        x, w, h = rng.uniform(0.2, 0.8), rng.uniform(0.25, 0.5), rng.uniform(0.06, 0.14)
        y = (y + 1) / 2 + rng.uniform(0, 0.1)
        rug = colorsys.hsv_to_rgb(
            rng.uniform(), rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.9)
        )
        box = (x - w, y - h, x + w, y + h)
        draw.ellipse([b * size for b in box], fill=_shade(rug, 1))


def _cupboards(draw: Draw, rng: np.random.Generator, look: Look, size: int) -> None:
    """Hang cupboards over a kitchen table."""
    del look
    y, h = rng.uniform(-0.1, 0.05), rng.uniform(0.15, 0.3)
    colour = colorsys.hsv_to_rgb(
        rng.uniform(), rng.uniform(0.1, 0.6), rng.uniform(0.3, 0.95)
    )
    w, start = rng.uniform(0.24, 0.36), rng.uniform(-0.2, 0.0)
    for x in np.arange(start, 1.0, w + 0.02):
        if rng.random() < 0.7:
            box = (x, y, x + w, y + h)
            draw.rectangle([b * size for b in box], fill=_shade(colour, 1))
            knob = (x + 0.8 * w, y + 0.7 * h, x + 0.8 * w + 0.03, y + 0.7 * h + 0.03)
            draw.ellipse([b * size for b in knob], fill=_shade(colour, 0.5))


def _edge(draw: Draw, rng: np.random.Generator, look: Look, size: int) -> None:
    """Draw the near edge of a table, and a cloth under what stands on it."""
    y = rng.uniform(0.9, 1.05)
    fill = _shade(look.below[1], rng.uniform(0.45, 0.7))
    draw.rectangle([b * size for b in (0, y, 1, 1.1)], fill=fill)
    if rng.random() < 0.5:
        x, w, top = rng.uniform(0.3, 0.7), rng.uniform(0.2, 0.4), look.horizon + 0.06
        cloth = colorsys.hsv_to_rgb(
            rng.uniform(), rng.uniform(0.1, 0.6), rng.uniform(0.4, 1)
        )
        corners = [(x - 0.8 * w, top), (x + 0.8 * w, top), (x + w, y), (x - w, y)]
        draw.polygon([(a * size, b * size) for a, b in corners], fill=_shade(cloth, 1))


_BEHIND: dict[str, Painter] = {
    "park": _trees,
    "street": _houses,
    "beach": _sea,
    "snow": _mountains,
    "room": _wall,
    "kitchen": _cupboards,
}
_ON_GROUND: dict[str, Painter] = {
    "street": _stripe,
    "room": _skirting,
    "kitchen": _edge,
}
