"""A body of the Responses API becomes an order for a job."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec import structs

from api.auth import Caller
from api.deadline import to_instant
from api.response_format import JsonObjectFormat, schema_format
from api.responses.body import AskedBody, ResponseBody, SchemaFormat, TextConfig, response_body
from api.responses.door import Door
from api.responses.items import MessageItem
from api.responses.past import PARAM, past_of
from api.responses.tools import choice_of, shown_choice, shown_tools
from api.responses.turns import Turns, to_turns
from api.responses.uploads import Uploads
from api.sampling import sampling_of
from api.submission import Order, Submission, check_model
from api.tool_use import check_guarded, use_of
from jobs.job import BatchLine, JobKind, Origin, Priority
from jobs.request import ChatRequest, JsonFormat, Message, Role, Sampling, TextPart, blobs_of


def order_of(
    submission: Submission, fields: Mapping[str, Any], caller: Caller, batch: BatchLine | None = None
) -> Order:
    """What the fields of a body ask for; a line of a batch goes to the lane of batches. Pictures of data: URLs are
    stored by that. Raises ApiError for what the body does wrong, StoreUnavailable, BlobsUnavailable."""
    return order_of_body(submission, response_body(dict(fields)), caller, batch)


def order_of_body(submission: Submission, body: ResponseBody, caller: Caller, batch: BatchLine | None = None) -> Order:
    """As `order_of`, of a body that is known to be right."""
    check_model(body.model, submission.models)
    deadline = to_instant(body.deadline, datetime.now(UTC), submission.max_deadline_s)
    request, turns = _with_conversation(_drawing(body), submission, body, caller.tenant)
    return Order(
        kind=JobKind.RESPONSE,
        caller=caller,
        model=body.model,
        priority=_lane(body, batch),
        deadline=deadline,
        request=request,
        metadata=dict(body.metadata),
        origin=Origin(
            background=body.background or batch is not None,
            stored=body.store,
            door=_door(body, turns).kept(),
            batch=batch,
            webhook=submission.webhook_of(body.webhook),
        ),
        end_user=body.user or body.safety_identifier,
    )


def prompt_of(submission: Submission, body: AskedBody, tenant: str) -> ChatRequest:
    """The request whose prompt a body would have, to count it. Raises as `order_of`."""
    check_model(body.model, submission.models)
    bare = ChatRequest(messages=(), sampling=Sampling(seed=0), json_format=_text_of(body.text))
    return _with_conversation(bare, submission, body, tenant)[0]


def _lane(body: ResponseBody, batch: BatchLine | None) -> Priority:
    if body.priority is not None:
        return Priority[body.priority.upper()]
    if batch is not None:
        return Priority.BATCH
    return Priority.BACKGROUND if body.background else Priority.INTERACTIVE


def _drawing(body: ResponseBody) -> ChatRequest:
    """All that is asked but the conversation and its tools."""
    return ChatRequest(
        messages=(),
        sampling=sampling_of(body),
        max_tokens=body.max_output_tokens,
        stop=tuple(body.stop),
        logprobs=body.logprobs,
        min_tokens=body.min_tokens,
        ignore_eos=body.ignore_eos,
        json_format=_text_of(body.text),
    )


def _with_conversation(
    request: ChatRequest, submission: Submission, body: AskedBody, tenant: str
) -> tuple[ChatRequest, Turns]:
    """The request with the whole conversation, and what of it is new."""
    uploads = Uploads(submission.blobs, submission.pictures, submission.files, tenant)
    past = past_of(submission.store, body.previous_response_id, tenant)
    for digest in blobs_of(past):
        uploads.hold(digest, PARAM)
    use = use_of(
        *(body.model, [tool.tool() for tool in body.tools], choice_of(body.tool_choice)),
        parallel=body.parallel_tool_calls,
        history=any(message.calls for message in past) or any(not isinstance(i, MessageItem) for i in body.input),
        limits=submission.limits.tools,
    )
    request = structs.replace(request, tools=use)
    check_guarded(request, [f"tools[{n}].parameters" for n in range(len(body.tools))])
    if body.instructions is not None:
        past = (Message(Role.SYSTEM, (TextPart(body.instructions),)), *past)
    turns = to_turns(body.input, past, submission.limits, uploads)
    return structs.replace(request, messages=turns.messages), turns


def _text_of(text: TextConfig) -> JsonFormat | None:
    match text.format:
        case JsonObjectFormat():
            return JsonFormat()
        case SchemaFormat():
            return schema_format(text.format.schema_, "text.format.schema")
        case _:
            return None


def _door(body: ResponseBody, turns: Turns) -> Door:
    return Door(
        input=turns.shown,
        instructions=body.instructions,
        previous_response_id=body.previous_response_id,
        text_format=_shown_format(body.text),
        tools=shown_tools(body.tools),
        tool_choice=shown_choice(body.tool_choice),
        parallel_tool_calls=body.parallel_tool_calls,
        background=body.background,
        user=body.user,
        safety_identifier=body.safety_identifier,
    )


def _shown_format(text: TextConfig) -> dict[str, Any]:
    match text.format:
        case None:
            return {"type": "text"}
        case SchemaFormat():
            shown = text.format.model_dump(by_alias=True)
            return {**shown, "strict": True if shown["strict"] is None else shown["strict"]}
        case other:
            return other.model_dump()
