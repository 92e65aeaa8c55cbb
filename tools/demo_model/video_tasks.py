"""Eight frames in which one thing moves straight, or nothing does."""

from dataclasses import replace
from random import Random

from tools.demo_model.conversation import Conversation, Round, Shown, Task
from tools.demo_model.palette import Size
from tools.demo_model.picture_tasks import name_of
from tools.demo_model.scene import Scene, Thing, draw_ground, draw_things, settle

FRAMES = 8
DIRECTIONS = {"to the right": (1, 0), "to the left": (-1, 0), "up": (0, -1), "down": (0, 1)}


def _track(rng: Random, thing: Thing, direction: str) -> list[Thing]:
    """From one side to the other, over 0.4 to 0.64 of the picture, across the field the thing stands in."""
    dx, dy = DIRECTIONS[direction]
    travel = rng.uniform(0.4, 0.64)
    start = rng.uniform(0.18, 0.82 - travel)
    steps = [start + travel * index / (FRAMES - 1) for index in range(FRAMES)]
    if dx + dy < 0:
        steps.reverse()
    return [replace(thing, x=step) if dx else replace(thing, y=step) for step in steps]


def _free(moving: Thing, direction: str, others: list[Thing]) -> bool:
    """Nothing stands in the lane."""
    sideways = DIRECTIONS[direction][0] != 0
    return all((other.row != moving.row) if sideways else (other.column != moving.column) for other in others)


def video_scenes(rng: Random) -> tuple[tuple[Scene, ...], tuple[Thing, ...], Thing | None, str]:
    """The frames, the things of the first one, the one that moves, and whereto."""
    side = rng.randint(112, 320)
    width, height = (side, side) if rng.random() < 0.5 else (round(side * 4 / 3), side)
    ground, ground_end = draw_ground(rng)
    while True:
        things = list(draw_things(rng, rng.randint(1, 3), ground, distinct=True))
        things = [replace(t, diameter=min(t.diameter, 0.28)) for t in settle(rng, things, width, height)]
        moving, direction = rng.choice(things), rng.choice(list(DIRECTIONS))
        others = [thing for thing in things if thing is not moving]
        if all(_free(moving, direction, [o]) for o in others) and all(t.size in Size for t in things):
            break
    still = rng.random() < 0.12
    tracks = [moving] * FRAMES if still else _track(rng, moving, direction)
    frames = tuple(Scene(width, height, ground, ground_end, things=(*others, at)) for at in tracks)
    return frames, tuple(things), None if still else moving, direction


def _ask(rng: Random, things: tuple[Thing, ...], moving: Thing | None, direction: str) -> Round:
    kind = rng.random()
    if kind < 0.5:
        question = rng.choice(
            ("What happens in the video?", "What moves, and where?", "Describe the video.", "What moves where?")
        )
        answer = f"The {moving.name} moves {direction}." if moving else "Nothing moves."
        return Round(question, answer, Task.VIDEO)
    if kind < 0.6:
        answer = f"The {moving.name} moves." if moving else "Nothing moves."
        return Round(rng.choice(("Which shape moves?", "What moves?")), answer, Task.VIDEO)
    thing = moving if moving and rng.random() < 0.6 else rng.choice(things)
    name = name_of(rng, thing, things)
    if kind < 0.8:
        question = rng.choice((f"Where does the {name} move?", f"Which way does the {name} move?"))
        answer = f"The {name} moves {direction}." if thing is moving else f"The {name} does not move."
    else:
        question = f"Does the {name} move?"
        answer = f"Yes, the {name} moves {direction}." if thing is moving else f"No, the {name} does not move."
    return Round(question, answer, Task.VIDEO)


def video(rng: Random, held_out: bool) -> Conversation:
    frames, things, moving, direction = video_scenes(rng)
    rounds = tuple(_ask(rng, things, moving, direction) for _ in range(rng.randint(1, 3)))
    return Conversation(frames, rounds, Shown.FRAMES)
