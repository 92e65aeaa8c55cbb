"""A job in OpenAI's chat completion shapes: the whole answer, or its chunks. Renders only."""

from collections.abc import Sequence
from typing import Any

from api.tool_calls import Said
from api.tool_parser import said
from jobs.job import FinishReason, Job, Token, Usage


def usage_object(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "image_tokens": usage.image_tokens,
            "text_tokens": usage.prompt_tokens - usage.image_tokens,
        },
    }


def logprobs_object(tokens: Sequence[Token]) -> dict[str, Any]:
    """`token` is the text that the token added to the answer, and `bytes` are that text's: all of them joined are the
    answer. A character of several tokens stands with the last of them."""
    return {
        "content": [
            {
                "token": token.text,
                "logprob": token.logprob,
                "bytes": list(token.text.encode()),
                "top_logprobs": [
                    {"token": top.text, "logprob": top.logprob, "bytes": _bytes(top.text)} for top in token.top
                ],
            }
            for token in tokens
            if token.logprob is not None
        ],
        "refusal": None,
    }


def _bytes(text: str) -> list[int] | None:
    """None for a token that is no text by itself, but a part of a character."""
    return None if "\ufffd" in text else list(text.encode())


def finish_reasons(job: Job) -> list[str]:
    """Of each choice of a job that is completed or incomplete."""
    # Rows of a time when every job had one choice have only the job's own reason.
    known = job.finish_reasons or (job.finish_reason or FinishReason.STOP,)
    return [reason.value for reason in known]


def tool_calls_object(answer: Said) -> list[dict[str, Any]]:
    return [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in answer.calls
    ]


def message_object(answer: Said) -> dict[str, Any]:
    """`content` is null where the model only called."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.calls:
        message["content"] = answer.text or None
        message["tool_calls"] = tool_calls_object(answer)
    return message


def finish_reason_of(reason: str, called: bool) -> str:
    """An answer that ended by itself and called something ended in order to call."""
    return "tool_calls" if called and reason == FinishReason.STOP else reason


def completion_object(job: Job) -> dict[str, Any]:
    """The answer of a job that is completed or incomplete."""
    reasons = finish_reasons(job)
    answers = [said(job, choice) for choice in range(len(reasons))]
    return {
        "id": job.id,
        "object": "chat.completion",
        "created": int(job.timeline.queued_at.timestamp()),
        "model": job.model,
        "choices": [
            {
                "index": choice,
                "message": message_object(answer),
                "logprobs": None if job.request.logprobs is None else logprobs_object(job.tokens_of(choice)),
                "finish_reason": finish_reason_of(reasons[choice], bool(answer.calls)),
            }
            for choice, answer in enumerate(answers)
        ],
        "usage": usage_object(job.usage),
        "service_tier": "default",
    }
