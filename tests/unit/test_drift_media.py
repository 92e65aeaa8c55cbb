"""The page about media names every code and every limit, and every fault of a request's media is a 400."""

import json
import re
from pathlib import Path

import pytest

from api.errors import REQUEST_FAULTS
from api.schema import ChatBody, JobBody, validate
from api.settings import ApiSettings
from worker.media.errors import MediaCode, VideoCode
from worker.settings import WorkerSettings

pytestmark = pytest.mark.unit

PAGE = (Path(__file__).parents[2] / "docs" / "media.md").read_text()
CODES = [code.value for code in (*MediaCode, *VideoCode)]


def test_every_code_of_media_is_on_the_page_and_no_other():
    errors = PAGE[PAGE.index("## Errors") : PAGE.index("## Examples")]
    named = set(re.findall(r"^\| (?:`(\w+)`)? *\| (?:`(\w+)`)? *\|", errors, flags=re.MULTILINE))
    of_door = {"invalid_base64_image", "invalid_base64_video", "invalid_prompt"}
    assert {code for pair in named for code in pair if code} == {*CODES, *of_door}


def test_every_code_of_media_is_the_requests_fault():
    assert set(CODES) <= REQUEST_FAULTS


@pytest.mark.parametrize("settings", [ApiSettings, WorkerSettings])
def test_every_limit_of_media_is_on_the_page(settings):
    limits = [
        name for name in settings.model_fields if re.search("image|video|tiles|exif|media_ports|roots|hosts", name)
    ]
    assert [name for name in limits if f"`{name}`" not in PAGE and f"`{name} =" not in PAGE] == []


def test_examples_of_the_page_are_accepted_requests():
    bodies = re.findall(
        r"'(\{.*?\})'", PAGE.split("## Examples")[1].replace("'content-type: application/json'", ""), re.S
    )
    assert len(bodies) == 3
    for body in bodies:
        made = json.loads(body.replace("%s", "QUJD"))
        validate(ChatBody if "max_tokens" in made else JobBody, made)
