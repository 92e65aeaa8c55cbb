"""What media are estimated to cost when a job comes, beside what its worker has counted when it ends."""

import io
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import openai
import psycopg
import pytest
from PIL import Image

from tests.acceptance.bodies import image_part
from tests.acceptance.system import MODEL, System
from tests.fixtures.clips import clip
from tests.fixtures.eventually import eventually
from tests.fixtures.pictures import data_url, encoded, picture
from tools.tiny_model import TINY

pytestmark = pytest.mark.acceptance

WITHIN = TINY.tokens_per_tile // 2
"""Tokens for each picture or frame: half a tile, so that the tiles must be the right ones."""


@dataclass(frozen=True, slots=True)
class Told:
    estimated: int
    counted: int


class Costs:
    """Estimates and counts of jobs by their rows, without those of the words alone."""

    def __init__(self, system: System, database: psycopg.Connection[Any]) -> None:
        self._system = system
        self._database = database
        self._words = self._of([])

    def of(self, *media: dict[str, Any]) -> Told:
        told = self._of(list(media))
        return Told(told.estimated - self._words.estimated, told.counted - self._words.counted)

    def _of(self, media: list[dict[str, Any]]) -> Told:
        content = [*media, {"type": "text", "text": "What is it?"}]
        body = {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 1}
        job = self._system.wait(self._system.submit(body))
        assert job["error"] is None, job
        return self.row(job["id"])

    def row(self, job_id: str) -> Told:
        query = "SELECT cost, CAST(usage ->> 'prompt_tokens' AS int) FROM jobs WHERE id = %s"
        return Told(*self._database.execute(query, [job_id]).fetchone() or (0, 0))


@pytest.fixture(scope="module")
def costs(shared: System) -> Iterator[Costs]:
    with psycopg.connect(shared.settings.database_url, autocommit=True) as database:
        yield Costs(shared, database)


def off(told: Told) -> int:
    return abs(told.estimated - told.counted)


def test_pictures_of_many_sizes_are_estimated_as_they_are_counted(costs: Costs) -> None:
    chance = random.Random(8)
    sizes = [(1, 1), (112, 112), (113, 112), (800, 600), (600, 800), (1920, 1080), (2400, 200), (60, 1400)]
    sizes += [(chance.randint(1, 1600), chance.randint(1, 1600)) for _ in range(16)]
    kinds = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
    parts = [
        image_part(data_url(encoded(Image.new("RGB", size), kind), f"image/{kind.lower()}"))
        for size, kind in zip(sizes, kinds * len(sizes), strict=False)
    ]
    with ThreadPoolExecutor(8) as pool:
        told = dict(zip(sizes, pool.map(costs.of, parts), strict=True))
    assert len({one.counted for one in told.values()}) > 6, "the pictures are too much alike to prove anything"
    assert {size: one for size, one in told.items() if off(one) > WITHIN} == {}


def test_a_picture_at_low_detail_and_one_that_is_turned_are_estimated_as_they_are_counted(costs: Costs) -> None:
    low = image_part(data_url(picture(1600, 400)))
    low["image_url"]["detail"] = "low"
    turned = io.BytesIO()
    Image.new("RGB", (900, 200)).save(turned, "JPEG", exif=bytes(_orientation(6)))
    for part in (low, image_part(data_url(turned.getvalue(), "image/jpeg"))):
        assert off(costs.of(part)) <= WITHIN


def _orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


def test_several_pictures_and_a_video_are_estimated_as_they_are_counted(costs: Costs) -> None:
    frames = {"type": "video_url", "video_url": {"url": data_url(clip(), "video/mp4"), "num_segments": 5}}
    usual = {"type": "video_url", "video_url": {"url": data_url(clip(), "video/mp4")}}
    pictures = [image_part(data_url(picture(*size))) for size in ((300, 200), (500, 500), (90, 700))]
    assert off(costs.of(*pictures)) <= len(pictures) * WITHIN
    assert off(costs.of(frames)) <= 5 * WITHIN
    assert off(costs.of(usual)) <= 8 * WITHIN


def test_a_picture_that_was_uploaded_before_is_estimated_as_it_is_counted(shared: System, costs: Costs) -> None:
    with openai.OpenAI(base_url=f"{shared.url}/v1", api_key="none", max_retries=0) as client:
        made = []
        for size in ((1200, 100), (100, 100)):
            file = client.files.create(file=("picture.png", picture(*size)), purpose="vision")
            image: Any = {"type": "input_image", "file_id": file.id, "detail": "auto"}
            content = [image, {"type": "input_text", "text": "What is it?"}]
            asked: Any = [{"role": "user", "content": content}]
            made.append(client.responses.create(model=MODEL, input=asked, max_output_tokens=1).id)
        eventually("both ended", lambda: all(costs.row(one).counted for one in made))
    wide, small = (costs.row(one) for one in made)
    assert off(Told(wide.estimated - small.estimated, wide.counted - small.counted)) <= WITHIN
    assert wide.counted > small.counted + WITHIN
