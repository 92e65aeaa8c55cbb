"""Draws a scene with Pillow. The same scene gives the same pixels with the same Pillow."""

from math import cos, pi, radians, sin

import numpy as np
from PIL import Image, ImageDraw

from tools.demo_model.lettering import print_text
from tools.demo_model.palette import Shape
from tools.demo_model.scene import Scene, Thing


def _ring(count: int, radius: float, start: float) -> list[tuple[float, float]]:
    return [(radius * cos(start + 2 * pi * k / count), radius * sin(start + 2 * pi * k / count)) for k in range(count)]


def _star() -> list[tuple[float, float]]:
    outer, inner = _ring(5, 1.0, -pi / 2), _ring(5, 0.42, -pi / 2 + pi / 5)
    return [point for pair in zip(outer, inner, strict=True) for point in pair]


_ARM = 0.34
# Outlines of radius about 1, y downwards.
OUTLINES: dict[Shape, list[tuple[float, float]]] = {
    Shape.SQUARE: [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    Shape.TRIANGLE: _ring(3, 1.0, -pi / 2),
    Shape.STAR: _star(),
    Shape.DIAMOND: [(0, -1.0), (0.75, 0), (0, 1.0), (-0.75, 0)],
    Shape.CROSS: [
        (-_ARM, -0.95),
        (_ARM, -0.95),
        (_ARM, -_ARM),
        (0.95, -_ARM),
        (0.95, _ARM),
        (_ARM, _ARM),
        (_ARM, 0.95),
        (-_ARM, 0.95),
        (-_ARM, _ARM),
        (-0.95, _ARM),
        (-0.95, -_ARM),
        (-_ARM, -_ARM),
    ],
}


def _draw_thing(pen: ImageDraw.ImageDraw, thing: Thing, scene: Scene) -> None:
    x, y, radius = thing.x * scene.width, thing.y * scene.height, thing.diameter * scene.short_side / 2
    if thing.shape is Shape.CIRCLE:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=thing.shade)
        return
    c, s = cos(radians(thing.angle)) * radius, sin(radians(thing.angle)) * radius
    pen.polygon([(x + px * c - py * s, y + px * s + py * c) for px, py in OUTLINES[thing.shape]], fill=thing.shade)


def _ground(scene: Scene) -> Image.Image:
    size = (scene.width, scene.height)
    if scene.ground == scene.ground_end:
        return Image.new("RGB", size, scene.ground)
    corners = Image.new("RGB", (2, 2), scene.ground)
    middle = tuple((a + b) // 2 for a, b in zip(scene.ground, scene.ground_end, strict=True))
    corners.putpixel((1, 0), middle)
    corners.putpixel((0, 1), middle)
    corners.putpixel((1, 1), scene.ground_end)
    return corners.resize(size, Image.Resampling.BILINEAR)


def draw(scene: Scene) -> Image.Image:
    """The picture, RGB."""
    picture = _ground(scene)
    pen = ImageDraw.Draw(picture)
    for thing in scene.things:
        _draw_thing(pen, thing, scene)
    if scene.lettering is not None:
        print_text(picture, scene.lettering)
    if scene.grain:
        # Seeded by the size: grain carries no information, only texture.
        noise = np.random.default_rng(scene.width * 4099 + scene.height).normal(
            0, scene.grain, (scene.height, scene.width, 1)
        )
        picture = Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))
    return picture
