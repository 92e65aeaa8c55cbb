"""What a request is estimated to cost in tokens, before anybody has counted. The end of the job corrects it."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from api.picture_size import Size
from jobs.request import ChatRequest, ImagePart, Message, TextPart, VideoPart
from jobs.tiling import Tiling

BYTES_PER_TOKEN = 4
"""Of UTF-8: right for English, and near enough for scripts of three bytes a character."""
INTERNVL = Tiling(min_tiles=1, max_tiles=12, use_thumbnail=True, tile_size=448, tile_tokens=256, frames=8)
"""Of a model none of whose workers has told: as the published ones are."""
PICTURE = (1920, 1080)
"""Of unknown size, because it is another host's: others become up to twice as many tiles, and as few as one."""
PICTURE_TOKENS = 3
"""The marks around a picture's tiles."""
FRAME_TOKENS = 7
"""Those of a video's frame, and its number."""
ANSWER_TOKENS = 256
"""A typical answer's, however many are allowed."""
MOST_TOKENS = 2**31 - 1
"""What a row holds: a request may ask for more, and then its worker refuses it."""
TURN_TOKENS = 4
"""What a chat template puts around a message."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """`size_of`: of the picture that a part names, None where it is not known."""

    tiling: Tiling
    size_of: Callable[[str], Size | None]

    def cost_of(self, request: ChatRequest) -> int:
        """Tokens of text, pictures and answers together; from 1 to MOST_TOKENS. Raises what `size_of` does."""
        answer = ANSWER_TOKENS if request.max_tokens is None else min(request.max_tokens, ANSWER_TOKENS)
        tools = 0 if request.tools is None else _text(len(msgspec.json.encode(request.tools)))
        prompt = sum(self._message(message) for message in request.messages)
        return min(max(1, prompt + tools + max(answer, request.min_tokens) * request.n), MOST_TOKENS)

    def _message(self, message: Message) -> int:
        calls = _text(len(msgspec.json.encode(message.calls))) if message.calls else 0
        return TURN_TOKENS + calls + sum(self._part(part) for part in message.parts)

    def _part(self, part: TextPart | ImagePart | VideoPart) -> int:
        match part:
            case TextPart():
                return _text(len(part.text.encode("utf-8", "surrogatepass")))
            case ImagePart():
                tiles = 1 if part.detail == "low" else self.tiling.tiles(*(self.size_of(part.source) or PICTURE))
                return tiles * self.tiling.tile_tokens + PICTURE_TOKENS
            case VideoPart():
                return (part.num_segments or self.tiling.frames) * (self.tiling.tile_tokens + FRAME_TOKENS)


def _text(size: int) -> int:
    return -(-size // BYTES_PER_TOKEN)
