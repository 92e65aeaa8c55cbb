"""A response's output items, and the events by which they grow: functions of the answer's tokens, one after the other.

Events come without their sequence numbers: whoever puts them into a stream counts them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from api.completion import logprobs_object
from api.tool_calls import CallArguments, CallEnded, CallStarted, Piece, TextDelta
from api.tool_parser import parser_of
from jobs.job import Job, JobState, Token

Shown = dict[str, Any]

ENDS: dict[JobState, str] = {JobState.COMPLETED: "completed"}
"""With which status an item is closed that is open when the job ends; in every other end it is incomplete."""


class Output:
    """State of one rendering. What the job was at its start is enough: tokens and its end are told."""

    def __init__(self, job: Job) -> None:
        self.items: list[Shown] = []
        """The items so far, in the order of their output indices; the open one is the last."""
        self._job_id = job.id
        self._parser = parser_of(job)
        self._plain = job.request.tools is None or not job.request.tools.callable
        self._held: list[Token] = []
        """Tokens whose text the parser has not given out as text."""
        self._open = False

    def token(self, token: Token) -> Iterator[Shown]:
        self._held.append(token)
        yield from self._grow(self._parser.push(token.text))
        if self._plain and not token.text and token.logprob is not None:
            yield from self._say("")

    def end(self, state: JobState) -> Iterator[Shown]:
        """Closes what is open. An answer of nothing is one empty message."""
        yield from self._grow(self._parser.flush())
        if self._open and self.items[-1]["type"] == "message" and logprob_entries(self._held):
            yield from self._say("")
        if not self.items and state in (JobState.COMPLETED, JobState.INCOMPLETE):
            yield from self._open_message()
        yield from self._close(ENDS.get(state, "incomplete"))

    def _grow(self, pieces: Sequence[Piece]) -> Iterator[Shown]:
        for piece in pieces:
            match piece:
                case TextDelta(text):
                    yield from self._say(text)
                case CallStarted(_, call_id, name):
                    yield from self._start_call(call_id, name)
                case CallArguments(_, delta):
                    self.items[-1]["arguments"] += delta
                    yield self._event("response.function_call_arguments.delta", delta=delta)
                case CallEnded():
                    yield from self._close("completed")

    def _say(self, text: str) -> Iterator[Shown]:
        if not self._open:
            yield from self._open_message()
        logprobs = logprob_entries(self._held)
        self._held = []
        part = self.items[-1]["content"][0]
        part["text"] += text
        part["logprobs"] += logprobs
        yield self._event("response.output_text.delta", content_index=0, delta=text, logprobs=logprobs)

    def _open_message(self) -> Iterator[Shown]:
        item = {"type": "message", "role": "assistant", "content": []}
        yield from self._add("msg", item)
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        self.items[-1]["content"].append(part)
        yield self._event("response.content_part.added", content_index=0, part={**part, "logprobs": []})

    def _start_call(self, call_id: str, name: str) -> Iterator[Shown]:
        yield from self._close("completed")
        yield from self._add("fc", {"type": "function_call", "call_id": call_id, "name": name, "arguments": ""})

    def _add(self, prefix: str, item: Shown) -> Iterator[Shown]:
        index = len(self.items)
        item = {"id": item_id(self._job_id, prefix, f"{index}"), **item, "status": "in_progress"}
        self.items.append(item)
        self._open = True
        added = {**item, "content": []} if "content" in item else dict(item)
        yield {"type": "response.output_item.added", "output_index": index, "item": added}

    def _close(self, status: str) -> Iterator[Shown]:
        if not self._open:
            return
        item = self.items[-1]
        if item["type"] == "message":
            (part,) = item["content"]
            done = {"text": part["text"], "logprobs": part["logprobs"]}
            yield self._event("response.output_text.done", content_index=0, **done)
            yield self._event("response.content_part.done", content_index=0, part=part)
        else:
            done = {"arguments": item["arguments"], "name": item["name"]}
            yield self._event("response.function_call_arguments.done", **done)
            self._held = []
        item["status"] = status
        self._open = False
        yield {"type": "response.output_item.done", "output_index": len(self.items) - 1, "item": item}

    def _event(self, kind: str, **values: Any) -> Shown:
        return {"type": kind, "item_id": self.items[-1]["id"], "output_index": len(self.items) - 1, **values}


def output_of(job: Job) -> list[Shown]:
    """The items of a row as it is: closed when the job has ended."""
    output = Output(job)
    for token in job.tokens:
        for _ in output.token(token):
            pass
    if job.state.terminal:
        for _ in output.end(job.state):
            pass
    return output.items


def item_id(job_id: str, prefix: str, place: str) -> str:
    """The same for every reader: a function of the job and the item's place in it."""
    return f"{prefix}_{job_id.removeprefix('resp_')}_{place}"


def logprob_entries(tokens: Sequence[Token]) -> list[Shown]:
    """As chat's, but that a token which is no text by itself has no bytes: OpenAI has no null here."""
    entries: list[Shown] = logprobs_object(tokens)["content"]
    for entry in entries:
        for top in entry["top_logprobs"]:
            top["bytes"] = top["bytes"] or []
    return entries
