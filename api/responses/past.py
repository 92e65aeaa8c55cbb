"""An earlier response as the beginning of a new one: its messages without its instructions, and its answer.

So the prompt of the new job begins as that one's prompt and answer, and the worker's cache has it. Every job has the
whole conversation: none needs another's row once it is recorded.
"""

from typing import Any

import msgspec

from api.errors import ApiError
from api.responses.door import door_understood
from api.tool_parser import said
from jobs.errors import JobNotFound
from jobs.job import Job, JobKind, JobState
from jobs.ports import JobStore
from jobs.request import Message, Role, TextPart
from jobs.tools import ToolCall

PARAM = "previous_response_id"


def past_of(store: JobStore, previous_id: str | None, tenant: str) -> tuple[Message, ...]:
    """Raises ApiError for a response that is unknown, another's, not stored, not at its end or failed, and
    JobUnreadable."""
    if previous_id is None:
        return ()
    return messages_after(_previous(store, previous_id, tenant))


def messages_after(job: Job) -> tuple[Message, ...]:
    """What a response leaves for the next turn. Raises JobUnreadable."""
    asked = job.request.messages
    own = asked[1:] if door_understood(job).instructions is not None else asked
    answer = said(job)
    parts = (TextPart(answer.text),) if answer.text else ()
    # A call that the answer's end has cut was never made.
    calls = tuple(call for call in answer.calls if _whole(call))
    return (*own, Message(Role.ASSISTANT, parts, calls)) if parts or calls else own


def _whole(call: ToolCall) -> bool:
    try:
        msgspec.json.decode(call.arguments, type=dict[str, Any])
    except msgspec.DecodeError:
        return False
    return True


def _previous(store: JobStore, previous_id: str, tenant: str) -> Job:
    try:
        job = store.get(previous_id, tenant)
    except JobNotFound:
        job = None
    if job is None or job.kind is not JobKind.RESPONSE or not job.origin.stored:
        raise _refusal(f"Previous response with id {previous_id!r} not found.", "previous_response_not_found")
    if not job.state.terminal:
        message = f"The previous response {previous_id!r} is still {job.state.value}: wait for its end."
        raise _refusal(message, "previous_response_not_finished")
    if job.state is JobState.FAILED:
        why = job.error.message if job.error is not None else "it has no answer"
        message = f"The previous response {previous_id!r} failed, so there is nothing to go on from: {why}."
        raise _refusal(message, "previous_response_failed")
    return job


def _refusal(message: str, code: str) -> ApiError:
    return ApiError(message, param=PARAM, code=code)
