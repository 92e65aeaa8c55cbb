"""A byte-level BPE tokenizer with Qwen2's rules and InternVL's special tokens, trained on made-up text."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE

from tools.tiny_model.corpus import sentences

# The split rule of Qwen2's tokenizer.json.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Qwen2.5's added tokens in their order, then InternVL's; those marked plain are not "special" there either.
_PLAIN = ["<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"]
_PLAIN += ["<|repo_name|>", "<|file_sep|>"]
_ADDED = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"]
_ADDED += ["<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>"]
_ADDED += ["<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", *_PLAIN, "<img>", "</img>", "<IMG_CONTEXT>"]
_ADDED += ["<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"]
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@cache
def build_tokenizer(vocab_size: int, seed: int = 0) -> Tokenizer:
    """At most `vocab_size` entries, added tokens last; made once, to be read only.

    Raises ValueError when that leaves no room for the bytes."""
    if vocab_size < 256 + len(_ADDED):
        raise ValueError(f"vocab_size {vocab_size} is below {256 + len(_ADDED)}: 256 bytes and the added tokens")
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(_WORDS), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(_ADDED),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences(seed, 4 * vocab_size), trainer)
    for text in _ADDED:
        tokenizer.add_tokens([AddedToken(text, special=text not in _PLAIN, normalized=False)])
    return tokenizer


def added_ids(tokenizer: Tokenizer) -> dict[str, int]:
    ids = {text: tokenizer.token_to_id(text) for text in _ADDED}
    return {text: number for text, number in ids.items() if number is not None}


def write_tokenizer(tokenizer: Tokenizer, folder: Path, context_length: int) -> None:
    """`tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`."""
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = added_ids(tokenizer)
    entry = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    config: dict[str, Any] = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(i): {"content": text, "special": text not in _PLAIN, **entry} for text, i in ids.items()
        },
        "additional_special_tokens": [text for text in _ADDED[1:] if text not in _PLAIN],
        "bos_token": None,
        "chat_template": _CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": context_length,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    special = {key: config[key] for key in ("additional_special_tokens", "eos_token", "pad_token")}
    for name, value in (("tokenizer_config", config), ("special_tokens_map", special), ("added_tokens", ids)):
        (folder / f"{name}.json").write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
