"""What a job asks for: messages, sampling, limits. Media stands as references, never as bytes.

The API builds a ChatRequest from a validated body, the store keeps it as JSON, the worker reads it: perhaps an older or
a newer version of this file. What is not known there is refused, never ignored; so what a request leaves at its default
is not written, and a new key troubles only the older workers of who uses it. A default never changes its meaning.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

import msgspec

from jobs.tools import ToolCall, ToolMode, ToolUse


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class TextPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="text"):
    text: str


class ImagePart(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag="image"):
    """`source` is `blob:<sha256 hex>` (bytes in the blob store) or an http(s):// or file:// URL."""

    source: str
    detail: Literal["auto", "low", "high"] = "auto"


class VideoPart(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag="video"):
    """`source` as an image's. The model sees `num_segments` frames (None: the worker's default) from between `start`
    and `end`, in seconds of the video (None: its own bounds)."""

    source: str
    num_segments: int | None = None
    start: float | None = None
    end: float | None = None


Part = TextPart | ImagePart | VideoPart


class Message(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`calls` are what an assistant's message called, after its text; `call_id` names the call that a tool's message
    answers."""

    role: Role
    parts: tuple[Part, ...]
    calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Temperature 0 is greedy; `top_k` 0 and `min_p` 0 are off. The API always fixes a seed, so that another
    attempt draws the same tokens. Keys of `logit_bias` are token ids."""

    seed: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = msgspec.field(default_factory=dict)


class JsonFormat(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The answer must be JSON: an object, or what `schema`, the text of a JSON schema, describes."""

    schema: str | None = None


class ChatRequest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`max_tokens` None: as many as the context leaves. `logprobs` None: off; n: the n likeliest beside the
    chosen token's own. Neither the model's end tokens nor stop strings end the answer before `min_tokens`;
    `ignore_eos`: the model's end tokens never do. `json_format` None: text. `n`: how many choices. `tools` None: the
    conversation has neither tools nor calls."""

    messages: tuple[Message, ...]
    sampling: Sampling
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    json_format: JsonFormat | None = None
    n: int = 1
    tools: ToolUse | None = None

    @property
    def guarded(self) -> bool:
        """Whether a grammar keeps the calls of the answer: then what begins as a call is one."""
        use = self.tools
        if use is None or not use.callable:
            return False
        return use.mode is ToolMode.REQUIRED or self.json_format is not None or use.bound

    @property
    def wakes(self) -> bool:
        """Whether it is `guarded` by a grammar that leaves text free and begins where a call does."""
        return self.guarded and self.json_format is None and self.tools is not None and self.tools.mode is ToolMode.AUTO

    def blobs(self) -> frozenset[str]:
        """Digests of the blobs that the request refers to."""
        return blobs_of(self.messages)


NOTHING = ChatRequest(messages=(), sampling=Sampling(seed=0))
"""Stands in the place of a request that is not kept, or that cannot be read."""


def blobs_of(messages: Iterable[Message]) -> frozenset[str]:
    """Digests of the blobs that the messages refer to."""
    return frozenset(
        part.source.removeprefix("blob:")
        for message in messages
        for part in message.parts
        if isinstance(part, ImagePart | VideoPart) and part.source.startswith("blob:")
    )
