"""What is asked of the installation: a fixed set of chat bodies, and what each is answered when nothing is wrong."""

import base64
import io
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

from tests.chaos.cluster import MODEL

COLOURS = ("red", "blue", "green", "orange", "purple", "black")


@dataclass(frozen=True, slots=True)
class Request:
    """A body that every door takes, but for the field that names its conversation."""

    name: str
    text: str
    pictures: tuple[str, ...]
    options: Mapping[str, Any]

    def chat(self) -> dict[str, Any]:
        """As `POST /v1/jobs` and `POST /v1/chat/completions` take it."""
        images = [{"type": "image_url", "image_url": {"url": url}} for url in self.pictures]
        content = [*images, {"type": "text", "text": self.text}]
        return {"model": MODEL, "messages": [{"role": "user", "content": content}], **self.options}

    def response(self) -> dict[str, Any]:
        """As `POST /v1/responses` takes it."""
        images = [{"type": "input_image", "image_url": url, "detail": "auto"} for url in self.pictures]
        content = [*images, {"type": "input_text", "text": self.text}]
        options = dict(self.options)
        options["max_output_tokens"] = options.pop("max_tokens")
        return {"model": MODEL, "input": [{"role": "user", "content": content}], **options}


@dataclass(frozen=True, slots=True)
class Answer:
    """How an undisturbed job ended."""

    status: str
    text: str
    tokens: int


def all_requests() -> list[Request]:
    """Short and long answers, greedy and drawn from a seed, with no picture, one and two."""
    dice = random.Random(1)
    made = []
    for k in range(12):
        pictures = tuple(_picture(dice) for _ in range((0, 1, 1, 2)[k % 4]))
        text = ("What do you see?", "Which colour is the largest shape?", "Describe it.", "Compare the two pictures.")[
            k % 4
        ]
        options: dict[str, Any] = {"max_tokens": (8, 40, 120, 300)[(k // 3) % 4], "temperature": 0}
        if k % 3:
            options |= {"ignore_eos": True}
        if k % 3 == 2:
            options |= {"temperature": 1, "seed": k}
        made.append(Request(f"request-{k}", text, pictures, options))
    return made


def long_request() -> Request:
    """For what must be stopped before it ends."""
    return Request("long", "Tell a story.", (), {"max_tokens": 1200, "temperature": 0, "ignore_eos": True})


def _picture(dice: random.Random) -> str:
    image = Image.new("RGB", (dice.randrange(120, 500), dice.randrange(120, 400)), "ivory")
    draw = ImageDraw.Draw(image)
    for _ in range(3):
        x, y = dice.randrange(image.width - 60), dice.randrange(image.height - 60)
        draw.ellipse((x, y, x + dice.randrange(20, 60), y + dice.randrange(20, 60)), fill=dice.choice(COLOURS))
    out = io.BytesIO()
    image.save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
