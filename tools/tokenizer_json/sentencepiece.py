"""InternLM's tokenizer from a SentencePiece `tokenizer.model` (BPE with byte fallback)."""

from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE

from tools.tokenizer_json.added import Added, ConversionError, read_json

# From sentencepiece_model.proto: a BPE trainer; a piece made of text.
_BPE, _NORMAL = 2, 1
_SPACE = "▁"


def sentencepiece(checkpoint: Path, added: list[Added]) -> Tokenizer:
    """Pieces that an added token names by its id take that token's text. Pieces that are no text (control, unused,
    bytes) are never merged to, so no text becomes one. Raises ConversionError."""
    proto = _read(checkpoint / "tokenizer.model")
    pieces = [piece.piece for piece in proto.pieces]
    for each in added:
        if each.id < len(pieces):
            pieces[each.id] = each.token.content
    ids = {piece: number for number, piece in enumerate(pieces)}
    if len(ids) != len(pieces):
        raise ConversionError(f"{checkpoint}: two pieces have one text")
    trainer = proto.trainer_spec
    fallback = trainer.byte_fallback
    tokenizer = Tokenizer(BPE(ids, _merges(proto), unk_token=trainer.unk_piece, fuse_unk=True, byte_fallback=fallback))
    prefix = proto.normalizer_spec.add_dummy_prefix
    tokenizer.normalizer = _normalizer(proto.normalizer_spec)
    steps = [decoders.Replace(_SPACE, " "), *([decoders.ByteFallback()] if fallback else []), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    _start(tokenizer, checkpoint, trainer.bos_piece)
    return tokenizer


def _read(path: Path) -> Any:
    # Late: needed for this format alone.
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    try:
        proto.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as exc:
        raise ConversionError(f"{path}: {exc}") from exc
    if proto.trainer_spec.model_type != _BPE:
        raise ConversionError(f"{path}: model_type {proto.trainer_spec.model_type}; supported: {_BPE} (BPE)")
    return proto


def _merges(proto: Any) -> list[tuple[str, str]]:
    """Every way to put a piece together from two others, the best piece first."""
    texts = {piece.piece: (number, piece.score) for number, piece in enumerate(proto.pieces) if piece.type == _NORMAL}
    found = []
    for text, (number, score) in texts.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in texts and right in texts:
                found.append((-score, number, texts[left][0], texts[right][0], left, right))
    return [(left, right) for *_, left, right in sorted(found)]


def _normalizer(spec: Any) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(_SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])


def _start(tokenizer: Tokenizer, checkpoint: Path, bos: str) -> None:
    """InternLM's prompts begin with the start token unless the configuration says otherwise."""
    if read_json(checkpoint / "tokenizer_config.json").get("add_bos_token", True):
        number = tokenizer.token_to_id(bos)
        if number is None:
            raise ConversionError(f"{checkpoint}: add_bos_token, but there is no piece {bos!r}")
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, number)])
