"""Writes the language model of an InternVL checkpoint as a Hugging Face folder of its own, which transformers and
TensorRT-LLM read without code from the checkpoint. InternLM becomes the Llama that it is."""

from tools.export_llm.folder import DTYPES, ExportError, export_llm

__all__ = ["DTYPES", "ExportError", "export_llm"]
