"""Engines of TensorRT and TensorRT-LLM: what was built, and whether it fits what is here."""
