"""InternVL's prompt (template `internvl2_5`, ChatML): from messages to token ids with virtual ids for the tiles.

`<image>` in a user's text is, by InternVL's convention, the place of the next image of that message, and `<video>`,
in a message that has videos, the place of the next video; every other special token in anybody's text is plain text.
Knows no pixels: it is told how many tiles each image and frame has.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from jobs.request import ImagePart, Message, Role, TextPart, VideoPart
from jobs.tools import ToolFormat, ToolUse
from worker.errors import RequestRefused
from worker.prompt_pieces import Mark, Piece, Slot, Special, Text, Turn, joined
from worker.tokenizer import ChatTokenizer
from worker.tool_prompt import declaring, responses, with_calls

PLACEHOLDER = "<image>"
VIDEO_PLACEHOLDER = "<video>"
DEFAULT_SYSTEM = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)
STOP_TOKENS = ("<|im_end|>", "<|endoftext|>")
_START, _END, _IMAGE_START, _IMAGE_END = "<|im_start|>", "<|im_end|>", "<img>", "</img>"
SPECIAL_TOKENS = (_START, _END, _IMAGE_START, _IMAGE_END)
"""What a checkpoint's tokenizer must have."""


MediaPart = ImagePart | VideoPart


@dataclass(frozen=True, slots=True)
class Prompt:
    """`image_tokens` counts the virtual ids among `ids`."""

    ids: list[int]
    image_tokens: int


def media_of(messages: Sequence[Message]) -> list[MediaPart]:
    """All images and videos in the order of their places. Raises RequestRefused when some stand where none may be, or
    when placeholders and media of a message differ in number."""
    for message in messages:
        kind = next((_kind(part) for part in message.parts if not isinstance(part, TextPart)), None)
        if message.role is not Role.USER and kind is not None:
            raise RequestRefused(
                "invalid_prompt", f"a {message.role.value} message has {kind}; only user messages may", "messages"
            )
    return [place for message in messages for place in _layout(message, 0) if not isinstance(place, str)]


def pieces_of(
    messages: Sequence[Message],
    frames: Sequence[int] = (),
    system: str = DEFAULT_SYSTEM,
    tools: ToolUse | None = None,
) -> list[Piece]:
    """The whole conversation up to the assistant's turn. `frames` has one count per video, in the order of
    `media_of`. Raises RequestRefused when placeholders and media of a message differ in number."""
    turns: list[Turn] = []
    if not messages or messages[0].role is not Role.SYSTEM:
        turns.append(Turn((Text("system"),), (Text(system),)))
    images = 0
    counts = iter(frames)
    bodies: list[tuple[Piece, ...]] = []
    for message in messages:
        bodies.append(tuple(piece for place in _layout(message, images) for piece in _pieces(place, counts)))
        images += sum(isinstance(part, ImagePart) for part in message.parts)
    # A conversation with tools names its format; one without has no tools' messages.
    format = ToolFormat.QWEN if tools is None else tools.format
    for of_tools, run in groupby(zip(messages, bodies, strict=True), lambda pair: pair[0].role is Role.TOOL):
        if of_tools:
            turns += responses([body for _, body in run], format)
            continue
        for message, body in run:
            turns.append(Turn((Text(message.role.value),), with_calls(body, message.calls, format)))
    if tools is not None:
        turns = declaring(turns, tools)
    pieces: list[Piece] = []
    for turn in turns:
        pieces += [Special(_START), *turn.head, Text("\n"), *turn.body, Special(_END), Text("\n")]
    return [*pieces, Special(_START), Text("assistant\n")]


