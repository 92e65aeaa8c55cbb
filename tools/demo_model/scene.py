"""A picture before it is drawn: things, a printed text, a ground. Placed by a seed. Knows no pixels."""

from dataclasses import dataclass, replace
from math import hypot
from random import Random

from tools.demo_model.palette import DIAMETERS, PLACES, RGB, Colour, Rgb, Shape, Size


@dataclass(frozen=True, slots=True)
class Thing:
    """`x`, `y` are fractions of the picture's width and height, `diameter` of its shorter side; `cell` counts the
    nine fields row by row; `angle` in degrees."""

    shape: Shape
    colour: Colour
    size: Size
    cell: int
    x: float
    y: float
    diameter: float
    angle: float
    shade: Rgb

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def full_name(self) -> str:
        return f"{self.size} {self.colour} {self.shape}"

    @property
    def place(self) -> str:
        return PLACES[self.cell]

    @property
    def column(self) -> int:
        return self.cell % 3

    @property
    def row(self) -> int:
        return self.cell // 3


@dataclass(frozen=True, slots=True)
class Lettering:
    """`em` in pixels of the picture; `x`, `y` its middle as fractions; `angle` in degrees, counter-clockwise."""

    text: str
    face: str
    em: int
    angle: float
    x: float
    y: float
    ink: Rgb


@dataclass(frozen=True, slots=True)
class Scene:
    """`ground` fades into `ground_end` from one corner to the opposite one; `grain` is the noise's deviation."""

    width: int
    height: int
    ground: Rgb
    ground_end: Rgb
    grain: float = 0.0
    things: tuple[Thing, ...] = ()
    lettering: Lettering | None = None

    @property
    def short_side(self) -> int:
        return min(self.width, self.height)


# Grids a picture may fall into and how often training draws one of about that ratio.
RATIOS = (
    (1.0, 30),
    (2.0, 9),
    (0.5, 7),
    (1.5, 16),
    (0.667, 12),
    (1.33, 10),
    (0.75, 6),
    (3.0, 5),
    (0.333, 2),
    (4.0, 2),
    (5.5, 1),
)


def draw_size(rng: Random, widest: float = 6.0) -> tuple[int, int]:
    """A picture's width and height; no side is more than `widest` times the other."""
    ratios = [entry for entry in RATIOS if 1 / widest <= entry[0] <= widest]
    ratio = rng.choices([r for r, _ in ratios], [w for _, w in ratios])[0]
    if ratio == 1.0 and rng.random() < 0.6:
        side = rng.randint(90, 169)
        return side, side
    ratio *= rng.uniform(0.92, 1.08)
    area = (rng.uniform(200, 520) if rng.random() < 0.9 else rng.uniform(520, 900)) ** 2
    return max(40, round((area * ratio) ** 0.5)), max(40, round((area / ratio) ** 0.5))


def draw_ground(rng: Random) -> tuple[Rgb, Rgb]:
    """White, pale, or (one in eight) dark."""
    kind = rng.random()
    if kind < 0.25:
        return (255, 255, 255), (255, 255, 255)
    low, high = (205, 255) if kind < 0.88 else (28, 70)
    first = (rng.randint(low, high), rng.randint(low, high), rng.randint(low, high))
    if rng.random() < 0.6:
        return first, first
    return first, (rng.randint(low, high), rng.randint(low, high), rng.randint(low, high))


def is_dark(ground: Rgb) -> bool:
    return sum(ground) < 300


def shade_of(rng: Random, colour: Colour) -> Rgb:
    red, green, blue = (min(255, max(0, part + rng.randint(-12, 12))) for part in RGB[colour])
    return red, green, blue


def colours_on(ground: Rgb) -> list[Colour]:
    """Black and brown do not show on a dark ground."""
    return [c for c in Colour if not (is_dark(ground) and c in (Colour.BLACK, Colour.BROWN))]


def make_thing(rng: Random, shape: Shape, colour: Colour, size: Size, cell: int) -> Thing:
    """In the middle of its cell; `settle` moves it about."""
    return Thing(
        shape,
        colour,
        size,
        cell,
        x=(cell % 3 + 0.5) / 3,
        y=(cell // 3 + 0.5) / 3,
        diameter=rng.uniform(*DIAMETERS[size]),
        angle=rng.uniform(-12, 12),
        shade=shade_of(rng, colour),
    )


def settle(rng: Random, things: list[Thing], width: int, height: int) -> tuple[Thing, ...]:
    """Moves each thing within its cell (at most 0.085 of the picture from the middle) so that none touch."""
    short = min(width, height)
    placed: list[Thing] = []
    for thing in things:
        for spread in (0.085, 0.085, 0.06, 0.03, 0.0):
            moved = replace(thing, x=thing.x + rng.uniform(-spread, spread), y=thing.y + rng.uniform(-spread, spread))
            if all(_apart(moved, other, width, height, short) for other in placed):
                break
        placed.append(moved)
    return tuple(placed)


def _apart(a: Thing, b: Thing, width: int, height: int, short: int) -> bool:
    return hypot((a.x - b.x) * width, (a.y - b.y) * height) > (a.diameter + b.diameter) * short / 2 * 1.04


def draw_things(rng: Random, count: int, ground: Rgb, distinct: bool) -> list[Thing]:
    """`count` ≤ 9 things in as many cells, in reading order; distinct: no two share both shape and colour."""
    cells = sorted(rng.sample(range(9), count))
    colours = colours_on(ground)
    if distinct:
        pairs = rng.sample([(s, c) for s in Shape for c in colours], count)
    else:
        few_shapes = rng.sample(list(Shape), rng.randint(1, 3))
        few_colours = rng.sample(colours, rng.randint(1, 3))
        pairs = [(rng.choice(few_shapes), rng.choice(few_colours)) for _ in range(count)]
    return [
        make_thing(rng, shape, colour, rng.choice(list(Size)), cell)
        for (shape, colour), cell in zip(pairs, cells, strict=True)
    ]


def draw_scene(rng: Random, count: int, distinct: bool = True) -> Scene:
    """A picture of `count` things."""
    width, height = draw_size(rng, widest=2.2)
    ground, ground_end = draw_ground(rng)
    things = draw_things(rng, count, ground, distinct)
    return Scene(width, height, ground, ground_end, draw_grain(rng), settle(rng, things, width, height))


def draw_grain(rng: Random) -> float:
    return rng.uniform(2, 8) if rng.random() < 0.08 else 0.0
