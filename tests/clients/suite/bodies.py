"""What the suite asks for. The model is random, so an answer is as long as it is told to be."""

from typing import Any

from tests.acceptance.system import MODEL
from tests.fixtures.pictures import data_url, picture

WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
"""The parameters of a function that a model may call."""


def chat(text: str = "Talk.", **more: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_completion_tokens": 12,
        **more,
    }


def ending(**more: Any) -> dict[str, Any]:
    """An answer that ends by itself: JSON of the schema WEATHER."""
    asked = {"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER, "strict": True}}
    return chat(**({"response_format": asked, "max_completion_tokens": 80} | more))


def seeing(text: str = "What is it?", **more: Any) -> dict[str, Any]:
    parts = [
        {"type": "image_url", "image_url": {"url": data_url(picture()), "detail": "low"}},
        {"type": "text", "text": text},
    ]
    return chat(**more) | {"messages": [{"role": "user", "content": parts}]}


def asking(said: str = "Talk.", /, **more: Any) -> dict[str, Any]:
    """A response's body."""
    return {"model": MODEL, "input": said, "temperature": 0, "max_output_tokens": 12, **more}


def looking(said: str = "What is it?", /, **more: Any) -> dict[str, Any]:
    parts = [
        {"type": "input_image", "image_url": data_url(picture()), "detail": "low"},
        {"type": "input_text", "text": said},
    ]
    return asking(**more) | {"input": [{"role": "user", "content": parts}]}


def concluding(**more: Any) -> dict[str, Any]:
    """A response that ends by itself: JSON of the schema WEATHER."""
    text = {"format": {"type": "json_schema", "name": "weather", "schema": WEATHER, "strict": True}}
    return asking(**({"text": text, "max_output_tokens": 80} | more))
