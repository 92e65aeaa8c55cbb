"""A `tensorrt_llm` for machines that cannot have the real one: it takes exactly what is written down of 1.2.1, refuses
the rest, and behaves as its sources say. `INSTALLED` is the folder to put on the path."""

from pathlib import Path

INSTALLED = Path(__file__).parent / "installed"
