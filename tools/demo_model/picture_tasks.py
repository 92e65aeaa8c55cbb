"""Questions about the things in one picture, each with its one right answer."""

from collections.abc import Callable, Sequence
from random import Random

from tools.demo_model.conversation import Round, Task
from tools.demo_model.english import a, counted, listed, there_are
from tools.demo_model.palette import PLACES, Colour, Shape
from tools.demo_model.scene import Scene, Thing

Asker = Callable[[Random, Scene], Round | None]

DESCRIBE_QUESTIONS = (
    "Describe the picture.",
    "Describe this picture.",
    "Describe this image.",
    "What do you see?",
    "What is in the picture?",
    "What is in this image?",
    "What does the picture show?",
)


def name_of(rng: Random, thing: Thing, things: Sequence[Thing]) -> str | None:
    """`circle` or `red circle`, whichever names this thing alone; at random where both do. None: neither does."""
    if sum(other.name == thing.name for other in things) > 1:
        return None
    if sum(other.shape == thing.shape for other in things) > 1 or rng.random() < 0.5:
        return thing.name
    return thing.shape.value


def _pick(rng: Random, scene: Scene) -> tuple[Thing, str] | None:
    if not scene.things:
        return None
    thing = rng.choice(scene.things)
    name = name_of(rng, thing, scene.things)
    return (thing, name) if name else None


def relation_of(first: Thing, second: Thing) -> str:
    """Sideways unless both stand in the same column of the nine fields."""
    if first.column != second.column:
        return "left of" if first.column < second.column else "right of"
    return "above" if first.row < second.row else "below"


def description_of(scene: Scene) -> str:
    """All things in reading order; two are set in relation."""
    things = scene.things
    if len(things) == 2:
        first, second = sorted(things, key=lambda thing: (thing.column, thing.row))
        return f"{a(first.full_name)} {relation_of(first, second)} {a(second.full_name)}"
    return listed([a(thing.full_name) for thing in things])


def ask_description(rng: Random, scene: Scene) -> Round | None:
    if not 1 <= len(scene.things) <= 4:
        return None
    verb = "is" if len(scene.things) <= 2 else "are"
    return Round(rng.choice(DESCRIBE_QUESTIONS), f"There {verb} {description_of(scene)}.", Task.DESCRIBE)


def ask_colour(rng: Random, scene: Scene) -> Round | None:
    thing = rng.choice(scene.things)
    if sum(other.shape == thing.shape for other in scene.things) > 1:
        return None
    question = rng.choice(
        (
            "What colour is the {}?",
            "What color is the {}?",
            "Which colour has the {}?",
            "What is the colour of the {}?",
            "Tell me the colour of the {}.",
        )
    )
    return Round(question.format(thing.shape), f"The {thing.shape} is {thing.colour}.", Task.COLOUR)


def ask_shape(rng: Random, scene: Scene) -> Round | None:
    thing = rng.choice(scene.things)
    if sum(other.colour == thing.colour for other in scene.things) > 1:
        return None
    question = rng.choice(
        (
            "Which shape is {}?",
            "What shape is {}?",
            "What is the {} shape?",
            "What is the {} thing?",
            "Which shape has the colour {}?",
        )
    )
    return Round(question.format(thing.colour), f"The {thing.colour} shape is {a(thing.shape)}.", Task.SHAPE)


def ask_shape_at(rng: Random, scene: Scene) -> Round | None:
    thing = rng.choice(scene.things)
    question = rng.choice(("What is {}?", "What do you see {}?", "Which shape is {}?"))
    return Round(question.format(thing.place), f"There is {a(thing.full_name)} {thing.place}.", Task.SHAPE)


def ask_size(rng: Random, scene: Scene) -> Round | None:
    picked = _pick(rng, scene)
    if picked is None:
        return None
    thing, name = picked
    question = rng.choice(
        ("How large is the {}?", "How big is the {}?", "What size is the {}?", "Is the {} large or small?")
    )
    return Round(question.format(name), f"The {name} is {thing.size}.", Task.SIZE)


def ask_position(rng: Random, scene: Scene) -> Round | None:
    picked = _pick(rng, scene)
    if picked is None:
        return None
    thing, name = picked
    question = rng.choice(("Where is the {}?", "Where do you see the {}?", "In which part of the picture is the {}?"))
    return Round(question.format(name), f"The {name} is {thing.place}.", Task.POSITION)


def ask_relation(rng: Random, scene: Scene) -> Round | None:
    if len(scene.things) < 2:
        return None
    first, second = rng.sample(scene.things, 2)
    names = name_of(rng, first, scene.things), name_of(rng, second, scene.things)
    if None in names:
        return None
    question = rng.choice(
        (
            "Where is the {} relative to the {}?",
            "Where is the {}, seen from the {}?",
            "How do the {} and the {} stand to each other?",
        )
    ).format(*names)
    return Round(question, f"The {names[0]} is {relation_of(first, second)} the {names[1]}.", Task.RELATION)


