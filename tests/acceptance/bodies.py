"""Request bodies that the acceptance tests send."""

from typing import Any

from tests.acceptance.system import MODEL


def image_part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def chat(text: str, *images: str, **more: Any) -> dict[str, Any]:
    """A greedy chat body over pictures given as URLs."""
    parts: list[dict[str, Any]] = [image_part(url) for url in images]
    content = [*parts, {"type": "text", "text": text}] if images else text
    body = {"model": MODEL, "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 16}
    return body | more
