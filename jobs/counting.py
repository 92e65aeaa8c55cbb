"""How many tokens a request would have, asked of any live worker of its model over Redis (docs/adr/0007).

Not a job: nothing is recorded, and a question that nobody answers in time is forgotten. A question lies under a key of
its own that expires, its name waits in the model's list; the answer comes on a list that is named after the question.
"""

import logging
import time
from uuid import uuid4

import msgspec
import redis

from jobs.errors import StreamUnavailable
from jobs.request import ChatRequest

log = logging.getLogger(__name__)

_LOOK_S = 1.0


class CountText(msgspec.Struct, frozen=True, tag="text"):
    """Plain text by itself, outside any conversation."""

    text: str


class CountPrompt(msgspec.Struct, frozen=True, tag="prompt"):
    """The whole prompt of a chat request, its media included."""

    request: ChatRequest


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    """`image_tokens` are part of `prompt_tokens`; `room` is how many tokens an answer may have, 0 when none fits."""

    prompt_tokens: int
    image_tokens: int
    context_length: int
    room: int


class CountRefused(msgspec.Struct, frozen=True, tag="refused"):
    """A job of this request would fail so."""

    code: str
    message: str
    param: str | None = None


Question = CountText | CountPrompt
Answer = Counted | CountRefused

_questions: msgspec.msgpack.Decoder[Question] = msgspec.msgpack.Decoder(Question)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


class RedisCounting:
    """Both ends. Thread-safe. All raise StreamUnavailable when Redis does not answer."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._client = client
        self._prefix = prefix

    def ask(self, model: str, question: Question, timeout_s: float) -> Answer | None:
        """None when no worker answered within the time."""
        name = uuid4().hex
        until = time.monotonic() + timeout_s
        lives_ms = int(timeout_s * 1000)
        try:
            with self._client.pipeline() as pipeline:
                pipeline.set(self._question(name), msgspec.msgpack.encode(question), px=lives_ms)
                pipeline.rpush(self._waiting(model), name)
                pipeline.pexpire(self._waiting(model), lives_ms)
                pipeline.execute()
            while (left_s := until - time.monotonic()) > 0:
                found = self._client.blpop([self._answer(name)], min(left_s, _LOOK_S))
                if found:
                    return _answers.decode(_bytes(found[1]))
            self._client.delete(self._question(name))
        except redis.RedisError as exc:
            raise StreamUnavailable(f"Redis does not answer: {exc}") from exc
        return None

    def take(self, model: str) -> tuple[str, Question] | None:
        """The next question and its name, waited for a moment. Each goes to one worker. What is no question, or one of
        a later version, is dropped."""
        try:
            found = self._client.blpop([self._waiting(model)], _LOOK_S)
            if not found:
                return None
            name = _bytes(found[1]).decode()
            question = self._client.getdel(self._question(name))
            return None if question is None else (name, _questions.decode(_bytes(question)))
        except redis.RedisError as exc:
            raise StreamUnavailable(f"Redis does not answer: {exc}") from exc
        except (UnicodeDecodeError, msgspec.MsgspecError) as exc:
            log.warning("a question that is none was dropped: %.200s", exc, extra={"action": "no_question"})
            return None

    def answer(self, name: str, answer: Answer, lives_s: float = 10.0) -> None:
        try:
            with self._client.pipeline() as pipeline:
                pipeline.rpush(self._answer(name), msgspec.msgpack.encode(answer))
                pipeline.pexpire(self._answer(name), int(lives_s * 1000))
                pipeline.execute()
        except redis.RedisError as exc:
            raise StreamUnavailable(f"Redis does not answer: {exc}") from exc

    def _waiting(self, model: str) -> str:
        return f"{self._prefix}counts:{model}"

    def _question(self, name: str) -> str:
        return f"{self._prefix}count:{name}"

    def _answer(self, name: str) -> str:
        return f"{self._prefix}count:{name}:answer"


def _bytes(data: bytes | str) -> bytes:
    """What Redis gave: text where the client was told to decode."""
    return data if isinstance(data, bytes) else data.encode()