def kinds_in(rng: Random, scene: Scene) -> str:
    """`shape`, `circle`, `red shape` or `red circle`: mostly something that is there."""
    thing = rng.choice(scene.things)
    shape = thing.shape if rng.random() < 0.8 else rng.choice(list(Shape))
    colour = thing.colour if rng.random() < 0.85 else rng.choice(list(Colour))
    return rng.choice(("shape", shape.value, shape.value, f"{colour} shape", f"{colour} {shape}"))


def count_of(kind: str, things: Sequence[Thing]) -> int:
    colour, _, noun = kind.rpartition(" ")
    return sum((not colour or thing.colour == colour) and noun in ("shape", thing.shape.value) for thing in things)


def ask_count(rng: Random, scene: Scene) -> Round | None:
    kind = kinds_in(rng, scene)
    question = rng.choice(
        ("How many {} are there?", "How many {} do you see?", "Count the {}.", "How many {} are in the picture?")
    )
    plural_kind = counted(2, kind).removeprefix("two ")
    return Round(question.format(plural_kind), there_are(count_of(kind, scene.things), kind), Task.COUNT)


def ask_existence(rng: Random, scene: Scene) -> Round | None:
    thing = rng.choice(scene.things)
    shape, colour = thing.shape, thing.colour
    if rng.random() < 0.5:
        # Half of the wrong ones share the shape or the colour with something that is there.
        shape = rng.choice(list(Shape)) if rng.random() < 0.6 else shape
        colour = rng.choice(list(Colour)) if rng.random() < 0.6 else colour
    kind = rng.choice((shape.value, f"{colour} {shape}", f"{colour} shape"))
    question = rng.choice(("Is there {}?", "Do you see {}?", "Is there {} in the picture?", "Can you see {}?"))
    count = count_of(kind, scene.things)
    answer = f"Yes, there is {a(kind)}." if count else f"No, there is no {kind}."
    return Round(question.format(a(kind)), answer, Task.YES_NO)


def ask_if_related(rng: Random, scene: Scene) -> Round | None:
    if len(scene.things) < 2:
        return None
    first, second = rng.sample(scene.things, 2)
    names = name_of(rng, first, scene.things), name_of(rng, second, scene.things)
    if None in names:
        return None
    sideways, upright = first.column != second.column, first.row != second.row
    relation = rng.choice((["left of", "right of"] if sideways else []) + (["above", "below"] if upright else []))
    true = {
        "left of": first.column < second.column,
        "right of": first.column > second.column,
        "above": first.row < second.row,
        "below": first.row > second.row,
    }[relation]
    answer = f"the {names[0]} is {'' if true else 'not '}{relation} the {names[1]}."
    return Round(f"Is the {names[0]} {relation} the {names[1]}?", f"{'Yes' if true else 'No'}, {answer}", Task.YES_NO)


def ask_if_so(rng: Random, scene: Scene) -> Round | None:
    picked = _pick(rng, scene)
    if picked is None:
        return None
    thing, name = picked
    if name == thing.shape.value and rng.random() < 0.4:
        said = thing.colour.value if rng.random() < 0.5 else rng.choice(list(Colour)).value
        true = said == thing.colour
    elif rng.random() < 0.5:
        said = rng.choice(("small", "large"))
        true = said == thing.size
    else:
        said = thing.place if rng.random() < 0.5 else rng.choice(PLACES)
        true = said == thing.place
    answer = f"the {name} is {'' if true else 'not '}{said}."
    return Round(f"Is the {name} {said}?", f"{'Yes' if true else 'No'}, {answer}", Task.YES_NO)


DISTINCT_ASKERS: tuple[tuple[Asker, int], ...] = (
    (ask_description, 5),
    (ask_colour, 2),
    (ask_shape, 2),
    (ask_shape_at, 2),
    (ask_size, 2),
    (ask_position, 3),
    (ask_relation, 9),
    (ask_count, 2),
    (ask_existence, 2),
    (ask_if_related, 3),
    (ask_if_so, 2),
)
CROWD_ASKERS: tuple[tuple[Asker, int], ...] = ((ask_count, 6), (ask_existence, 1))


def ask(rng: Random, scene: Scene, askers: tuple[tuple[Asker, int], ...]) -> Round:
    """One question that the scene can answer."""
    while True:
        asker = rng.choices([asker for asker, _ in askers], [weight for _, weight in askers])[0]
        asked = asker(rng, scene)
        if asked is not None:
            return asked
