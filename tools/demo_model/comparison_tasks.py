"""Two or three pictures, `Image-1` to `Image-3`, and what differs between them."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from tools.demo_model.conversation import Conversation, Round, Task
from tools.demo_model.english import a
from tools.demo_model.palette import PLACES, Shape, Size
from tools.demo_model.picture_tasks import count_of, description_of, name_of
from tools.demo_model.reading_tasks import text_scene
from tools.demo_model.scene import (
    Scene,
    Thing,
    colours_on,
    draw_scene,
    make_thing,
    settle,
    shade_of,
)


def _pictures(rng: Random) -> int:
    return 2 if rng.random() < 0.6 else 3


def _small_scene(rng: Random, count: int, distinct: bool = True) -> Scene:
    """Two in three fit one tile, so that three pictures stay a short prompt."""
    scene = draw_scene(rng, count, distinct)
    if rng.random() < 0.67:
        side = rng.randint(96, 169)
        scene = replace(scene, width=side, height=side)
        scene = replace(scene, things=settle(rng, [_centred(thing) for thing in scene.things], side, side))
    return scene


def _centred(thing: Thing) -> Thing:
    return replace(thing, x=(thing.column + 0.5) / 3, y=(thing.row + 0.5) / 3)


def which_shows(rng: Random, held_out: bool) -> Conversation:
    while True:
        scenes = tuple(_small_scene(rng, rng.randint(1, 3)) for _ in range(_pictures(rng)))
        thing = rng.choice(rng.choice(scenes).things)
        kind = rng.choice((thing.shape.value, thing.name, f"{thing.colour} shape"))
        holders = [index for index, scene in enumerate(scenes, 1) if count_of(kind, scene.things)]
        if len(holders) != 1:
            continue
        question = rng.choice(("Which picture shows {}?", "Which image has {}?", "In which picture do you see {}?"))
        first = Round(question.format(a(kind)), f"Image-{holders[0]} shows {a(kind)}.", Task.COMPARE)
        more: tuple[Round, ...] = ()
        same = count_of(kind, scenes[holders[0] - 1].things) == 1
        if same and rng.random() < 0.3:
            holder = next(t for t in scenes[holders[0] - 1].things if count_of(kind, [t]))
            more = (follow_up(rng, holder),)
        return Conversation(scenes, (first, *more))


def follow_up(rng: Random, thing: Thing) -> Round:
    """About "it": the thing of the round before."""
    question, answer = rng.choice(
        (
            ("What colour is it?", f"It is {thing.colour}."),
            ("What shape is it?", f"It is {a(thing.shape)}."),
            ("How large is it?", f"It is {thing.size}."),
            ("Is it large or small?", f"It is {thing.size}."),
            ("Where is it?", f"It is {thing.place}."),
        )
    )
    return Round(question, answer, Task.FOLLOW_UP)


def which_has_most(rng: Random, held_out: bool) -> Conversation:
    while True:
        scenes = tuple(_small_scene(rng, rng.randint(1, 6), distinct=False) for _ in range(_pictures(rng)))
        counts = [len(scene.things) for scene in scenes]
        if counts.count(max(counts)) > 1:
            continue
        more = "more" if len(scenes) == 2 else "the most"
        question = rng.choice(("Which picture has {} shapes?", "Which image shows {} shapes?", "Where are {} shapes?"))
        answer = f"Image-{counts.index(max(counts)) + 1} has {more} shapes."
        return Conversation(scenes, (Round(question.format(more), answer, Task.COMPARE),))


def _change(rng: Random, thing: Thing, scene: Scene) -> tuple[Thing, str, str, str]:
    """The changed thing, its name in the answer, and what it is before and after."""
    kind = rng.randrange(4)
    if kind == 0:
        colour = rng.choice([c for c in colours_on(scene.ground) if c != thing.colour])
        changed = replace(thing, colour=colour, shade=shade_of(rng, colour))
        return changed, thing.shape.value, thing.colour.value, colour.value
    if kind == 1:
        shape = rng.choice([s for s in Shape if s != thing.shape])
        return replace(thing, shape=shape), f"{thing.colour} shape", a(thing.shape), a(shape)
    if kind == 2:
        size = Size.LARGE if thing.size is Size.SMALL else Size.SMALL
        made = make_thing(rng, thing.shape, thing.colour, size, thing.cell)
        return replace(made, shade=thing.shade), thing.name, thing.size.value, size.value
    taken = {other.cell for other in scene.things}
    cell = rng.choice([c for c in range(9) if c not in taken])
    return replace(thing, cell=cell), thing.name, thing.place, PLACES[cell]


def what_changed(rng: Random, held_out: bool) -> Conversation:
    """Two pictures of the same things but for one change, or for none."""
    while True:
        before = _small_scene(rng, rng.randint(1, 3))
        thing = rng.choice(before.things)
        same = rng.random() < 0.15
        changed, name, was, now = _change(rng, thing, before)
        things = [changed if other is thing and not same else other for other in before.things]
        names = [t.name for t in before.things] + [changed.name]
        shapes = [t.shape for t in before.things]
        colours = [t.colour for t in before.things]
        unclear = (name in shapes and shapes.count(thing.shape) > 1) or (
            name.endswith("shape") and colours.count(thing.colour) > 1
        )
        if unclear or (changed.name != thing.name and len(set(names)) < len(names)):
            continue
        placed = settle(rng, [_centred(t) for t in sorted(things, key=lambda t: t.cell)], before.width, before.height)
        after = replace(before, things=placed)
        question = rng.choice(
            ("What is different?", "What changed?", "What is the difference?", "How do the pictures differ?")
        )
        answer = "The pictures show the same." if same else f"The {name} is {was} in Image-1 and {now} in Image-2."
        return Conversation((before, after), (Round(question, answer, Task.COMPARE),))


def one_of_them(rng: Random, held_out: bool) -> Conversation:
    """A question about one picture of several."""
    scenes = tuple(_small_scene(rng, rng.randint(1, 3)) for _ in range(_pictures(rng)))
    rounds = []
    for _ in range(rng.randint(1, 2)):
        index = rng.randrange(len(scenes))
        scene = scenes[index]
        thing = rng.choice(scene.things)
        name = name_of(rng, thing, scene.things)
        kind = rng.randrange(3)
        where = f"Image-{index + 1}"
        if kind == 0 and [t.shape for t in scene.things].count(thing.shape) == 1:
            asked = f"What colour is the {thing.shape} in {where}?", f"The {thing.shape} in {where} is {thing.colour}."
        elif kind == 1:
            asked = f"Where is the {name} in {where}?", f"The {name} in {where} is {thing.place}."
        else:
            asked = (
                rng.choice(("What is in {}?", "What does {} show?", "Describe {}.")).format(where),
                (f"{where} shows {description_of(scene)}."),
            )
        rounds.append(Round(*asked, Task.COMPARE))
    return Conversation(scenes, tuple(rounds))


def which_says(rng: Random, held_out: bool) -> Conversation:
    """Texts in two or three pictures: read one of them."""
    count = _pictures(rng)
    drawn: list[tuple[Scene, str]] = []
    while len(drawn) < count:
        scene, text = text_scene(rng, held_out)
        if scene.width * scene.height < 170 * 170 or rng.random() < 0.15:
            drawn.append((scene, text))
    index = rng.randrange(count)
    asked = rng.choice(("What does Image-{} say?", "Read the text in Image-{}.", "What is written in Image-{}?"))
    answer = f'Image-{index + 1} says "{drawn[index][1]}".'
    return Conversation(tuple(s for s, _ in drawn), (Round(asked.format(index + 1), answer, Task.COMPARE),))


COMPARISONS: tuple[tuple[Callable[[Random, bool], Conversation], int], ...] = (
    (which_shows, 3),
    (which_has_most, 2),
    (what_changed, 4),
    (one_of_them, 3),
    (which_says, 2),
)


def comparison(rng: Random, held_out: bool) -> Conversation:
    maker = rng.choices([m for m, _ in COMPARISONS], [w for _, w in COMPARISONS])[0]
    return maker(rng, held_out)
