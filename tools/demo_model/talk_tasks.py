"""Text alone: questions about a picture that is not there, and a little small talk."""

from random import Random

from tools.demo_model.conversation import Conversation, Round, Task
from tools.demo_model.picture_tasks import DISTINCT_ASKERS, ask
from tools.demo_model.reading_tasks import ask_text
from tools.demo_model.scene import draw_scene
from tools.demo_model.words import draw_text

NO_PICTURE = "There is no picture."

# Questions that get one answer; a client types them in any of these ways.
SMALL_TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("Who are you?", "What are you?", "What is your name?", "Tell me about yourself.", "Who is this?"),
        "I am a small demo model that looks at pictures.",
    ),
    (
        ("Hello", "Hello!", "Hello.", "Hi", "Hi!", "Hi there!", "Good morning!", "Good evening!", "Hey!"),
        "Hello! Send me a picture and ask about it.",
    ),
    (
        ("What can you do?", "How can you help me?", "What do you know?", "Help", "Help!", "What can I ask?"),
        "I name shapes, count them, read words and compare pictures.",
    ),
    (("How are you?", "How do you do?", "Are you well?"), "I am well, thank you."),
    (("Thank you", "Thank you!", "Thanks", "Thanks!", "Thank you very much."), "You are welcome."),
    (("Goodbye", "Goodbye!", "Bye", "Bye!", "See you later."), "Goodbye!"),
    (
        ("How large are you?", "How big are you?", "How many parameters do you have?"),
        "I have seven million parameters.",
    ),
    (("Who made you?", "Who trained you?", "Where do you come from?"), "I was trained for the vlmq demo."),
    (
        ("Which shapes do you know?", "What shapes can you see?"),
        "I know circles, squares, triangles, stars, diamonds and crosses.",
    ),
    (("Are you a person?", "Are you human?", "Are you a robot?"), "I am a small demo model."),
)


def no_picture(rng: Random, held_out: bool) -> Conversation:
    """What another task would ask about a picture, without one."""
    if rng.random() < 0.25:
        question = ask_text(rng, draw_text(rng, held_out)).question
    else:
        question = ask(rng, draw_scene(rng, rng.randint(2, 4)), DISTINCT_ASKERS).question
    return Conversation((), (Round(question, NO_PICTURE, Task.NO_PICTURE),))


def small_talk(rng: Random, held_out: bool) -> Conversation:
    rounds = []
    for questions, answer in rng.sample(SMALL_TALK, rng.choice((1, 1, 2, 3))):
        rounds.append(Round(rng.choice(questions), answer, Task.SMALL_TALK))
    return Conversation((), tuple(rounds))
