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


def completion_object(job: Job) -> dict[str, Any]:
    """The answer of a job that is completed or incomplete."""
    return {
        "id": job.id,
        "object": "chat.completion",
        "created": int(job.timeline.queued_at.timestamp()),
        "model": job.model,
        "choices": [
            {
                "index": choice,
                "message": {"role": "assistant", "content": job.text_of(choice), "refusal": None},
                "logprobs": None if job.request.logprobs is None else logprobs_object(job.tokens_of(choice)),
                "finish_reason": reason,
            }
            for choice, reason in enumerate(finish_reasons(job))
        ],
        "usage": usage_object(job.usage),
        "service_tier": "default",
    }


class Chunks:
    """The chunks of one job's stream; all carry the same head."""

    def __init__(self, job: Job, include_usage: bool) -> None:
        self._choices = job.request.n
        self._logprobs = job.request.logprobs is not None
        self._include_usage = include_usage
        self._head: dict[str, Any] = {
            "id": job.id,
            "object": "chat.completion.chunk",
            "created": int(job.timeline.queued_at.timestamp()),
            "model": job.model,
            "service_tier": "default",
        }

    def roles(self) -> list[dict[str, Any]]:
        """What each choice begins with."""
        return [self._chunk(choice, {"role": "assistant", "content": ""}) for choice in range(self._choices)]

    def contents(self, tokens: Sequence[Token]) -> list[dict[str, Any]]:
        """One chunk for each choice that has something to show."""
        shown = [token for token in tokens if token.text or token.logprob is not None]
        own = ([token for token in shown if token.choice == choice] for choice in range(self._choices))
        return [self._content(choice, tokens) for choice, tokens in enumerate(own) if tokens]

    def finishes(self, job: Job) -> list[dict[str, Any]]:
        """What each choice ends with."""
        reasons = enumerate(finish_reasons(job))
        return [self._chunk(choice, {}, finish_reason=reason) for choice, reason in reasons]

    def _content(self, choice: int, tokens: Sequence[Token]) -> dict[str, Any]:
        logprobs = logprobs_object(tokens) if self._logprobs else None
        return self._chunk(choice, {"content": "".join(token.text for token in tokens)}, logprobs)

    def usage(self, usage: Usage | None) -> dict[str, Any]:
        return {**self._head, "choices": [], "usage": usage_object(usage)}

    def _chunk(
        self,
        choice: int,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        shown = {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        chunk = {**self._head, "choices": [shown]}
        return {**chunk, "usage": None} if self._include_usage else chunk
