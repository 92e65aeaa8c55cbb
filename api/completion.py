"""A job in OpenAI's chat completion shapes: the whole answer, or its chunks. Renders only."""

from collections.abc import Sequence
from typing import Any

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
    """`token` is the text that the token added to the answer."""
    return {
        "content": [
            {
                "token": token.text,
                "logprob": token.logprob,
                "bytes": list(token.text.encode()),
                "top_logprobs": [
                    {"token": top.text, "logprob": top.logprob, "bytes": list(top.text.encode())} for top in token.top
                ],
            }
            for token in tokens
            if token.logprob is not None
        ],
        "refusal": None,
    }


def completion_object(job: Job) -> dict[str, Any]:
    """The answer of a job that is completed or incomplete."""
    finish = job.finish_reason or FinishReason.STOP
    return {
        "id": job.id,
        "object": "chat.completion",
        "created": int(job.timeline.queued_at.timestamp()),
        "model": job.model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": job.text, "refusal": None},
                "logprobs": None if job.request.logprobs is None else logprobs_object(job.tokens),
                "finish_reason": finish.value,
            }
        ],
        "usage": usage_object(job.usage),
        "service_tier": "default",
    }


class Chunks:
    """The chunks of one job's stream; all carry the same head."""

    def __init__(self, job: Job, include_usage: bool) -> None:
        self._logprobs = job.request.logprobs is not None
        self._include_usage = include_usage
        self._head: dict[str, Any] = {
            "id": job.id,
            "object": "chat.completion.chunk",
            "created": int(job.timeline.queued_at.timestamp()),
            "model": job.model,
            "service_tier": "default",
        }

    def role(self) -> dict[str, Any]:
        return self._chunk({"role": "assistant", "content": ""})

    def content(self, tokens: Sequence[Token]) -> dict[str, Any]:
        logprobs = logprobs_object(tokens) if self._logprobs else None
        return self._chunk({"content": "".join(token.text for token in tokens)}, logprobs)

    def finish(self, reason: FinishReason | None) -> dict[str, Any]:
        return self._chunk({}, finish_reason=(reason or FinishReason.STOP).value)

    def usage(self, usage: Usage | None) -> dict[str, Any]:
        return {**self._head, "choices": [], "usage": usage_object(usage)}

    def _chunk(
        self, delta: dict[str, Any], logprobs: dict[str, Any] | None = None, finish_reason: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        chunk = {**self._head, "choices": [choice]}
        return {**chunk, "usage": None} if self._include_usage else chunk
