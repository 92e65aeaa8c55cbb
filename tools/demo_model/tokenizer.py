"""The demo's own byte-level BPE: whole words of the demo's sentences after a space, single bytes for everything else.

Every merge extends a piece that starts a pre-token, so a word to be read (which follows a quotation mark, never a
space) is always spelled letter by letter. The pre-tokenizer is Qwen2's.
"""

from collections.abc import Iterable
from random import Random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from tools.demo_model.prompt import SYSTEM
from tools.demo_model.sample import EVALUATED
from tools.demo_model.talk_tasks import SMALL_TALK

QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
IMG, IMG_END, IMG_CONTEXT = "<img>", "</img>", "<IMG_CONTEXT>"
SPECIALS = (
    END_OF_TEXT,
    IM_START,
    IM_END,
    IMG,
    IMG_END,
    IMG_CONTEXT,
    "<quad>",
    "</quad>",
    "<ref>",
    "</ref>",
    "<box>",
    "</box>",
)
CORPUS_CONVERSATIONS = 1500


def _corpus() -> Iterable[str]:
    """Every sentence form of the demo, and the ChatML frame with the default system message."""
    yield SYSTEM
    yield "You are a helpful assistant."
    for questions, answer in SMALL_TALK:
        yield from (*questions, answer)
    for task, maker in EVALUATED.items():
        rng = Random(f"corpus {task}")
        for _ in range(CORPUS_CONVERSATIONS // len(EVALUATED)):
            for asked in maker(rng, False).rounds:
                yield from (asked.question, asked.answer)


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _merges(pieces: Iterable[str]) -> list[tuple[str, str]]:
    """Left to right, shortest prefix first, so that a piece grows from its start alone."""
    prefixes = {piece[:end] for piece in pieces for end in range(2, len(piece) + 1)}
    return [(prefix[:-1], prefix[-1]) for prefix in sorted(prefixes, key=lambda prefix: (len(prefix), prefix))]


def build_tokenizer() -> Tokenizer:
    """The same tokenizer every time: nothing in it depends on the machine."""
    splitter = _pre_tokenizer()
    pieces = {piece for text in _corpus() for piece, _ in splitter.pre_tokenize_str(text)}
    # A piece that starts with a letter or digit could be the start of a word to be read.
    kept = sorted(piece for piece in pieces if len(piece) > 1 and not piece[0].isascii())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = _merges(kept)
    words = [*alphabet, *(left + right for left, right in merges)]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=False, fuse_unk=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    return tokenizer
