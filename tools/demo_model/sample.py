"""Draws conversations: which task, how many rounds, from one seed each. Same seed, same conversation."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from tools.demo_model import reading_tasks
from tools.demo_model.comparison_tasks import comparison, follow_up
from tools.demo_model.conversation import Conversation, Round, Task
from tools.demo_model.english import a, plural, there_are
from tools.demo_model.palette import Shape
from tools.demo_model.picture_tasks import CROWD_ASKERS, DISTINCT_ASKERS, Asker, ask, count_of
from tools.demo_model.scene import Scene, Thing, draw_scene
from tools.demo_model.talk_tasks import no_picture, small_talk
from tools.demo_model.video_tasks import video

Maker = Callable[[Random, bool], Conversation]


def shapes(rng: Random, held_out: bool) -> Conversation:
    """One to four questions about one to four things that differ."""
    scene = draw_scene(rng, rng.randint(1, 4))
    return Conversation((scene,), tuple(ask(rng, scene, DISTINCT_ASKERS) for _ in range(rng.randint(1, 4))))


def crowd(rng: Random, held_out: bool) -> Conversation:
    """One to four questions about up to nine things, many alike."""
    scene = draw_scene(rng, rng.randint(2, 9), distinct=False)
    return Conversation((scene,), tuple(ask(rng, scene, CROWD_ASKERS) for _ in range(rng.randint(1, 4))))


def _lone_shape(rng: Random, scene: Scene) -> Thing | None:
    lone = [t for t in scene.things if sum(other.shape == t.shape for other in scene.things) == 1]
    return rng.choice(lone) if lone else None


def pronoun_rounds(rng: Random, held_out: bool) -> Conversation:
    """The second round says "it"."""
    while True:
        scene = draw_scene(rng, rng.randint(2, 4))
        thing = _lone_shape(rng, scene)
        if thing is None:
            continue
        question, answer = rng.choice(
            (
                (f"Where is the {thing.shape}?", f"The {thing.shape} is {thing.place}."),
                (f"What is {thing.place}?", f"There is {a(thing.full_name)} {thing.place}."),
                (f"What colour is the {thing.shape}?", f"The {thing.shape} is {thing.colour}."),
                (f"Is there {a(thing.shape)}?", f"Yes, there is {a(thing.shape)}."),
                (f"How large is the {thing.shape}?", f"The {thing.shape} is {thing.size}."),
            )
        )
        more = tuple(follow_up(rng, thing) for _ in range(rng.randint(1, 2)))
        return Conversation((scene,), (Round(question, answer, None), *more))


def elliptic_rounds(rng: Random, held_out: bool) -> Conversation:
    """The second round is "And the square?": what is asked stands in the first."""
    while True:
        scene = draw_scene(rng, rng.randint(2, 4))
        first, second = _lone_shape(rng, scene), _lone_shape(rng, scene)
        if first is None or second is None or first is second:
            continue
        question, said = rng.choice(
            (
                ("Where is the {}?", (first.place, second.place)),
                ("What colour is the {}?", (first.colour.value, second.colour.value)),
                ("How large is the {}?", (first.size.value, second.size.value)),
            )
        )
        again = rng.choice(("And the {}?", "What about the {}?")).format(second.shape)
        return Conversation(
            (scene,),
            (
                Round(question.format(first.shape), f"The {first.shape} is {said[0]}.", None),
                Round(again, f"The {second.shape} is {said[1]}.", Task.FOLLOW_UP),
            ),
        )


def counting_rounds(rng: Random, held_out: bool) -> Conversation:
    """How many of these, and of those?"""
    scene = draw_scene(rng, rng.randint(2, 8), distinct=False)
    kinds = rng.sample([shape.value for shape in Shape], 3)
    kinds[: rng.randint(1, 2)] = rng.sample(kinds, 3)[: rng.randint(1, 2)]
    present = list(dict.fromkeys(thing.shape.value for thing in scene.things))
    asked = list(dict.fromkeys([*rng.sample(present, min(2, len(present))), *kinds]))[:3]
    rng.shuffle(asked)
    rounds = [
        Round(f"How many {plural(asked[0])} are there?", there_are(count_of(asked[0], scene.things), asked[0]), None)
    ]
    for kind in asked[1:]:
        question = rng.choice((f"And {plural(kind)}?", f"And how many {plural(kind)}?"))
        rounds.append(Round(question, there_are(count_of(kind, scene.things), kind), Task.FOLLOW_UP))
    return Conversation((scene,), tuple(rounds))


def _single(asker_task: Task) -> Maker:
    """One round of one task, for the evaluation."""

    def make(rng: Random, held_out: bool) -> Conversation:
        while True:
            count = rng.randint(2, 9) if asker_task is Task.COUNT else rng.randint(1, 4)
            scene = draw_scene(rng, count, distinct=asker_task is not Task.COUNT)
            askers: tuple[tuple[Asker, int], ...] = CROWD_ASKERS if asker_task is Task.COUNT else DISTINCT_ASKERS
            for _ in range(12):
                asked = ask(rng, scene, askers)
                if asked.task is asker_task:
                    return Conversation((scene,), (asked,))

    return make


def follow_ups(rng: Random, held_out: bool) -> Conversation:
    maker = rng.choice((pronoun_rounds, pronoun_rounds, elliptic_rounds, counting_rounds, reading_tasks.reading_rounds))
    return maker(rng, held_out)


MIXTURE: tuple[tuple[Maker, int], ...] = (
    (shapes, 24),
    (crowd, 10),
    (reading_tasks.reading, 30),
    (reading_tasks.description, 2),
    (follow_ups, 10),
    (comparison, 13),
    (video, 10),
    (no_picture, 2),
    (small_talk, 1),
)

EVALUATED: dict[Task, Maker] = {
    **{task: _single(task) for task in list(Task)[: list(Task).index(Task.READ)]},
    Task.READ: reading_tasks.reading,
    Task.COMPARE: comparison,
    Task.VIDEO: video,
    Task.FOLLOW_UP: follow_ups,
    Task.NO_PICTURE: no_picture,
    Task.SMALL_TALK: small_talk,
}


def draw_training(seed: int) -> Conversation:
    """A conversation of the training mixture."""
    rng = Random(f"train {seed}")
    maker = rng.choices([maker for maker, _ in MIXTURE], [weight for _, weight in MIXTURE])[0]
    return maker(rng, False)


def draw_held_out(task: Task, seed: int) -> Conversation:
    """A conversation whose last round is of `task`: another seed than any of training, words never printed there."""
    rng = Random(f"held out {task} {seed}")
    while True:
        drawn = EVALUATED[task](rng, True)
        last = next((k for k, asked in enumerate(drawn.rounds) if asked.task is task), None)
        if last is not None:
            return replace(drawn, rounds=drawn.rounds[: last + 1])
