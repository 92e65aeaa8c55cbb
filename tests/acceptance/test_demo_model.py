"""The bundled model through the whole system: held-out pictures, asked about all at once, get right answers."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jobs.settings import ServiceSettings
from tests.acceptance.bodies import image_part
from tests.acceptance.system import System, system
from tests.fixtures.pictures import data_url
from tests.fixtures.tensorrt_llm import Serving
from tools.demo_model.conversation import Conversation, Task, is_right
from tools.demo_model.drawing import draw
from tools.demo_model.product import png_of
from tools.demo_model.prompt import question_text
from tools.demo_model.sample import draw_held_out

pytestmark = [pytest.mark.acceptance, pytest.mark.every_backend]

ASKED = {
    Task.DESCRIBE: 8,
    Task.COLOUR: 5,
    Task.SHAPE: 5,
    Task.SIZE: 4,
    Task.POSITION: 5,
    Task.RELATION: 5,
    Task.COUNT: 6,
    Task.YES_NO: 5,
    Task.READ: 7,
}
"""Fifty pictures, one question about each. Their seeds lie behind those of `tools.demo_model.evaluate`."""
FIRST_SEED = 10_000


@pytest.fixture
def demo(service_settings: ServiceSettings, serving: Serving, tmp_path: Path) -> Iterator[System]:
    models = {"VLMQ_MODELS": "vlmq-demo", "VLMQ_WORKER_MODEL": "vlmq-demo"}
    with system(service_settings, tmp_path, **models, **serving.demo) as it:
        it.start_api()
        it.start_maintenance()
        it.start_worker()
        yield it


def body(conversation: Conversation) -> dict[str, Any]:
    (scene,) = conversation.scenes
    parts = [image_part(data_url(png_of(draw(scene)))), {"type": "text", "text": question_text(conversation)}]
    return {
        "model": "vlmq-demo",
        "messages": [{"role": "user", "content": parts}],
        "temperature": 0,
        "max_tokens": 96,
    }


def single(task: Task, count: int) -> list[Conversation]:
    """The next held-out conversations of one picture and one round."""
    found: list[Conversation] = []
    seed = FIRST_SEED
    while len(found) < count:
        drawn = draw_held_out(task, seed)
        seed += 1
        if len(drawn.scenes) == len(drawn.rounds) == 1:
            found.append(drawn)
    return found


def test_50_held_out_pictures_as_concurrent_jobs_get_right_answers(demo: System) -> None:
    conversations = [conversation for task, count in ASKED.items() for conversation in single(task, count)]
    assert len(conversations) == 50
    with ThreadPoolExecutor(16) as clients:
        jobs = list(clients.map(demo.submit, map(body, conversations)))
    ended = [demo.wait(job) for job in jobs]
    wrong = [
        (conversation.rounds[-1].question, conversation.rounds[-1].answer, job["output"])
        for conversation, job in zip(conversations, ended, strict=True)
        if not is_right(job["output"], conversation.rounds[-1].answer)
    ]
    assert {job["status"] for job in ended} == {"completed"}
    assert len(wrong) <= 2, wrong
