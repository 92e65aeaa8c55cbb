"""Tokenizers of older checkpoints become a tokenizer.json that encodes as their own library does."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece
from tokenizers import Tokenizer

from tools.tiny_model.corpus import sentences
from tools.tokenizer_json import ConversionError, convert
from worker.tokenizer import ChatTokenizer, TokenizerError

pytestmark = pytest.mark.integration

_TEXTS = [
    *sentences(3, 200),
    "What does the picture show?",
    "图片里有什么？ 3 cats — d'été\n\n  x\ty",
    "🦊👩‍👩‍👧 مرحبا",
    "e\u0301 fine",
    " leading and trailing  ",
    "",
    "<s> [UNUSED_TOKEN_1] <0x41> </s>",
]
_CHAT = {"<|im_end|>": "[UNUSED_TOKEN_0]", "<|im_start|>": "[UNUSED_TOKEN_1]"}


@pytest.fixture
def qwen(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny checkpoint's tokenizer as older files have it."""
    folder = tmp_path / "qwen"
    folder.mkdir()
    Tokenizer.from_file(str(tiny_model / "tokenizer.json")).model.save(str(folder))
    for name in ("tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"):
        shutil.copy(tiny_model / name, folder)
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A SentencePiece model with InternLM2's kinds of pieces."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(list(sentences(1, 3000))),
        model_writer=model,
        model_type="bpe",
        vocab_size=900,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        user_defined_symbols=list(_CHAT.values()),
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


@pytest.fixture
def internlm(trained: bytes, tmp_path: Path) -> Path:
    folder = tmp_path / "internlm"
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(trained)
    own = sentencepiece.SentencePieceProcessor(model_proto=trained)
    named = {own.piece_to_id(piece): text for text, piece in _CHAT.items()}
    named |= {own.piece_to_id("<s>"): "<s>", own.piece_to_id("</s>"): "</s>", 900: "<img>", 901: "</img>"}
    entries = {str(number): {"content": text, "special": True} for number, text in named.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": entries}))
    return folder


@pytest.mark.parametrize("without", ["added_tokens.json", "tokenizer_config.json"])
def test_vocabulary_and_merges_become_the_tokenizer_that_they_came_from(
    qwen: Path, tiny_model: Path, without: str
) -> None:
    (qwen / without).unlink()
    ours, theirs = (Tokenizer.from_file(str(path)) for path in (convert(qwen), tiny_model / "tokenizer.json"))
    asked = "<|im_start|>user\n<img><IMG_CONTEXT></img> Hello<|im_end|>"
    for text in [*_TEXTS, asked]:
        assert ours.encode(text).ids == theirs.encode(text).ids
        assert ours.decode(ours.encode(text).ids) == theirs.decode(theirs.encode(text).ids)


def test_a_sentencepiece_model_becomes_a_tokenizer_that_encodes_alike(internlm: Path, trained: bytes) -> None:
    convert(internlm)
    own = sentencepiece.SentencePieceProcessor(model_proto=trained)
    tokenizer = ChatTokenizer.load(internlm)
    for text in _TEXTS:
        if "UNUSED" not in text:
            assert tokenizer.encode(text) == own.encode(text)
        assert tokenizer.whole.decode(tokenizer.encode(text)) == text
    assert tokenizer.start_ids == [own.bos_id()]


def test_a_converted_tokenizer_knows_its_special_tokens_and_takes_none_from_text(internlm: Path) -> None:
    convert(internlm)
    tokenizer = ChatTokenizer.load(internlm)
    special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<img>", "</img>"]
    ids = [tokenizer.id_of(name) for name in special]
    assert ids[-2:] == [900, 901]
    spoken = tokenizer.encode("".join(special) + "[UNUSED_TOKEN_1]<0x41>")
    assert not set(ids) & set(spoken)


def test_a_sentencepiece_model_that_prefixes_a_space_encodes_alike(tmp_path: Path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(list(sentences(2, 2000))),
        model_writer=model,
        model_type="bpe",
        vocab_size=700,
        byte_fallback=True,
        num_threads=1,
        minloglevel=2,
    )
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": false}')
    tokenizer = Tokenizer.from_file(str(convert(tmp_path)))
    own = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    for text in _TEXTS:
        assert tokenizer.encode(text).ids == own.encode(text)


def test_a_tokenizer_of_another_kind_is_refused(tmp_path: Path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(list(sentences(2, 500))), model_writer=model, model_type="unigram", vocab_size=300,
        hard_vocab_limit=False, num_threads=1, minloglevel=2,
    )  # fmt: skip
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    with pytest.raises(ConversionError, match=r"tokenizer\.model: model_type 1; supported: 2"):
        convert(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has neither tokenizer.model nor vocab.json"),
        ({"tokenizer.model": b"\xff\xff"}, "tokenizer.model: "),
        ({"vocab.json": b"{", "merges.txt": b""}, "vocab.json and merges.txt: "),
        ({"tokenizer.json": b"{}"}, "exists already"),
        ({"tokenizer_config.json": b"["}, "tokenizer_config.json: "),
    ],
)
def test_files_that_give_no_tokenizer_are_refused_by_name(
    tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConversionError, match=message):
        convert(tmp_path)


def test_an_added_token_with_a_gap_before_it_is_refused(qwen: Path) -> None:
    (qwen / "tokenizer_config.json").unlink()
    (qwen / "added_tokens.json").write_text('{"<far>": 9000}')
    with pytest.raises(ConversionError, match="added token '<far>' has id 9000, but"):
        convert(qwen)


def test_the_worker_names_the_command_for_a_checkpoint_without_tokenizer_json(qwen: Path) -> None:
    with pytest.raises(TokenizerError, match=r"python -m tools\.tokenizer_json .*qwen"):
        ChatTokenizer.load(qwen)
    command = [sys.executable, "-m", "tools.tokenizer_json", str(qwen)]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    assert ChatTokenizer.load(qwen).encode("Hello")
