"""What a prompt is made of before it is token ids: text, special tokens, places of pictures, tool marks, turns."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Text:
    """Text to be tokenised as plain text."""

    text: str


@dataclass(frozen=True, slots=True)
class Special:
    """One special token, by name."""

    token: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A tool mark of the model's family: the added token of that name, plain text where a checkpoint has none."""

    token: str


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of the request's next image or frame."""


Piece = Text | Special | Mark | Slot


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of ChatML: `head` is the role, with a name where it has one."""

    head: tuple[Piece, ...]
    body: tuple[Piece, ...]


def joined(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Neighbouring texts as one, so that they are tokenised as one."""
    text = ""
    for piece in pieces:
        if isinstance(piece, Text):
            text += piece.text
            continue
        if text:
            yield Text(text)
            text = ""
        yield piece
    if text:
        yield Text(text)
