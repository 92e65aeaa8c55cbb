"""The words of the demo's small world: shapes, colours, sizes, places, numbers. Knows no pixels but colours' RGB."""

from enum import StrEnum

Rgb = tuple[int, int, int]


class Shape(StrEnum):
    CIRCLE = "circle"
    SQUARE = "square"
    TRIANGLE = "triangle"
    STAR = "star"
    DIAMOND = "diamond"
    CROSS = "cross"


class Colour(StrEnum):
    RED = "red"
    ORANGE = "orange"
    YELLOW = "yellow"
    GREEN = "green"
    BLUE = "blue"
    PURPLE = "purple"
    BROWN = "brown"
    BLACK = "black"


class Size(StrEnum):
    """Diameter over the picture's shorter side: see `DIAMETERS`; nothing is drawn between the two."""

    SMALL = "small"
    LARGE = "large"


DIAMETERS: dict[Size, tuple[float, float]] = {Size.SMALL: (0.13, 0.17), Size.LARGE: (0.25, 0.31)}

RGB: dict[Colour, Rgb] = {
    Colour.RED: (220, 30, 35),
    Colour.ORANGE: (245, 135, 20),
    Colour.YELLOW: (240, 215, 30),
    Colour.GREEN: (35, 150, 60),
    Colour.BLUE: (35, 80, 210),
    Colour.PURPLE: (140, 50, 170),
    Colour.BROWN: (120, 70, 30),
    Colour.BLACK: (15, 15, 18),
}

PLURALS: dict[str, str] = {shape.value: f"{shape.value}s" for shape in Shape} | {"cross": "crosses", "shape": "shapes"}

# The nine fields of a picture, row by row.
PLACES = (
    "at the top left",
    "at the top",
    "at the top right",
    "on the left",
    "in the centre",
    "on the right",
    "at the bottom left",
    "at the bottom",
    "at the bottom right",
)

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
