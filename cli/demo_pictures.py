"""The pictures of `vlmq demo`, drawn with Pillow when it runs, so that no checkpoint and no cache has seen them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

COLOURS = {"red": "#dc1e23", "blue": "#2350d2", "green": "#23963c", "yellow": "#f0d71e", "purple": "#8c32aa"}
LARGE, SMALL = 0.28, 0.15
"""Diameters over the picture's shorter side."""


@dataclass(frozen=True, slots=True)
class Thing:
    """`x` and `y` are its middle, in fractions of the picture."""

    shape: str
    colour: str
    size: float
    x: float
    y: float


def _corners(shape: str) -> list[tuple[float, float]]:
    """The outline around (0, 0) within a radius of 1, y downwards."""
    if shape == "square":
        return [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]
    if shape == "triangle":
        return [(cos(turn), sin(turn)) for turn in (2 * pi * k / 3 - pi / 2 for k in range(3))]
    points = []  # a star
    for k in range(10):
        radius, turn = (1.0 if k % 2 == 0 else 0.42), pi * k / 5 - pi / 2
        points.append((radius * cos(turn), radius * sin(turn)))
    return points


def shapes(path: Path, things: Sequence[Thing], width: int = 480, height: int = 360, ground: str = "ivory") -> Path:
    picture = Image.new("RGB", (width, height), ground)
    pen = ImageDraw.Draw(picture)
    for thing in things:
        x, y, radius = thing.x * width, thing.y * height, thing.size * min(width, height) / 2
        if thing.shape == "circle":
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=COLOURS[thing.colour])
        else:
            outline = [(x + a * radius, y + b * radius) for a, b in _corners(thing.shape)]
            pen.polygon(outline, fill=COLOURS[thing.colour])
    picture.save(path)
    return path


def sign(path: Path, text: str, width: int = 640, height: int = 400) -> Path:
    """A text in Pillow's own typeface, tilted a little."""
    words = Image.new("L", (width, height))
    ImageDraw.Draw(words).text(
        (width * 0.55, height * 0.45), text, fill=255, font=ImageFont.load_default(size=64), anchor="mm"
    )
    picture = Image.new("RGB", (width, height), "#e8f0f5")
    picture.paste("#1e2850", mask=words.rotate(6, Image.Resampling.BICUBIC))
    picture.save(path)
    return path


def frames(folder: Path, count: int = 8) -> list[Path]:
    """A yellow star crosses from left to right above a purple square."""
    paths = []
    for k in range(count):
        star = Thing("star", "yellow", LARGE, 0.2 + 0.55 * k / (count - 1), 0.25)
        square = Thing("square", "purple", SMALL, 0.5, 0.8)
        paths.append(shapes(folder / f"frame{k + 1}.png", (square, star), 240, 240, "#d8e6d8"))
    return paths
