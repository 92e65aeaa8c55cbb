"""InternVL's prompt (template `internvl2_5`, ChatML): from messages to token ids with virtual ids for the tiles.

`<image>` in a user's text is, by InternVL's convention, the place of the next image of that message; every other
special token in anybody's text is plain text. Knows no pixels: it is told how many tiles each image has.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jobs.request import ImagePart, Message, Role, TextPart
from worker.errors import RequestRefused
from worker.tokenizer import ChatTokenizer

PLACEHOLDER = "<image>"
DEFAULT_SYSTEM = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)
STOP_TOKENS = ("<|im_end|>", "<|endoftext|>")
_START, _END, _IMAGE_START, _IMAGE_END = "<|im_start|>", "<|im_end|>", "<img>", "</img>"


@dataclass(frozen=True, slots=True)
class Text:
    """Text to be tokenised as plain text."""

    text: str


@dataclass(frozen=True, slots=True)
class Special:
    """One special token, by name."""

    token: str


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of the request's next image."""


Piece = Text | Special | Slot


@dataclass(frozen=True, slots=True)
class Prompt:
    """`image_tokens` counts the virtual ids among `ids`."""

    ids: list[int]
    image_tokens: int


def images_of(messages: Sequence[Message]) -> list[ImagePart]:
    """All images in the order of their places. Raises RequestRefused when some stand where none may be."""
    for message in messages:
        if message.role is not Role.USER and any(isinstance(part, ImagePart) for part in message.parts):
            raise RequestRefused(
                "invalid_prompt", f"a {message.role.value} message has an image; only user messages may", "messages"
            )
    return [part for message in messages for part in message.parts if isinstance(part, ImagePart)]


def pieces_of(messages: Sequence[Message], system: str = DEFAULT_SYSTEM) -> list[Piece]:
    """The whole conversation up to the assistant's turn. Raises RequestRefused when placeholders and images of a
    message differ in number."""
    turns: list[tuple[str, list[Piece]]] = []
    if not messages or messages[0].role is not Role.SYSTEM:
        turns.append(("system", [Text(system)]))
    images = 0
    for message in messages:
        parts = [part for part in message.parts if isinstance(part, ImagePart)]
        text = "\n".join(part.text for part in message.parts if isinstance(part, TextPart))
        body: list[Piece] = _user(text, len(parts), images) if message.role is Role.USER else [Text(text)]
        turns.append((message.role.value, body))
        images += len(parts)
    pieces: list[Piece] = []
    for role, body in turns:
        pieces += [Special(_START), Text(f"{role}\n"), *body, Special(_END), Text("\n")]
    return [*pieces, Special(_START), Text("assistant\n")]


def _user(text: str, images: int, before: int) -> list[Piece]:
    """A user's text with a slot at each placeholder. `before` images stand in earlier messages: numbering goes on."""
    found = text.count(PLACEHOLDER)
    if found == 0:
        text = _placeholders(images, before) + text
    elif found != images:
        raise RequestRefused(
            "invalid_prompt",
            f"a user message has {found} {PLACEHOLDER} placeholder(s) in its text and {images} image(s)",
            "messages",
        )
    first, *others = text.split(PLACEHOLDER)
    pieces: list[Piece] = [Text(first)]
    for other in others:
        pieces += [Slot(), Text(other)]
    return pieces


def _placeholders(images: int, before: int) -> str:
    if images == 1:
        return f"{PLACEHOLDER}\n"
    return "".join(f"Image-{before + k + 1}: {PLACEHOLDER}\n" for k in range(images))


class PromptBuilder:
    """Thread-safe. `vocab_size` is the model's, from where virtual ids count."""

    def __init__(
        self,
        tokenizer: ChatTokenizer,
        vocab_size: int,
        tokens_per_tile: int,
        context_length: int,
        system: str = DEFAULT_SYSTEM,
    ) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._tokens_per_tile = tokens_per_tile
        self._context_length = context_length
        self._system = system
        self._special = {name: tokenizer.id_of(name) for name in (_START, _END, _IMAGE_START, _IMAGE_END)}

    def build(self, messages: Sequence[Message], tiles: Sequence[int]) -> Prompt:
        """`tiles` has one count per image, in order. Raises RequestRefused: `context_length_exceeded` when no room
        for an answer is left."""
        ids = list(self._tokenizer.start_ids)
        virtual = self._vocab_size
        counts = iter(tiles)
        for piece in _joined(pieces_of(messages, self._system)):
            match piece:
                case Text(text):
                    ids += self._tokenizer.encode(text)
                case Special(token):
                    ids.append(self._special[token])
                case Slot():
                    end = virtual + next(counts) * self._tokens_per_tile
                    ids += [self._special[_IMAGE_START], *range(virtual, end), self._special[_IMAGE_END]]
                    virtual = end
        image_tokens = virtual - self._vocab_size
        self._check_length(len(ids), image_tokens)
        return Prompt(ids, image_tokens)

    def room(self, prompt: Prompt, max_tokens: int | None) -> int:
        """How many tokens the answer may have: an upper bound that the context cuts."""
        room = self._context_length - len(prompt.ids)
        return room if max_tokens is None else min(room, max_tokens)

    def _check_length(self, length: int, image_tokens: int) -> None:
        if length >= self._context_length:
            raise RequestRefused(
                "context_length_exceeded",
                f"the prompt has {length} tokens, {image_tokens} of them from images; this model's context has "
                f"{self._context_length}, answer included",
                "messages",
            )


def _joined(pieces: Sequence[Piece]) -> Iterator[Piece]:
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
