"""Pictures with one printed word or number, and what can be asked about it."""

from dataclasses import replace
from random import Random

from tools.demo_model.conversation import Conversation, Round, Task
from tools.demo_model.lettering import box_of, place_text
from tools.demo_model.palette import NUMBERS, Size
from tools.demo_model.picture_tasks import DESCRIBE_QUESTIONS
from tools.demo_model.scene import Lettering, Scene, draw_grain, draw_ground, draw_size, draw_things, settle
from tools.demo_model.words import draw_text

READ_QUESTIONS = (
    "What does it say?",
    "What does the sign say?",
    "What does the picture say?",
    "Read the text.",
    "What is written here?",
    "What is written in the picture?",
    "What text is in the image?",
    "Can you read this?",
)
WORD_QUESTIONS = ("Read the word.", "Which word is printed here?", "What word do you see?")
NUMBER_QUESTIONS = ("Read the number.", "Which number is printed here?", "What number do you see?")


def says(text: str) -> str:
    return f'It says "{text}".'


def ask_text(rng: Random, text: str) -> Round:
    special = NUMBER_QUESTIONS if text.isdigit() else WORD_QUESTIONS
    return Round(rng.choice(READ_QUESTIONS if rng.random() < 0.6 else special), says(text), Task.READ)


def ask_about_text(rng: Random, text: str) -> Round:
    """A question that leans on the round in which the text was read."""
    noun = "digit" if text.isdigit() else "letter"
    kind = rng.randrange(3)
    if kind == 0:
        question = rng.choice((f"How many {noun}s does it have?", f"How many {noun}s are that?"))
        return Round(question, f"It has {NUMBERS[len(text)]} {noun}s.", Task.FOLLOW_UP)
    which, character = ("first", text[0]) if kind == 1 else ("last", text[-1])
    return Round(f"What is the {which} {noun}?", f'The {which} {noun} is "{character}".', Task.FOLLOW_UP)


def _clear_of(rng: Random, scene: Scene, lettering: Lettering) -> Scene:
    """One or two things in fields that the text's box, however turned, cannot reach."""
    wide, high = box_of(lettering.face, lettering.text)
    reach_x, reach_y = wide * lettering.em / scene.width / 2, (high + wide * 0.27) * lettering.em / scene.height / 2
    things = draw_things(rng, 4, scene.ground, distinct=True)
    kept = []
    for thing in settle(
        rng, [replace(thing, size=Size.SMALL, diameter=0.15) for thing in things], scene.width, scene.height
    ):
        half = 0.09
        if abs(thing.x - lettering.x) > reach_x + half and abs(thing.y - lettering.y) > reach_y + half:
            kept.append(thing)
    return replace(scene, things=tuple(kept[:2]))


def text_scene(rng: Random, held_out: bool, steepest: float = 15.0) -> tuple[Scene, str]:
    """A picture with one text; one in five has a few things beside it."""
    while True:
        width, height = draw_size(rng)
        ground, ground_end = draw_ground(rng)
        text = draw_text(rng, held_out)
        lettering = place_text(rng, text, width, height, ground, steepest)
        if lettering is None:
            continue
        scene = Scene(width, height, ground, ground_end, draw_grain(rng), lettering=lettering)
        if rng.random() < 0.2 and 0.4 < width / height < 2.5:
            scene = _clear_of(rng, scene, lettering)
        return scene, text


def reading(rng: Random, held_out: bool) -> Conversation:
    scene, text = text_scene(rng, held_out)
    return Conversation((scene,), (ask_text(rng, text),))


def reading_rounds(rng: Random, held_out: bool) -> Conversation:
    """Read, then one or two questions about what was read."""
    scene, text = text_scene(rng, held_out)
    first = replace(ask_text(rng, text), task=None)
    more = [ask_about_text(rng, text) for _ in range(rng.randint(1, 2))]
    return Conversation((scene,), (first, *more))


def description(rng: Random, held_out: bool) -> Conversation:
    scene, text = text_scene(rng, held_out)
    scene = replace(scene, things=())
    kind = "number" if text.isdigit() else "word"
    asked = Round(rng.choice(DESCRIBE_QUESTIONS), f'There is the {kind} "{text}".', Task.DESCRIBE)
    return Conversation((scene,), (asked,))
