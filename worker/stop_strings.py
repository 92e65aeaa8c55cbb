"""Finds stop strings in a text that comes in pieces. Holds back only what may be the beginning of one."""

from collections.abc import Iterable


class StopStrings:
    """State of one answer. What is released depends on the text alone, not on how it was cut into pieces."""

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.hit: str | None = None

    def push(self, text: str) -> str:
        """The text that is certainly part of the answer. Once `hit` is set, everything from the stop string on is
        dropped."""
        if not self._stops:
            return text
        if self.hit is not None:
            return ""
        text = self._held + text
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            # The one that was complete first, as when the text comes letter by letter.
            _, at, self.hit = min(found)
            self._held = ""
            return text[:at]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, when the answer ends otherwise."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
