"""Reads an answer's text as it comes: which of it is said, and which are calls (docs/adr/0014).

A pure function of the answer: given the texts of the tokens one by one it returns the same pieces for every reader and
every replay; cut otherwise, the same once neighbouring deltas are joined.
"""

import re
from collections.abc import Callable, Collection

import msgspec

from api.object_scan import ObjectScan, Scan
from api.tool_calls import CallArguments, CallEnded, CallStarted, Piece, Said, TextDelta, call_id, joined
from jobs.job import Job
from jobs.tools import ToolUse


def parser_of(job: Job, choice: int = 0) -> "ToolParser":
    """For the choice's token texts from the first on; without callable tools in the request everything is text."""
    request = job.request
    return ToolParser(request.tools, lambda index: call_id(job.id, choice, index), request.guarded)


def said(job: Job, choice: int = 0) -> Said:
    """What the row has of the choice; what a stream would still hold back is said."""
    parser = parser_of(job, choice)
    return joined([*parser.push(job.text_of(choice)), *parser.flush()])


class ToolParser:
    """State of one choice. What may be the beginning of a mark is held back, as is white space that may turn out to
    stand beside one, where it belongs to the format. What stands behind a mark and is no call of a callable function
    stays text, so a call is held back until it is whole; but where a grammar guards it (`ChatRequest.guarded`) it
    comes as it is written, for there it cannot turn out to be none."""

    def __init__(self, use: ToolUse | None, id_of: Callable[[int], str], guarded: bool = False) -> None:
        self._names = frozenset(tool.name for tool in use.callable) if use is not None else frozenset[str]()
        self._opening, self._closing = (use.format.marks.opening, use.format.marks.closing) if use else ("", "")
        self._guarded = guarded
        self._id_of = id_of
        self._calls = 0
        self._rest = ""
        self._behind_call = False
        self._call: _Call | None = None

    def push(self, text: str) -> list[Piece]:
        """What has become certain by this text."""
        if not self._names:
            return [TextDelta(text)] if text else []
        self._rest += text
        pieces: list[Piece] = []
        while self._step(pieces):
            pass
        return pieces

    def flush(self) -> list[Piece]:
        """The rest, at the answer's end, where a whole call needs no closing mark."""
        pieces: list[Piece] = []
        call = self._call
        if call is not None and call.whole:
            self._end(call, pieces)
        elif call is not None:
            self._give_up(call, pieces)
        elif self._rest and not (self._behind_call and self._rest.isspace()):
            pieces.append(TextDelta(self._rest))
        self._rest = ""
        return pieces

    def _step(self, pieces: list[Piece]) -> bool:
        """Whether there is more to do with what has come."""
        call = self._call
        if call is None:
            return self._text(pieces)
        return self._mark(call, pieces) if call.whole else self._object(call, pieces)

    def _text(self, pieces: list[Piece]) -> bool:
        at = self._rest.find(self._opening)
        end = at if at >= 0 else len(self._rest) - _overlap(self._rest, self._opening)
        text = self._rest[:end].rstrip()
        if text:
            pieces.append(TextDelta(text))
            self._behind_call = False
        if at >= 0:
            self._call = _Call(self._rest[len(text) : at] + self._opening, self._names)
            self._rest = self._rest[at + len(self._opening) :]
        else:
            self._rest = self._rest[len(text) :]
        return at >= 0

    def _object(self, call: "_Call", pieces: list[Piece]) -> bool:
        taken, found = call.take(self._rest, self._guarded)
        self._rest = self._rest[taken:]
        if call.name and call.index is None:
            self._start(call, pieces)
        self._argue(call, pieces)
        if found is Scan.GOES_ON:
            return False
        if found is Scan.BROKEN or not call.close():
            self._give_up(call, pieces)
        return True

    def _mark(self, call: "_Call", pieces: list[Piece]) -> bool:
        """Only white space may stand before the closing mark."""
        mark = self._rest.lstrip()
        if mark.startswith(self._closing):
            self._rest = mark.removeprefix(self._closing)
            self._end(call, pieces)
            return True
        if self._closing.startswith(mark):
            return False
        self._give_up(call, pieces)
        return True

    def _start(self, call: "_Call", pieces: list[Piece]) -> None:
        call.index = self._calls
        self._calls += 1
        pieces.append(CallStarted(call.index, self._id_of(call.index), call.name))

    def _argue(self, call: "_Call", pieces: list[Piece]) -> None:
        if call.index is not None and call.arguments:
            pieces.append(CallArguments(call.index, call.arguments))
            call.arguments = ""

    def _end(self, call: "_Call", pieces: list[Piece]) -> None:
        if call.index is None:
            self._start(call, pieces)
        self._argue(call, pieces)
        pieces.append(CallEnded(self._calls - 1))
        self._call, self._behind_call = None, True

    def _give_up(self, call: "_Call", pieces: list[Piece]) -> None:
        """It is no call, or never becomes a whole one."""
        self._argue(call, pieces)
        if call.index is None:
            pieces.append(TextDelta(call.raw))
        self._call, self._behind_call = None, False


class _Call:
    """What may become one. `raw` is everything since the white space before its mark; `arguments` what is not shown
    yet."""

    def __init__(self, lead: str, names: Collection[str]) -> None:
        self.raw = lead
        self._lead = len(lead)
        self._names = names
        self._scan = ObjectScan()
        self._arguing = False
        self.index: int | None = None
        self.name = ""
        self.arguments = ""
        self.whole = False

    def take(self, text: str, guarded: bool) -> tuple[int, Scan]:
        """How much of the text is the object's, and whether it goes on. `name` is set with the first letter of the
        arguments of a guarded call."""
        found, taken, first = Scan.GOES_ON, 0, 0
        for letter in text:
            found = self._scan.take(letter)
            if found is Scan.BROKEN:
                break
            taken += 1
            if self._arguing and self._scan.depth == 1:
                self.arguments += text[first:taken]
                self._arguing = False
            elif guarded and letter == "{" and self._scan.depth == 2 and not self.name:
                self._arguing, first = self._begins(text[: taken - 1]), taken - 1
            if found is Scan.ENDED:
                break
        if self._arguing:
            self.arguments += text[first:taken]
        self.raw += text[:taken]
        return taken, found

    def _begins(self, text: str) -> bool:
        """Whether the arguments of a callable function come next."""
        head = _HEAD.fullmatch(self.raw[self._lead :] + text)
        if head is not None and head[1] in self._names:
            self.name = head[1]
        return self.name != ""

    def close(self) -> bool:
        """The object has ended: whether it is a call."""
        self.whole = self.index is not None
        if not self.whole and (written := _read(self.raw[self._lead :])) is not None and written[0] in self._names:
            self.whole = True
            self.name, self.arguments = written
        return self.whole


class _Written(msgspec.Struct):
    """A call as models write it: InternLM says `parameters`, Qwen `arguments`."""

    name: str
    arguments: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    parameters: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*"([^"\\]*)"\s*,\s*"(?:arguments|parameters)"\s*:\s*')
_written = msgspec.json.Decoder(_Written)


def _read(text: str) -> tuple[str, str] | None:
    """Name and arguments; None when the text is no call. A function without parameters may come without arguments."""
    try:
        written = _written.decode(text)
        given = written.arguments if written.parameters is msgspec.UNSET else written.parameters
        if given is msgspec.UNSET:
            return written.name, "{}"
        msgspec.json.decode(given, type=dict[str, object])
        return written.name, bytes(given).decode()
    except msgspec.MsgspecError:
        return None


def _overlap(text: str, mark: str) -> int:
    """The length of the longest end of `text` that begins `mark`."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:n])), 0)
