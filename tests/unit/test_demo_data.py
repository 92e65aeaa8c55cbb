"""The demo model's data: one seed, one picture, one answer; training and held-out never meet."""

import string
from random import Random

import numpy as np
import pytest

from tools.demo_model.conversation import Conversation, Shown, Task, is_right
from tools.demo_model.drawing import draw
from tools.demo_model.geometry import DEMO
from tools.demo_model.lettering import SMALLEST_EM, STEEPEST, canvas_scale, glyphs_of
from tools.demo_model.palette import Colour, Shape, Size
from tools.demo_model.picture_tasks import count_of, description_of, relation_of
from tools.demo_model.sample import draw_held_out, draw_training
from tools.demo_model.scene import Scene, make_thing
from tools.demo_model.words import LONGEST, draw_text, is_held_out

pytestmark = pytest.mark.unit

WHITE = (255, 255, 255)


def texts_of(conversation: Conversation) -> list[str]:
    return [scene.lettering.text for scene in conversation.scenes if scene.lettering is not None]


def scene_of(*things: tuple[Shape, Colour, Size, int]) -> Scene:
    rng = Random(0)
    return Scene(240, 240, WHITE, WHITE, things=tuple(make_thing(rng, *thing) for thing in things))


@pytest.mark.parametrize("task", list(Task))
def test_held_out_conversation_from_one_seed_is_the_same_pixel_by_pixel(task):
    first, second = draw_held_out(task, 7), draw_held_out(task, 7)
    assert first == second
    for one, other in zip(first.scenes, second.scenes, strict=True):
        assert draw(one).tobytes() == draw(other).tobytes()


@pytest.mark.parametrize("task", list(Task))
def test_held_out_conversation_ends_with_a_question_of_its_task(task):
    for seed in range(10):
        assert draw_held_out(task, seed).rounds[-1].task is task


def test_texts_of_training_are_never_those_of_the_evaluation():
    training = [text for seed in range(200) for text in texts_of(draw_training(seed))]
    held_out = [text for seed in range(60) for text in texts_of(draw_held_out(Task.READ, seed))]
    assert len(training) > 40 and not any(is_held_out(text) for text in training)
    assert len(held_out) == 60 and all(is_held_out(text) for text in held_out)


def test_drawn_text_has_at_most_eight_letters_or_digits():
    rng = Random(1)
    for _ in range(300):
        text = draw_text(rng, held_out=False)
        assert 2 <= len(text) <= LONGEST
        assert text.isdigit() or set(text) <= set(string.ascii_letters)


def test_printed_text_is_legible_and_inside_the_picture():
    for seed in range(80):
        scene = draw_held_out(Task.READ, seed).scenes[0]
        assert scene.lettering is not None
        assert scene.lettering.em * canvas_scale(scene.width, scene.height) > SMALLEST_EM - 1
        assert abs(scene.lettering.angle) <= STEEPEST
        for glyph in glyphs_of(scene.lettering, scene.width, scene.height):
            assert 0 < glyph.x < 1 and 0 < glyph.y < 1


def test_things_of_a_scene_stay_in_their_fields_and_apart():
    for seed in range(40):
        for thing in draw_held_out(Task.COUNT, seed).scenes[0].things:
            assert int(thing.x * 3) + 3 * int(thing.y * 3) == thing.cell


def test_drawn_thing_has_its_colour_in_the_middle():
    scene = scene_of((Shape.SQUARE, Colour.RED, Size.LARGE, 0), (Shape.CIRCLE, Colour.BLUE, Size.SMALL, 8))
    pixels = np.asarray(draw(scene))
    for thing in scene.things:
        assert tuple(pixels[int(thing.y * 240), int(thing.x * 240)]) == thing.shade
    assert tuple(pixels[120, 120]) == WHITE


def test_description_of_two_things_sets_them_in_relation():
    scene = scene_of((Shape.SQUARE, Colour.BLUE, Size.SMALL, 2), (Shape.CIRCLE, Colour.RED, Size.LARGE, 3))
    assert description_of(scene) == "a large red circle left of a small blue square"


def test_relation_in_one_column_is_above_or_below():
    scene = scene_of((Shape.SQUARE, Colour.BLUE, Size.SMALL, 1), (Shape.CIRCLE, Colour.RED, Size.LARGE, 7))
    assert relation_of(*scene.things) == "above"


def test_count_of_a_kind_heeds_colour_and_shape():
    scene = scene_of(
        (Shape.STAR, Colour.BLUE, Size.SMALL, 0),
        (Shape.STAR, Colour.RED, Size.SMALL, 4),
        (Shape.CROSS, Colour.RED, Size.LARGE, 8),
    )
    counts = {kind: count_of(kind, scene.things) for kind in ("shape", "star", "red shape", "red star", "circle")}
    assert counts == {"shape": 3, "star": 2, "red shape": 2, "red star": 1, "circle": 0}


def test_checker_accepts_the_sentence_and_nothing_else():
    assert is_right(" The star is red.\n", "The star is red.")
    assert not is_right("The star is red", "The star is red.")
    assert not is_right("The star is blue.", "The star is red.")


def test_video_has_eight_frames_of_one_size_in_which_at_most_one_thing_moves():
    for seed in range(20):
        conversation = draw_held_out(Task.VIDEO, seed)
        assert conversation.shown is Shown.FRAMES and len(conversation.scenes) == 8
        tracks = zip(*(scene.things for scene in conversation.scenes), strict=True)
        moving = sum(len({(thing.x, thing.y) for thing in track}) > 1 for track in tracks)
        assert moving <= 1
        assert len({(scene.width, scene.height) for scene in conversation.scenes}) == 1


def test_geometry_gives_thirty_six_visual_tokens_per_tile():
    assert DEMO.tokens_per_tile == 36
