"""What an answer says and what it calls, in pieces: values, and how they join. Knows no door's shapes."""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from jobs.tools import ToolCall


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text, never empty. Text may also follow a call."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStarted:
    """A call of a declared function. `index` counts the choice's calls from 0; `id` is a function of job, choice and
    index. Neither text nor another call comes before its end, unless it never ends."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of the JSON text of the arguments, as the model wrote it; never empty. All of them joined are the text of an
    object when the call has ended."""

    index: int
    delta: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    """The call is whole. One without it was cut by the answer's end: its arguments are a beginning."""

    index: int


Piece = TextDelta | CallStarted | CallArguments | CallEnded


@dataclass(frozen=True, slots=True)
class Said:
    """A choice, whole or so far. `text` is everything that is not in `calls`."""

    text: str
    calls: tuple[ToolCall, ...]


def call_id(job_id: str, choice: int, index: int) -> str:
    return "call_" + sha256(f"{job_id}:{choice}:{index}".encode()).hexdigest()[:24]


def joined(pieces: Iterable[Piece]) -> Said:
    text, calls = "", list[ToolCall]()
    for piece in pieces:
        match piece:
            case TextDelta(more):
                text += more
            case CallStarted(_, id_, name):
                calls.append(ToolCall(id_, name, ""))
            case CallArguments(_, delta):
                calls[-1] = msgspec.structs.replace(calls[-1], arguments=calls[-1].arguments + delta)
            case CallEnded():
                pass
    return Said(text, tuple(calls))
