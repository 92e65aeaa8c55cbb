"""What a job keeps of the body that asked for it, to be shown in the same shape again. JSON values only."""

from collections.abc import Mapping
from typing import Any

import msgspec

from api.settling import understood
from jobs.errors import JobUnreadable
from jobs.job import Job


class Door(msgspec.Struct, frozen=True, omit_defaults=True):
    """`input` are the request's own items as they came, but for pictures of data: URLs, which stand as `blob` and
    `media_type`. `text_format` and `tools` are as they are shown. `instructions` is the first of the job's messages
    when it is set. `background` is what the body said."""

    input: tuple[dict[str, Any], ...] = ()
    instructions: str | None = None
    previous_response_id: str | None = None
    text_format: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "text"})
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: str | dict[str, Any] = "auto"
    parallel_tool_calls: bool = True
    background: bool = False
    user: str | None = None
    safety_identifier: str | None = None

    def kept(self) -> Mapping[str, Any]:
        """As `Origin.door` takes it."""
        kept: dict[str, Any] = msgspec.to_builtins(self)
        return kept


def door_of(job: Job) -> Door:
    """To be shown: what this version does not understand, as if nothing had been said."""
    try:
        return msgspec.convert(job.origin.door, Door)
    except msgspec.ValidationError:
        return Door()


def door_understood(job: Job) -> Door:
    """For who goes on from it. Raises JobUnreadable."""
    try:
        return msgspec.convert(understood(job).origin.door, Door)
    except msgspec.ValidationError as exc:
        raise JobUnreadable(job.id, f"door: {exc}") from exc
