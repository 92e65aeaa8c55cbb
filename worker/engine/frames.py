"""Messages to bytes and back: a big-endian uint32 of the body's length, then the msgpack body.

Knows nothing of sockets: feed it what arrived, in pieces of any size.
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

from worker.engine.messages import FromEngine, ToEngine

MAX_BODY = 1 << 30
_HEADER = 4
_encoder = msgspec.msgpack.Encoder()

M = TypeVar("M")


class FrameError(Exception):
    """The other side sent what is not a message of this protocol; the connection is of no more use."""


def encode(message: ToEngine | FromEngine) -> bytes:
    """One frame. Raises FrameError when the body is longer than `MAX_BODY`."""
    body = _encoder.encode(message)
    if len(body) > MAX_BODY:
        raise FrameError(f"a message of {len(body)} bytes is longer than the limit of {MAX_BODY}")
    return len(body).to_bytes(_HEADER, "big") + body


class FrameDecoder(Generic[M]):
    """Collects bytes and yields whole messages; keeps the unfinished rest for the next call."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[M]) -> None:
        self._decoder = decoder
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[M]:
        """Yields each message that `data` completes. Raises FrameError on a wrong length or body."""
        self._buffer += data
        start = 0
        try:
            while (end := self._frame_end(start)) is not None:
                body = bytes(memoryview(self._buffer)[start + _HEADER : end])
                start = end
                yield self._decode(body)
        finally:
            del self._buffer[:start]

    def _frame_end(self, start: int) -> int | None:
        if len(self._buffer) < start + _HEADER:
            return None
        length = int.from_bytes(self._buffer[start : start + _HEADER], "big")
        if length > MAX_BODY:
            raise FrameError(f"a frame announces {length} bytes, the limit is {MAX_BODY}")
        end = start + _HEADER + length
        return end if len(self._buffer) >= end else None

    def _decode(self, body: bytes) -> M:
        try:
            return self._decoder.decode(body)
        except msgspec.MsgspecError as exc:
            raise FrameError(f"a frame of {len(body)} bytes holds no known message: {exc}") from exc


def to_engine_decoder() -> FrameDecoder[ToEngine]:
    """For the engine process."""
    return FrameDecoder(msgspec.msgpack.Decoder(ToEngine))


def from_engine_decoder() -> FrameDecoder[FromEngine]:
    """For the worker."""
    return FrameDecoder(msgspec.msgpack.Decoder(FromEngine))
