"""What a sample is: pictures, how they are shown, and rounds of question and answer. The checker lives here too."""

from dataclasses import dataclass
from enum import StrEnum

from tools.demo_model.scene import Scene


class Task(StrEnum):
    DESCRIBE = "describe"
    COLOUR = "colour"
    SHAPE = "shape"
    SIZE = "size"
    POSITION = "position"
    RELATION = "relation"
    COUNT = "count"
    YES_NO = "yes_no"
    READ = "read"
    COMPARE = "compare"
    VIDEO = "video"
    FOLLOW_UP = "follow_up"
    NO_PICTURE = "no_picture"
    SMALL_TALK = "small_talk"


class Shown(StrEnum):
    """TILES: each picture at its own dynamic resolution. FRAMES: one tile a picture, as a video."""

    TILES = "tiles"
    FRAMES = "frames"


@dataclass(frozen=True, slots=True)
class Round:
    """`task` is None for a round that only prepares the next one."""

    question: str
    answer: str
    task: Task | None


@dataclass(frozen=True, slots=True)
class Conversation:
    scenes: tuple[Scene, ...]
    rounds: tuple[Round, ...]
    shown: Shown = Shown.TILES


def is_right(answer: str, wanted: str) -> bool:
    """The demo answers every question in one fixed sentence, so right means equal, but for white space around."""
    return answer.strip() == wanted
