"""Makes a small InternVL checkpoint with random weights and a tokenizer of its own. Knows nothing of vlmq's own code.

The same geometry and seed give the same files on every machine, in both checkpoint layouts the same model.
"""

from tools.tiny_model.checkpoint import Layout, write_checkpoint
from tools.tiny_model.families import MODELS, scaled
from tools.tiny_model.geometry import BENCH, TINY, Geometry

__all__ = ["BENCH", "MODELS", "TINY", "Geometry", "Layout", "scaled", "write_checkpoint"]
