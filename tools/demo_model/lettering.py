"""Places a printed text in a picture so that it is legible in the tiles, and draws it. Knows no questions."""

from dataclasses import dataclass
from functools import cache
from math import cos, radians, sin
from random import Random

from PIL import Image, ImageDraw

from tools.demo_model.fonts import FACES, load_font
from tools.demo_model.geometry import DEMO
from tools.demo_model.palette import Rgb
from tools.demo_model.scene import Lettering, is_dark
from tools.demo_model.tiling import grid_for

# Pixels per em once the picture is resized to its tiles: under this, eight letters are guesswork at this model size.
SMALLEST_EM = 18.0
LARGEST_EM = 56.0
STEEPEST = 15.0
MARGIN = 0.03


@dataclass(frozen=True, slots=True)
class Glyph:
    """A character and its middle, in fractions of the picture."""

    character: str
    x: float
    y: float


def _turned_size(width: float, height: float, angle: float) -> tuple[float, float]:
    c, s = abs(cos(radians(angle))), abs(sin(radians(angle)))
    return width * c + height * s, width * s + height * c


def canvas_scale(width: int, height: int) -> float:
    """Tile pixels per picture pixel, along the axis that shrinks more."""
    columns, rows = grid_for(width, height)
    return min(columns * DEMO.tile / width, rows * DEMO.tile / height)


def draw_ink(rng: Random, ground: Rgb) -> Rgb:
    low, high = (190, 255) if is_dark(ground) else (0, 110)
    return rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)


def place_text(
    rng: Random, text: str, width: int, height: int, ground: Rgb, steepest: float = STEEPEST
) -> Lettering | None:
    """Anywhere in the picture, in any face, at any legible size; None when the text does not fit."""
    face = rng.choice(FACES)
    angle = rng.uniform(-steepest, steepest) if rng.random() < 0.7 else 0.0
    smallest = SMALLEST_EM / canvas_scale(width, height)
    em = smallest * (LARGEST_EM / SMALLEST_EM) ** rng.random()
    box = box_of(face, text)
    for _ in range(8):
        wide, high = _turned_size(box[0] * em, box[1] * em, angle)
        spare_x, spare_y = width * (1 - 2 * MARGIN) - wide, height * (1 - 2 * MARGIN) - high
        if spare_x > 0 and spare_y > 0:
            x = MARGIN * width + wide / 2 + rng.random() * spare_x
            y = MARGIN * height + high / 2 + rng.random() * spare_y
            return Lettering(text, face, round(em), angle, x / width, y / height, draw_ink(rng, ground))
        if em == smallest:
            return None
        em = max(smallest, em * 0.82)
    return None


@cache
def _advances(face: str, text: str) -> tuple[float, ...]:
    font = load_font(face, 64)
    return tuple(font.getlength(text[:count]) / 64 for count in range(len(text) + 1))


def box_of(face: str, text: str) -> tuple[float, float]:
    """Width and height of the text's box in ems."""
    ascent, descent = load_font(face, 64).getmetrics()
    return _advances(face, text)[-1] + 0.15, (ascent + descent) / 64


def print_text(picture: Image.Image, lettering: Lettering) -> None:
    """Draws the text into the picture, in place."""
    font = load_font(lettering.face, lettering.em)
    ascent, descent = font.getmetrics()
    pad = max(1, lettering.em // 12)
    size = (round(font.getlength(lettering.text)) + 2 * pad, ascent + descent)
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).text((pad, 0), lettering.text, fill=255, font=font)
    if lettering.angle:
        mask = mask.rotate(lettering.angle, Image.Resampling.BICUBIC, expand=True)
    left = round(lettering.x * picture.width - mask.width / 2)
    top = round(lettering.y * picture.height - mask.height / 2)
    picture.paste(lettering.ink, (left, top), mask)


def glyphs_of(lettering: Lettering, width: int, height: int) -> list[Glyph]:
    """Where each character stands, for the training's side task."""
    advances = _advances(lettering.face, lettering.text)
    c, s = cos(radians(lettering.angle)), sin(radians(lettering.angle))
    glyphs = []
    for index, character in enumerate(lettering.text):
        along = ((advances[index] + advances[index + 1]) / 2 - advances[-1] / 2) * lettering.em
        glyphs.append(Glyph(character, lettering.x + along * c / width, lettering.y - along * s / height))
    return glyphs
