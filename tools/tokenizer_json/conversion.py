"""Which files a checkpoint's tokenizer is in, and `tokenizer.json` written from them."""

from pathlib import Path

from tokenizers import Tokenizer

from tools.tokenizer_json.added import Added, ConversionError, read_added
from tools.tokenizer_json.byte_level import byte_level
from tools.tokenizer_json.sentencepiece import sentencepiece


def convert(checkpoint: Path) -> Path:
    """Returns the file that was written. Raises ConversionError; a `tokenizer.json` that exists is left alone."""
    target = checkpoint / "tokenizer.json"
    if target.exists():
        raise ConversionError(f"{target} exists already")
    added = read_added(checkpoint)
    if (checkpoint / "tokenizer.model").exists():
        tokenizer = sentencepiece(checkpoint, added)
    elif (checkpoint / "vocab.json").exists() and (checkpoint / "merges.txt").exists():
        tokenizer = byte_level(checkpoint)
    else:
        raise ConversionError(f"{checkpoint} has neither tokenizer.model nor vocab.json with merges.txt")
    _add(tokenizer, added)
    tokenizer.save(str(target))
    return target


def _add(tokenizer: Tokenizer, added: list[Added]) -> None:
    """The tokenizer numbers them itself: it must come to the numbers of the files."""
    for each in added:
        tokenizer.add_tokens([each.token])
        number = tokenizer.token_to_id(each.token.content)
        if number != each.id:
            raise ConversionError(f"added token {each.token.content!r} has id {each.id}, but {number} comes next")
