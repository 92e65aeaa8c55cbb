"""Qwen2's tokenizer from `vocab.json` and `merges.txt`: NFC, its own split into words, byte-level BPE."""

from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from tools.tokenizer_json.added import ConversionError

# The split rule of Qwen2's own tokenizer: contractions, words, single digits, signs, line ends, spaces.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(checkpoint: Path) -> Tokenizer:
    """Without added tokens. Raises ConversionError."""
    try:
        model = BPE.from_file(str(checkpoint / "vocab.json"), str(checkpoint / "merges.txt"))
    except Exception as exc:
        raise ConversionError(f"{checkpoint}: vocab.json and merges.txt: {exc}") from exc
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(_WORDS), "isolated")
    inner = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, inner])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer
