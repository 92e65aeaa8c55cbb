"""A response's own input items, a page at a time. Renders only."""

import base64
from collections.abc import Callable, Sequence
from typing import Any, Literal

from api.errors import ApiError
from api.responses.door import door_understood
from api.responses.output import item_id
from jobs.errors import JobUnreadable
from jobs.job import Job

PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}


def input_items(job: Job) -> list[dict[str, Any]]:
    """As they came, with ids, oldest first. Pictures of data: URLs are references still. Raises JobUnreadable."""
    items = door_understood(job).input
    if strange := {item.get("type") for item in items} - PREFIXES.keys():
        raise JobUnreadable(job.id, f"door: input items of the types {sorted(map(repr, strange))}")
    return [
        {"id": item_id(job.id, PREFIXES[item["type"]], f"in{place}"), "status": "completed", **item}
        for place, item in enumerate(items)
    ]


def page_of(
    items: Sequence[dict[str, Any]], after: str | None, limit: int, order: Literal["asc", "desc"]
) -> tuple[list[dict[str, Any]], bool]:
    """One page behind the item `after`, and whether there is more. Raises ApiError for an unknown `after`."""
    ordered = list(items) if order == "asc" else list(reversed(items))
    first = 0
    if after is not None:
        places = [place for place, item in enumerate(ordered) if item["id"] == after]
        if not places:
            message = f"Invalid value for 'after': the response has no input item {after[:100]!r}."
            raise ApiError(message, param="after", code="invalid_value")
        first = places[0] + 1
    return ordered[first : first + limit], first + limit < len(ordered)


def shown(item: dict[str, Any], bytes_of: Callable[[str], bytes] | None) -> dict[str, Any]:
    """The item as clients see it. `bytes_of` reads a blob by its digest; None leaves out the URLs that held bytes."""
    if item["type"] != "message":
        return item
    return {**item, "content": [_part(part, bytes_of) for part in item["content"]]}


def _part(part: dict[str, Any], bytes_of: Callable[[str], bytes] | None) -> dict[str, Any]:
    if part["type"] not in ("input_image", "input_video"):
        return part
    field = "image_url" if part["type"] == "input_image" else "video_url"
    url = part.get(field)
    if "blob" in part and bytes_of is not None:
        url = f"data:{part['media_type']};base64,{base64.b64encode(bytes_of(part['blob'])).decode()}"
    kept = {key: value for key, value in part.items() if key not in ("blob", "media_type")}
    return {**kept, field: url, "file_id": part.get("file_id")}


def item_list(data: list[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": has_more}
