"""What a request is estimated to cost in tokens, before anybody has counted. The end of the job corrects it."""

import msgspec

from jobs.request import ChatRequest, ImagePart, Message, TextPart, VideoPart

BYTES_PER_TOKEN = 4
"""Of UTF-8: right for English, and near enough for scripts of three bytes a character."""
TILE_TOKENS = 256
PICTURE_TILES = 7
"""Of a picture of unknown size that is cut into tiles."""
VIDEO_FRAMES = 8
ANSWER_TOKENS = 256
"""A typical answer's, however many are allowed."""
TURN_TOKENS = 4
"""What a chat template puts around a message."""


def cost_of(request: ChatRequest) -> int:
    """Tokens of text, pictures and answers together; at least 1."""
    answer = ANSWER_TOKENS if request.max_tokens is None else min(request.max_tokens, ANSWER_TOKENS)
    tools = 0 if request.tools is None else _text(len(msgspec.json.encode(request.tools)))
    prompt = sum(_message(message) for message in request.messages)
    return max(1, prompt + tools + max(answer, request.min_tokens) * request.n)


def _message(message: Message) -> int:
    calls = _text(len(msgspec.json.encode(message.calls))) if message.calls else 0
    return TURN_TOKENS + calls + sum(_part(part) for part in message.parts)


def _part(part: TextPart | ImagePart | VideoPart) -> int:
    match part:
        case TextPart():
            return _text(len(part.text.encode("utf-8", "surrogatepass")))
        case ImagePart():
            return TILE_TOKENS * (1 if part.detail == "low" else PICTURE_TILES)
        case VideoPart():
            return TILE_TOKENS * (part.num_segments or VIDEO_FRAMES)


def _text(size: int) -> int:
    return -(-size // BYTES_PER_TOKEN)
