"""The tokens that a checkpoint adds to its vocabulary, in order of their ids."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken


class ConversionError(Exception):
    """The tokenizer's files are absent, malformed, or of a kind that is not supported; the message names them."""


@dataclass(frozen=True, slots=True)
class Added:
    id: int
    token: AddedToken


def read_json(path: Path) -> dict[str, Any]:
    """Empty when there is no such file."""
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ConversionError(f"{path}: {exc}") from exc
    if not isinstance(value, dict):
        raise ConversionError(f"{path}: expected a JSON object")
    return value


def read_added(checkpoint: Path) -> list[Added]:
    """From `added_tokens_decoder` of `tokenizer_config.json`; older checkpoints have `added_tokens.json` alone, where
    `special_tokens_map.json` says which are special."""
    entries = read_json(checkpoint / "tokenizer_config.json").get("added_tokens_decoder")
    if isinstance(entries, dict) and entries:
        return sorted((_entry(number, entry) for number, entry in entries.items()), key=lambda each: each.id)
    numbers = read_json(checkpoint / "added_tokens.json")
    special = _texts(list(read_json(checkpoint / "special_tokens_map.json").values()))
    found = [Added(id, AddedToken(text, special=text in special, normalized=False)) for text, id in numbers.items()]
    return sorted(found, key=lambda each: each.id)


def _entry(number: str, entry: dict[str, Any]) -> Added:
    flags = {
        name: bool(entry.get(name, False)) for name in ("lstrip", "rstrip", "single_word", "normalized", "special")
    }
    return Added(int(number), AddedToken(entry["content"], **flags))


def _texts(values: list[Any]) -> set[str]:
    """All texts of the map: strings, objects with `content`, and lists of both."""
    found: set[str] = set()
    for value in values:
        if isinstance(value, list):
            found |= _texts(value)
        else:
            found.add(str(value["content"] if isinstance(value, dict) else value))
    return found