def _layout(message: Message, before: int) -> list[str | MediaPart]:
    """A message's text with its media in their places. Media without placeholders stand in front of the text, in the
    order of the parts; `before` images stand in earlier messages: numbering goes on."""
    text = "\n".join(part.text for part in message.parts if isinstance(part, TextPart))
    images = [part for part in message.parts if isinstance(part, ImagePart)]
    videos = [part for part in message.parts if isinstance(part, VideoPart)]
    if message.role is not Role.USER:
        return [text]
    places: dict[str, list[MediaPart]] = {}
    if _counted(text, PLACEHOLDER, len(images), "image(s)"):
        places[PLACEHOLDER] = [*images]
    if videos and _counted(text, VIDEO_PLACEHOLDER, len(videos), "video(s)"):
        places[VIDEO_PLACEHOLDER] = [*videos]
    layout: list[str | MediaPart] = []
    for part in message.parts:
        placeholder = PLACEHOLDER if isinstance(part, ImagePart) else VIDEO_PLACEHOLDER
        if isinstance(part, TextPart) or placeholder in places:
            continue
        if isinstance(part, ImagePart) and len(images) > 1:
            before += 1
            layout.append(f"Image-{before}: ")
        layout += [part, "\n"]
    if not places:
        return [*layout, text]
    for word in re.split(f"({'|'.join(places)})", text):
        layout.append(places[word].pop(0) if word in places else word)
    return layout


def _counted(text: str, placeholder: str, media: int, name: str) -> bool:
    """Whether the text says where the media stand."""
    found = text.count(placeholder)
    if found not in (0, media):
        raise RequestRefused(
            "invalid_prompt",
            f"a user message has {found} {placeholder} placeholder(s) in its text and {media} {name}",
            "messages",
        )
    return found > 0


def _pieces(place: str | MediaPart, frames: Iterator[int]) -> list[Piece]:
    """A video is its frames, each in a numbered line."""
    match place:
        case str():
            return [Text(place)]
        case ImagePart():
            return [Slot()]
        case VideoPart():
            return [piece for k in range(next(frames)) for piece in _frame(k)]


def _frame(k: int) -> tuple[Piece, Piece]:
    return Text(f"\nFrame{k + 1}: " if k else "Frame1: "), Slot()


def _kind(part: MediaPart) -> str:
    return "an image" if isinstance(part, ImagePart) else "a video"


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
        self._special = {name: tokenizer.id_of(name) for name in SPECIAL_TOKENS}

    def build(
        self,
        messages: Sequence[Message],
        tiles: Sequence[int],
        frames: Sequence[int] = (),
        tools: ToolUse | None = None,
    ) -> Prompt:
        """As `lay_out`. Raises RequestRefused: `context_length_exceeded` when no room for an answer is left."""
        prompt = self.lay_out(messages, tiles, frames, tools)
        self._check_length(len(prompt.ids), prompt.image_tokens)
        return prompt

    def lay_out(
        self,
        messages: Sequence[Message],
        tiles: Sequence[int],
        frames: Sequence[int] = (),
        tools: ToolUse | None = None,
    ) -> Prompt:
        """`tiles` has one count per image and per frame, `frames` one per video, both in the order of `media_of`.
        However long it gets. Raises RequestRefused when placeholders and media differ in number."""
        ids = list(self._tokenizer.start_ids)
        virtual = self._vocab_size
        counts = iter(tiles)
        for piece in joined([self._resolved(piece) for piece in pieces_of(messages, frames, self._system, tools)]):
            match piece:
                case Text(text):
                    ids += self._tokenizer.encode(text)
                case Special(token):
                    ids.append(self._special[token])
                case Mark(token):
                    ids += self._tokenizer.ids_of([token])
                case Slot():
                    end = virtual + next(counts) * self._tokens_per_tile
                    ids += [self._special[_IMAGE_START], *range(virtual, end), self._special[_IMAGE_END]]
                    virtual = end
        return Prompt(ids, virtual - self._vocab_size)

    def _resolved(self, piece: Piece) -> Piece:
        """A mark without a token of its own is text like its neighbours."""
        if isinstance(piece, Mark) and not self.has_token(piece.token):
            return Text(piece.token)
        return piece

    def has_token(self, name: str) -> bool:
        """Whether the checkpoint has this as a token of its own."""
        return bool(self._tokenizer.ids_of([name]))

    def count_text(self, text: str) -> int:
        """How many tokens plain text has by itself."""
        return len(self._tokenizer.encode(text))

    @property
    def context_length(self) -> int:
        return self._context_length

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
