"""Finds the end of a JSON object in a text that comes letter by letter. Checks brackets, strings, letters."""

from enum import Enum, auto

MAX_DEPTH = 64
_CLOSES = {"}": "{", "]": "["}
_OUTSIDE = frozenset(' \t\r\n,:0123456789+-.eEtrufalsn"{}[]')


class Scan(Enum):
    """GOES_ON: the letter was taken. ENDED: it closed the object. BROKEN: no JSON object goes on so."""

    GOES_ON = auto()
    ENDED = auto()
    BROKEN = auto()


class ObjectScan:
    """One object, white space before it allowed. `depth` is how many brackets are open."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._in_string = False
        self._escaped = False

    @property
    def depth(self) -> int:
        return len(self._open)

    def take(self, letter: str) -> Scan:
        """Not to be called again after ENDED or BROKEN."""
        if self._in_string:
            return self._inside(letter)
        if letter not in _OUTSIDE or not (self._open or letter == "{" or letter.isspace()):
            return Scan.BROKEN
        if letter == '"':
            self._in_string = True
        elif letter in "{[":
            self._open.append(letter)
            return Scan.GOES_ON if self.depth <= MAX_DEPTH else Scan.BROKEN
        elif letter in _CLOSES:
            if self._open.pop() != _CLOSES[letter]:
                return Scan.BROKEN
            return Scan.GOES_ON if self._open else Scan.ENDED
        return Scan.GOES_ON

    def _inside(self, letter: str) -> Scan:
        if letter < " ":
            return Scan.BROKEN
        if self._escaped:
            self._escaped = False
        elif letter == "\\":
            self._escaped = True
        elif letter == '"':
            self._in_string = False
        return Scan.GOES_ON
