"""All answers that are rendered by hand, by operation and status."""

from api.document.shape import Shapes
from api.document.shapes import chat, operation, responses

SHAPES: Shapes = {**chat.SHAPES, **responses.SHAPES, **operation.SHAPES}
