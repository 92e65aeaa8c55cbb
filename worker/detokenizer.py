"""From token ids to text, one at a time: never half a character, and all pieces joined are the whole decode.

Two ways, by the tokenizer's own decoder: byte-level BPE maps each token to bytes; any other kind is decoded in a
sliding window. Special tokens emit nothing, but for those that an answer shall keep. Knows nothing of stop strings.
"""

import codecs
import json
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from worker.tokenizer import ChatTokenizer

REPLACEMENT = "\ufffd"
# Tokens that may wait for one character to be whole; it has four bytes at most.
_LONGEST_WAIT = 8


class Detokenizer(Protocol):
    """State of one answer."""

    def push(self, token_id: int) -> str:
        """The text that has become certain with this token."""
        ...

    def flush(self) -> str:
        """What was held back, at the answer's end: an unfinished character becomes U+FFFD."""
        ...


class ByteTable:
    """Bytes of every token of a byte-level tokenizer; empty for special tokens and unknown ids."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        alphabet = {char: byte for byte, char in enumerate(_alphabet())}
        special = {token["id"] for token in tokenizer.definition["added_tokens"] if token["special"]}
        vocabulary = tokenizer.whole.get_vocab(with_added_tokens=True)
        self._bytes = [b""] * (max(vocabulary.values()) + 1)
        for token, token_id in vocabulary.items():
            if token_id not in special:
                self._bytes[token_id] = _bytes_of(token, alphabet)

    def __getitem__(self, token_id: int) -> bytes:
        return self._bytes[token_id] if token_id < len(self._bytes) else b""


class ByteDetokenizer:
    """For byte-level BPE (GPT-2's alphabet: Qwen2.5)."""

    def __init__(self, table: ByteTable) -> None:
        self._table = table
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        return self._decoder.decode(self._table[token_id])

    def flush(self) -> str:
        return self._decoder.decode(b"", final=True)


class ByteFallback:
    """Tokens that spell single bytes (`<0x0A>`) and those without text, of a tokenizer that is not byte-level."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self.special = frozenset(token["id"] for token in tokenizer.definition["added_tokens"] if token["special"])
        spelling = '"ByteFallback"' in json.dumps(tokenizer.definition["decoder"])
        self.bytes: dict[int, bytes] = {}
        for byte in range(256) if spelling else ():
            token_id = tokenizer.whole.token_to_id(f"<0x{byte:02X}>")
            if token_id is not None:
                self.bytes[token_id] = bytes([byte])


class WindowDetokenizer:
    """For every other decoder (SentencePiece-like, with byte fallback: InternLM). Decodes a window of recent tokens
    twice, with and without the new one, because such decoders look at neighbours. Where bytes make no character, the
    whole decode gives up the characters beside them too; here they are out already and stay, and a long run of such
    bytes is read byte by byte, so that a window never grows beyond `_LONGEST_WAIT` tokens."""

    def __init__(self, tokenizer: ChatTokenizer, fallback: ByteFallback) -> None:
        self._decode = tokenizer.whole.decode
        self._fallback = fallback
        self._ids: list[int] = []
        self._start = 0
        self._done = 0
        self._run: codecs.IncrementalDecoder | None = None

    def push(self, token_id: int) -> str:
        if token_id in self._fallback.special:
            return ""
        text = ""
        if self._run is not None:
            if token_id in self._fallback.bytes:
                self._ids[-1] = token_id
                return self._run.decode(self._fallback.bytes[token_id])
            text = self._end_run(self._run)
        self._ids.append(token_id)
        return text + self._newly_certain()

    def flush(self) -> str:
        if self._run is not None:
            return self._end_run(self._run)
        before, after = self._windows()
        self._advance()
        return after[len(before) :]

    def _newly_certain(self) -> str:
        before, after = self._windows()
        waits = after.endswith(REPLACEMENT) or len(after) <= len(before)
        if waits and len(self._ids) - self._done < _LONGEST_WAIT:
            return ""
        tail = self._bytes_at_the_end() if waits else b""
        if tail:
            after = self._decode(self._ids[self._start : len(self._ids) - len(tail)], skip_special_tokens=True)
            self._run = codecs.getincrementaldecoder("utf-8")(errors="replace")
            return after[len(before) :] + self._run.decode(tail)
        self._advance()
        return after[len(before) :]

    def _bytes_at_the_end(self) -> bytes:
        tail = b""
        for token_id in reversed(self._ids[self._done :]):
            if token_id not in self._fallback.bytes:
                break
            tail = self._fallback.bytes[token_id] + tail
        return tail

    def _end_run(self, run: codecs.IncrementalDecoder) -> str:
        """The run's last byte stays as the neighbour of what follows."""
        self._run = None
        self._start, self._done = len(self._ids) - 1, len(self._ids)
        return run.decode(b"", final=True)

    def _advance(self) -> None:
        self._start, self._done = self._done, len(self._ids)

    def _windows(self) -> tuple[str, str]:
        before = self._decode(self._ids[self._start : self._done], skip_special_tokens=True)
        after = self._decode(self._ids[self._start :], skip_special_tokens=True)
        return before, after


class KeepingDetokenizer:
    """Shows some special tokens by their names, whole and in their place among the text."""

    def __init__(self, inner: Detokenizer, kept: Mapping[int, str]) -> None:
        self._inner = inner
        self._kept = kept

    def push(self, token_id: int) -> str:
        name = self._kept.get(token_id)
        return self._inner.push(token_id) if name is None else self._inner.flush() + name

    def flush(self) -> str:
        return self._inner.flush()


class Detokenizers:
    """Makes the detokenizer of each answer; the table is made once."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        self._table = ByteTable(tokenizer) if _is_byte_level(tokenizer.definition["decoder"]) else None
        self._fallback = ByteFallback(tokenizer)

    def new(self, keep: Iterable[str] = ()) -> Detokenizer:
        """`keep`: names of special tokens that this answer shows; those that the checkpoint has not are text anyway."""
        kept = {id_: name for name in keep for id_ in self._tokenizer.ids_of([name]) if id_ in self._fallback.special}
        inner = self._inner()
        return KeepingDetokenizer(inner, kept) if kept else inner

    def _inner(self) -> Detokenizer:
        if self._table is not None:
            return ByteDetokenizer(self._table)
        return WindowDetokenizer(self._tokenizer, self._fallback)

    def piece(self, token_id: int) -> str:
        """The text of one token by itself, for the tables of likely tokens."""
        if self._table is not None:
            return self._table[token_id].decode(errors="replace")
        return str(self._tokenizer.whole.decode([token_id], skip_special_tokens=True))


def _is_byte_level(decoder: dict[str, Any] | None) -> bool:
    return decoder is not None and decoder["type"] == "ByteLevel"


def _bytes_of(token: str, alphabet: dict[str, int]) -> bytes:
    if all(char in alphabet for char in token):
        return bytes(alphabet[char] for char in token)
    return token.encode()


def _alphabet() -> list[str]:
    """GPT-2's printable stand-ins, by byte: printable Latin-1 stands for itself, the rest for U+0100 and up."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
