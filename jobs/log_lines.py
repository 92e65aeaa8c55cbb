"""How every process writes its log: a line for each record, whatever words of other people stand in it."""

import logging
import re
from typing import Any

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_INDENT = "  "
# Control characters, those of terminals (C1), line ends of Unicode, and what turns the direction of writing.
_FORGING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class LineFormatter(logging.Formatter):
    """A record is one line in which nothing but letters and signs stand; other characters are shown as in Python. The
    lines of a traceback follow, indented: no text in them can look like a record."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return _plain(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        return _indented(super().formatStack(stack_info))


def configure(level: int = logging.INFO) -> None:
    """The log of this process, on standard error. Where there is one it is left alone but for its form."""
    logging.basicConfig(level=level, format=FORMAT)
    shape(logging.getLogger())


def shape(logger: logging.Logger, format: str = FORMAT) -> None:
    """Gives its handlers the form."""
    for handler in logger.handlers:
        handler.setFormatter(LineFormatter(format))


def _plain(text: str) -> str:
    return _FORGING.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def _indented(text: str) -> str:
    return "\n".join(_INDENT + _plain(line) for line in text.split("\n"))
