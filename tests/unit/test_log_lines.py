"""Words of other people in the log: each record stays one line, and nothing in it can look like another."""

import io
import logging

import pytest

from jobs.log_lines import LineFormatter

pytestmark = pytest.mark.unit

FORGED = "2026-01-01 00:00:00,000 CRITICAL api: all keys are revoked"
HOSTILE = [
    f"a\n{FORGED}",
    f"a\r\n{FORGED}",
    f"a\r{FORGED}",
    f"a\x0b\x0c\x85\u2028\u2029{FORGED}",
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b2J",
    "\x00\x08\x7f",
    "\u202egnirts\u2066",
]


@pytest.fixture
def log() -> tuple[logging.Logger, io.StringIO]:
    out = io.StringIO()
    logger = logging.Logger("test")
    handler = logging.StreamHandler(out)
    handler.setFormatter(LineFormatter("%(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    return logger, out


@pytest.mark.parametrize("text", HOSTILE)
def test_record_is_one_line_of_plain_characters(log: tuple[logging.Logger, io.StringIO], text: str) -> None:
    logger, out = log
    logger.warning("model %s is not served", text)
    logger.warning(text)
    lines = out.getvalue().split("\n")
    assert len(lines) == 3 and lines[2] == ""
    assert all(line.startswith("WARNING test: ") and line.isprintable() for line in lines[:2])


@pytest.mark.parametrize("text", HOSTILE)
def test_traceback_is_indented_whatever_its_error_says(log: tuple[logging.Logger, io.StringIO], text: str) -> None:
    logger, out = log
    try:
        raise ValueError(text)
    except ValueError:
        logger.exception("request failed")
    first, *rest = out.getvalue().rstrip("\n").split("\n")
    assert first == "ERROR test: request failed"
    assert rest[0] == "  Traceback (most recent call last):"
    assert all(line.startswith("  ") and line.isprintable() for line in rest)


def test_plain_words_of_every_language_stay_as_they_are(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, out = log
    logger.warning("häß %d × 漢字 «ok» \\n", 3)
    assert out.getvalue() == "WARNING test: häß 3 × 漢字 «ok» \\n\n"
