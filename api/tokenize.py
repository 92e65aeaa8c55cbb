"""`POST /v1/tokenize`: how many tokens a request would have. Queues nothing; a live worker of the model counts."""

from fastapi import APIRouter, Request
from pydantic import BaseModel

from api.auth import Tenant
from api.backend import Backend, backend_of
from api.body import parse_object, read_body
from api.errors import SERVER, ApiError
from api.openapi import json_body
from api.schema import ChatBody, TextBody, validate
from api.sse import unless_gone
from api.submission import check_model
from jobs.counting import Counted, CountPrompt, CountRefused, CountText, Question

router = APIRouter(tags=["tokens"])


class TokenCount(BaseModel):
    """`max_completion_tokens` is how many tokens the answer may have: what the request asks for or what the context
    leaves, whichever is less; 0 when the prompt fills the context."""

    object: str = "token_count"
    model: str
    prompt_tokens: int
    text_tokens: int
    image_tokens: int
    context_length: int
    max_completion_tokens: int


@router.post("/v1/tokenize", summary="Count a request's tokens", openapi_extra=json_body(ChatBody, TextBody))
async def count_tokens(request: Request, tenant: Tenant) -> TokenCount:
    """The body of a chat completion or a job, or `model` and `text` for plain text. Media count as they would in a
    job: their places in the prompt included, and fetched under the same limits where they are URLs."""
    backend = backend_of(request)
    raw = await read_body(request, backend.settings.max_body_bytes)
    model, question = await backend.threads.call(_question, backend, raw)
    # It may wait for others, and then for a worker; the pictures in it are large.
    del raw
    return _shown(model, await unless_gone(request, counted(backend, model, question, "messages")))


def _question(backend: Backend, raw: bytes) -> tuple[str, Question]:
    fields = parse_object(raw)
    submission = backend.submission
    if "text" not in fields:
        body = validate(ChatBody, fields)
        check_model(body.model, submission.models)
        return body.model, CountPrompt(submission.request_of(body))
    text = validate(TextBody, fields)
    check_model(text.model, submission.models)
    if len(text.text) > (most := submission.limits.max_text_chars):
        message = f"'text' has {len(text.text)} characters; at most {most} are allowed."
        raise ApiError(message, param="text", code="invalid_value")
    return text.model, CountText(text.text)


async def counted(backend: Backend, model: str, question: Question, param: str) -> Counted:
    """A live worker's answer. `param` is where the body has what it counts. Raises ApiError when the worker refuses it
    or when there is none, StreamUnavailable."""
    answer = await backend.counting_threads.call(
        backend.counting.ask, model, question, backend.settings.count_timeout_s
    )
    match answer:
        case None:
            message = f"No worker of {model!r} is there to count; try again."
            raise ApiError(message, status=503, kind=SERVER, code="no_worker", headers={"retry-after": "2"})
        case CountRefused(code, message, _) if code == SERVER:
            raise ApiError(message, status=500, kind=SERVER, code=code)
        case CountRefused(code, message, place):
            raise ApiError(message, param=place or param, code=code)
        case Counted():
            return answer


def _shown(model: str, count: Counted) -> TokenCount:
    return TokenCount(
        model=model,
        prompt_tokens=count.prompt_tokens,
        text_tokens=count.prompt_tokens - count.image_tokens,
        image_tokens=count.image_tokens,
        context_length=count.context_length,
        max_completion_tokens=count.room,
    )
