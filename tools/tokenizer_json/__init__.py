"""Writes a checkpoint's `tokenizer.json` from the older files that it has: Qwen2's `vocab.json` and `merges.txt`, or
InternLM's SentencePiece `tokenizer.model`. Runs once per checkpoint; code from the checkpoint is never run."""

from tools.tokenizer_json.added import ConversionError
from tools.tokenizer_json.conversion import convert

__all__ = ["ConversionError", "convert"]
