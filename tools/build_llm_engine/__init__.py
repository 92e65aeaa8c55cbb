"""Builds the language model's engine with TensorRT-LLM: exported, converted, built for every rank, described."""
