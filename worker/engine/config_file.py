"""A checkpoint's JSON file with typed access to its keys; errors name file, key and value. Knows no model."""

import json
import math
from pathlib import Path
from typing import Any, TypeVar

_Choice = TypeVar("_Choice")


class CheckpointError(Exception):
    """The checkpoint cannot be served: a file, key or tensor of it is absent, malformed or not supported."""


class Section:
    """An object inside a JSON file. A key that is absent or null takes the default; without one that is an error."""

    def __init__(self, file: Path, path: str, values: dict[str, Any]) -> None:
        self.file = file
        self._path = path
        self._values = values

    def has(self, key: str) -> bool:
        return self._values.get(key) is not None

    def error(self, key: str, problem: str) -> CheckpointError:
        shown = repr(self._values[key]) if key in self._values else "absent"
        return CheckpointError(f"{self.file}: {self._path}{key} is {shown}: {problem}")

    def section(self, key: str) -> "Section":
        value = self._get(key, None)
        if not isinstance(value, dict):
            raise self.error(key, "expected an object")
        return Section(self.file, f"{self._path}{key}.", value)

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(key, "expected an integer")
        return value

    def positive(self, key: str, default: int | None = None) -> int:
        value = self.integer(key, default)
        if value < 1:
            raise self.error(key, "expected an integer above 0")
        return value

    def side(self, key: str) -> int:
        """A positive integer, or a list of two equal ones."""
        value = self._get(key, None)
        if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.error(key, "expected an integer above 0 or two equal ones")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number above 0."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise self.error(key, "expected a number above 0")
        return float(value)

    def flag(self, key: str, default: bool | None = None) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "expected true or false")
        return value

    def strings(self, key: str) -> list[str]:
        """A list of strings, empty when absent."""
        value = self._get(key, [])
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self.error(key, "expected a list of strings")
        return value

    def choice(self, key: str, choices: tuple[_Choice, ...], default: _Choice | None = None) -> _Choice:
        value = self._get(key, default)
        for choice in choices:
            if value == choice and isinstance(value, bool) == isinstance(choice, bool):
                return choice
        raise self.error(key, "supported: " + ", ".join(map(repr, choices)))

    def _get(self, key: str, default: Any) -> Any:
        value = self._values.get(key)
        if value is None:
            value = default
        if value is None:
            raise self.error(key, "needed")
        return value


def read_json(path: Path) -> Section:
    """Raises CheckpointError when the file is absent, unreadable, or no JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise CheckpointError(f"{path}: no such file; a checkpoint folder is needed") from exc
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as exc:
        raise CheckpointError(f"{path}: {exc}") from exc
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return Section(path, "", value)
