"""Stands in for TensorRT-LLM 1.2.1: see `tests.fakes.tensorrt_llm`."""

__version__ = "1.2.1"
