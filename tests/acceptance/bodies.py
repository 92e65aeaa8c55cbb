"""Request bodies and pictures that the acceptance tests send."""

import base64
import io
from typing import Any

from PIL import Image, ImageDraw

from tests.acceptance.system import MODEL


def picture(width: int = 300, height: int = 200, colour: str = "steelblue", kind: str = "PNG") -> bytes:
    """A drawn picture, encoded."""
    image = Image.new("RGB", (width, height), "ivory")
    draw = ImageDraw.Draw(image)
    draw.ellipse((width // 8, height // 8, width // 2, height * 3 // 4), fill=colour)
    draw.rectangle((width // 2, height // 3, width * 7 // 8, height * 7 // 8), fill="crimson")
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def data_url(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def image_part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def chat(text: str, *images: str, **more: Any) -> dict[str, Any]:
    """A greedy chat body over pictures given as URLs."""
    parts: list[dict[str, Any]] = [image_part(url) for url in images]
    content = [*parts, {"type": "text", "text": text}] if images else text
    body = {"model": MODEL, "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 16}
    return body | more
