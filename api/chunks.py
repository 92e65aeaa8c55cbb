"""A job's stream in OpenAI's chat completion chunks. Renders only."""

from collections.abc import Iterable, Sequence
from typing import Any

from api.completion import finish_reason_of, finish_reasons, logprobs_object, usage_object
from api.tool_calls import CallArguments, CallEnded, CallStarted, Piece, TextDelta
from api.tool_parser import parser_of
from jobs.job import Job, Token, Usage


class Chunks:
    """The chunks of one job's stream; all carry the same head. State of one reader: each choice's text is read as it
    comes. The log-probabilities of tokens stand in the first chunk that their text leads to, or in one of their own."""

    def __init__(self, job: Job, include_usage: bool) -> None:
        self._choices = job.request.n
        self._logprobs = job.request.logprobs is not None
        self._include_usage = include_usage
        self._parsers = [parser_of(job, choice) for choice in range(job.request.n)]
        self._called = [False] * job.request.n
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
        """The chunks of each choice that has something to show."""
        chunks: list[dict[str, Any]] = []
        for choice in range(self._choices):
            own = [t for t in tokens if t.choice == choice and (t.text or t.logprob is not None)]
            pieces = self._parsers[choice].push("".join(token.text for token in own))
            chunks += self._said(choice, pieces, logprobs_object(own) if own and self._logprobs else None)
        return chunks

    def finishes(self, job: Job) -> list[dict[str, Any]]:
        """What each choice ends with: what was held back, then the reason."""
        chunks: list[dict[str, Any]] = []
        for choice, reason in enumerate(finish_reasons(job)):
            chunks += self._said(choice, self._parsers[choice].flush(), None)
            shown = finish_reason_of(reason, self._called[choice])
            chunks.append(self._chunk(choice, {}, finish_reason=shown))
        return chunks

    def usage(self, usage: Usage | None) -> dict[str, Any]:
        return {**self._head, "choices": [], "usage": usage_object(usage)}

    def _said(self, choice: int, pieces: Iterable[Piece], logprobs: dict[str, Any] | None) -> list[dict[str, Any]]:
        deltas = [delta for piece in pieces if (delta := self._delta(choice, piece)) is not None]
        if logprobs is not None and not deltas:
            deltas = [{"content": ""}]
        return [self._chunk(choice, delta, None if n else logprobs) for n, delta in enumerate(deltas)]

    def _delta(self, choice: int, piece: Piece) -> dict[str, Any] | None:
        match piece:
            case TextDelta(text):
                return {"content": text}
            case CallStarted(index, id_, name):
                self._called[choice] = True
                function = {"name": name, "arguments": ""}
                return {"tool_calls": [{"index": index, "id": id_, "type": "function", "function": function}]}
            case CallArguments(index, delta):
                return {"tool_calls": [{"index": index, "function": {"arguments": delta}}]}
            case CallEnded():
                return None

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
