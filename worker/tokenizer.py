"""The checkpoint's tokenizer as serving needs it: text never becomes a special token, special tokens go by name.

Reads `tokenizer.json` with the `tokenizers` library alone.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer


class TokenizerError(Exception):
    """The checkpoint's tokenizer is missing or lacks a token; the message names it."""


class ChatTokenizer:
    """Thread-safe. `plain` is the same tokenizer without its added tokens, so that `<|im_end|>`, `<img>` or
    `<tool_call>` in somebody's text are spelled out like any other text."""

    def __init__(self, definition: dict[str, Any]) -> None:
        self.definition = definition
        self.whole: Tokenizer = Tokenizer.from_str(json.dumps(definition))
        self._plain: Tokenizer = Tokenizer.from_str(json.dumps({**definition, "added_tokens": []}))
        self.start_ids: list[int] = list(self.whole.encode("", add_special_tokens=True).ids)

    @classmethod
    def load(cls, checkpoint: Path) -> "ChatTokenizer":
        """Raises TokenizerError."""
        file = checkpoint / "tokenizer.json"
        try:
            definition = json.loads(file.read_text(encoding="utf-8"))
        except OSError as exc:
            raise TokenizerError(f"{file}: {exc.strerror}; {_remedy(checkpoint)}") from exc
        except json.JSONDecodeError as exc:
            raise TokenizerError(f"{file}: {exc}") from exc
        return cls(definition)

    def encode(self, text: str) -> list[int]:
        """Plain text, whatever stands in it."""
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def id_of(self, token: str) -> int:
        """The id of a special token. Raises TokenizerError when the checkpoint has none of that name."""
        found = self.whole.token_to_id(token)
        if found is None:
            raise TokenizerError(f"the checkpoint's tokenizer has no token {token!r}")
        return int(found)

    def ids_of(self, tokens: Iterable[str]) -> list[int]:
        """The ids of those that exist."""
        return [int(found) for token in tokens if (found := self.whole.token_to_id(token)) is not None]


def _remedy(checkpoint: Path) -> str:
    if any((checkpoint / name).exists() for name in ("tokenizer.model", "vocab.json")):
        return f"write it once from the older files: python -m tools.tokenizer_json {checkpoint}"
    return "the checkpoint needs a tokenizer.json"
