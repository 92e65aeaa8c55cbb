"""From a conversation to arrays: ids, tiles, which positions are trained on, and the side task's targets."""

from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tools.demo_model.conversation import Conversation, Shown
from tools.demo_model.drawing import draw
from tools.demo_model.geometry import DEMO
from tools.demo_model.lettering import glyphs_of
from tools.demo_model.palette import Colour, Shape
from tools.demo_model.prompt import IMAGE, SYSTEM, question_text
from tools.demo_model.scene import Scene
from tools.demo_model.tiling import Pixels, cut, frame_tile, grid_for
from tools.demo_model.tokenizer import IM_END, IM_START, IMG, IMG_CONTEXT, IMG_END

CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
THING_KINDS = len(Shape) * len(Colour) + 1
CHARACTERS_PER_CELL = 4
_SHAPES, _COLOURS = list(Shape), list(Colour)
OTHER_SYSTEMS = ("You are a helpful assistant.", "You are a careful assistant. Answer in one sentence.", "")


@dataclass(frozen=True, slots=True)
class Example:
    """`ids` [T] int32, visual tokens as `<IMG_CONTEXT>`; `tiles` [N, size, size, 3] uint8; `targets` [T] int32: the
    id to predict at that position, −1 where nothing is learned; `rounds` [T] int8: which round a target belongs to;
    `cell_characters` [N·tokens, 4] uint8 (0 none) and `cell_things` [N·tokens] uint8 (0 none) are what stands where."""

    ids: NDArray[np.int32]
    targets: NDArray[np.int32]
    rounds: NDArray[np.int8]
    tiles: Pixels
    cell_characters: NDArray[np.uint8]
    cell_things: NDArray[np.uint8]


class Encoder:
    """Holds the tokenizer and its special ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.start, self.end, self.image_start, self.image_end, self.context = (
            _id_of(tokenizer, token) for token in (IM_START, IM_END, IMG, IMG_END, IMG_CONTEXT)
        )

    def _text(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _user(self, text: str, tiles: list[int]) -> list[int]:
        """User text with each `<image>` replaced by its block; `tiles` are the pictures' tile counts."""
        ids: list[int] = []
        for index, piece in enumerate(text.split(IMAGE)):
            if index:
                count = tiles[index - 1] * DEMO.tokens_per_tile
                ids += [self.image_start, *[self.context] * count, self.image_end]
            ids += self._text(piece)
        return ids

    def _turn(self, role: str, body: list[int]) -> list[int]:
        return [self.start, *self._text(f"{role}\n"), *body, self.end, *self._text("\n")]

    def prompt(self, conversation: Conversation, tiles: list[int], system: str = SYSTEM) -> list[int]:
        """Up to where the first answer starts."""
        ids = self._turn("system", self._text(system)) if system else []
        ids += self._turn("user", self._user(question_text(conversation), tiles))
        return [*ids, self.start, *self._text("assistant\n")]

    def encode(self, conversation: Conversation, system: str = SYSTEM) -> Example:
        """Draws the pictures and lays the whole conversation out."""
        parts = [_picture(scene, conversation.shown) for scene in conversation.scenes]
        ids = self.prompt(conversation, [len(part[0]) for part in parts], system)
        targets, rounds = [-1] * len(ids), [0] * len(ids)
        for number, asked in enumerate(conversation.rounds):
            if number:
                turn = [*self._text("\n"), *self._turn("user", self._text(asked.question)), self.start]
                turn += self._text("assistant\n")
                ids, targets, rounds = ids + turn, targets + [-1] * len(turn), rounds + [number] * len(turn)
            answer = [*self._text(asked.answer), self.end]
            # The last prompt token predicts the answer's first; the end token itself predicts nothing.
            targets[-1:] = answer
            ids, targets, rounds = ids + answer, [*targets, -1], rounds + [number] * len(answer)
            rounds[-len(answer) - 1] = number
        return Example(
            np.array(ids, np.int32),
            np.array(targets, np.int32),
            np.array(rounds, np.int8),
            _joined([part[0] for part in parts], (0, DEMO.tile, DEMO.tile, 3)),
            _joined([part[1] for part in parts], (0, CHARACTERS_PER_CELL)),
            _joined([part[2] for part in parts], (0,)),
        )


def _id_of(tokenizer: Tokenizer, token: str) -> int:
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer has no token {token!r}")
    return found


def _joined(arrays: list[NDArray[np.uint8]], empty: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.concatenate(arrays) if arrays else np.zeros(empty, np.uint8)


def _picture(scene: Scene, shown: Shown) -> tuple[Pixels, NDArray[np.uint8], NDArray[np.uint8]]:
    picture = draw(scene)
    if shown is Shown.FRAMES:
        return frame_tile(picture), *_cells(scene, (1, 1))
    tiles = cut(picture)
    return tiles, *_cells(scene, grid_for(scene.width, scene.height))


def _cells(scene: Scene, grid: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Of all tiles, the thumbnail last."""
    characters, things = _cells_of(scene, *grid)
    if grid == (1, 1):
        return characters, things
    thumbnail = _cells_of(scene, 1, 1)
    return np.concatenate([characters, thumbnail[0]]), np.concatenate([things, thumbnail[1]])


def _cells_of(scene: Scene, columns: int, rows: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The side task on one canvas of `columns × rows` tiles, in the order of its visual tokens."""
    side = DEMO.cells
    characters = np.zeros((rows * side, columns * side, CHARACTERS_PER_CELL), np.uint8)
    if scene.lettering is not None:
        for glyph in glyphs_of(scene.lettering, scene.width, scene.height):
            slots = characters[int(glyph.y * rows * side), int(glyph.x * columns * side)]
            free = int((slots > 0).sum())
            if free < CHARACTERS_PER_CELL:
                slots[free] = CHARACTERS.index(glyph.character) + 1
    things = np.zeros((rows * side, columns * side), np.uint8)
    ys = ((np.arange(rows * side) + 0.5) / (rows * side) * scene.height)[:, None]
    xs = ((np.arange(columns * side) + 0.5) / (columns * side) * scene.width)[None]
    for thing in scene.things:
        radius = thing.diameter * scene.short_side / 2
        near = (xs - thing.x * scene.width) ** 2 + (ys - thing.y * scene.height) ** 2 <= (radius * 0.8) ** 2
        near[int(thing.y * rows * side), int(thing.x * columns * side)] = True
        things[near] = 1 + _SHAPES.index(thing.shape) * len(_COLOURS) + _COLOURS.index(thing.colour)
    return _by_tile(characters, columns, rows).reshape(-1, CHARACTERS_PER_CELL), _by_tile(
        things, columns, rows
    ).reshape(-1)


def _by_tile(cells: NDArray[np.uint8], columns: int, rows: int) -> NDArray[np.uint8]:
    side = DEMO.cells
    return cells.reshape(rows, side, columns, side, *cells.shape[2:]).swapaxes(1, 2)


def draw_system(rng: Random) -> str:
    return SYSTEM if rng.random() < 0.85 else rng.choice(OTHER_SYSTEMS)
