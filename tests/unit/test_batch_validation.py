"""The check of a batch's file: every line looked at, hardly any memory, hardly any time."""

import io
import json
import tracemalloc
from typing import Any

import pytest

from api.batching.lines import Faulty, raw_lines, read_line
from api.batching.validation import MOST_FAULTS, Found, Limits, Validation
from jobs.batches import Endpoint

pytestmark = pytest.mark.unit

CHAT = Endpoint.CHAT_COMPLETIONS


def line(custom_id: str, model: str = "tiny", text: str = "Hi") -> bytes:
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}]}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}).encode() + b"\n"


class Lines(io.RawIOBase):
    """A file of many lines that is never in memory as a whole."""

    def __init__(self, count: int, text: str) -> None:
        self._count = count
        before, self._after = line("#", text=text).split(b"#")
        self._before = before
        self._next = 0
        self._rest = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return offset

    def readinto(self, buffer: Any, /) -> int:
        if not self._rest and self._next < self._count:
            self._rest = b"%b%d%b" % (self._before, self._next, self._after)
            self._next += 1
        into = memoryview(buffer)
        some, self._rest = self._rest[: len(into)], self._rest[len(into) :]
        into[: len(some)] = some
        return len(some)


def found(*lines: bytes, max_lines: int = 100, max_line_bytes: int = 10_000) -> Found:
    validation = Validation(CHAT, {"tiny", "other"}, Limits(max_lines, max_line_bytes))
    return validation.run(io.BytesIO(b"".join(lines)))


def test_fifty_thousand_lines_are_checked_each() -> None:
    validation = Validation(CHAT, {"tiny"}, Limits(50_000, 10_000))
    right = validation.run(io.BufferedReader(Lines(50_000, "Hi")))
    assert (right.lines, right.model, right.faults) == (50_000, "tiny", ())


def test_a_file_is_checked_in_far_less_memory_than_it_has_bytes() -> None:
    validation = Validation(CHAT, {"tiny"}, Limits(50_000, 2**20))
    tracemalloc.start()
    try:
        right = validation.run(io.BufferedReader(Lines(200, "x" * 2**18)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (right.lines, right.faults) == (200, ())
    assert peak < 16 * 2**20


def test_one_line_too_many_is_named() -> None:
    fault = found(*(line(str(number)) for number in range(5)), max_lines=4).faults[0]
    assert (fault.code, fault.line) == ("too_many_requests", 5)


def test_line_that_is_too_long_ends_the_reading() -> None:
    wrong = found(line("a"), line("b", text="x" * 20_000), b"nonsense\n")
    assert [(fault.code, fault.line) for fault in wrong.faults] == [("line_too_long", 2)]


def test_another_model_than_that_of_the_first_line_is_named() -> None:
    fault = found(line("a"), b"\n", line("b", model="other")).faults[0]
    assert (fault.code, fault.line, fault.param) == ("mismatched_model", 3, "body.model")


def test_no_more_than_a_hundred_faults_are_told() -> None:
    assert len(found(*[b"nonsense\n"] * 150, max_lines=1000).faults) == MOST_FAULTS == 100


@pytest.mark.parametrize(
    "wrong",
    [b"\xff\n", b'{"custom_id": "\xff"}\n', b"[" * 100_000, b'{"a":' * 5000, b"null\n", b'"x"\n', b"{} {}\n"],
)
def test_line_that_is_no_json_object_is_named(wrong: bytes) -> None:
    (fault,) = found(wrong, max_line_bytes=200_000).faults
    assert (fault.code, fault.line) == ("invalid_json_line", 1)


def test_mark_of_the_byte_order_and_windows_line_ends_are_borne() -> None:
    right = found(b"\xef\xbb\xbf" + line("a").replace(b"\n", b"\r\n"), b"\r\n", line("b").rstrip())
    assert (right.lines, right.faults) == (2, ())


def test_lines_are_read_on_from_where_a_step_ended() -> None:
    file = io.BytesIO(line("a") + b"\n" + line("b") + line("c"))
    first, *_ = raw_lines(file, 1, 0, 10_000)
    rest = list(raw_lines(file, first.number + 1, first.end, 10_000))
    assert [(raw.number, read_line(raw, CHAT).custom_id) for raw in rest] == [(3, "b"), (4, "c")]
    assert rest[-1].end == len(file.getvalue())


def test_custom_id_that_is_no_text_is_refused() -> None:
    wrong = json.dumps({"custom_id": "x" * 513, "method": "POST", "url": CHAT, "body": {"model": "tiny"}})
    (raw,) = raw_lines(io.BytesIO(wrong.encode()), 1, 0, 10_000)
    with pytest.raises(Faulty, match="512"):
        read_line(raw, CHAT)
