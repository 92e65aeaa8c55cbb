"""From a checkpoint's folder to the language model's. What is half written is never under the final name."""

import json
import shutil
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from tools.export_llm.config_json import llm_config
from tools.export_llm.llama_names import is_language, llama_tensors, zero_biases
from tools.export_llm.shards import Source, plan_shards, write_shards
from tools.export_llm.tokenizer_files import copy_tokenizer
from worker.engine.checkpoint import Checkpoint, inspect
from worker.engine.checkpoint_files import stored_tensors
from worker.engine.config import CheckpointError, Layout
from worker.engine.torch.tensor_names import plain_name

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
SHARD_BYTES = 5 << 30


class ExportError(Exception):
    """The folder cannot be written as asked; the message says why."""


def _no_progress(done: float, what: str) -> None:
    pass


def export_llm(
    checkpoint: Path,
    out: Path,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[float, str], None] = _no_progress,
) -> Path:
    """Writes `out`, which must not exist, and returns it. `dtype` None keeps the stored one. The host holds one shard.

    Raises CheckpointError for what is wrong with the checkpoint, ExportError for what is wrong with the rest."""
    if out.exists():
        raise ExportError(f"{out} exists already")
    if shard_bytes < 1:
        raise ExportError(f"a shard of {shard_bytes} bytes")
    whole = inspect(checkpoint)
    target = dtype or _stored_dtype(whole)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    copy_tokenizer(checkpoint, partial)
    shards = plan_shards(_sources(whole, target), shard_bytes)
    write_shards(partial, shards, _Reader(whole, DTYPES[target], len(shards), progress).read)
    config = llm_config(_text_config(checkpoint, whole.config.layout), whole.config.decoder, target)
    (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    partial.rename(out)
    return out


class _Reader:
    """Reads shards in their order; the zeros of `zero_biases` come with the last."""

    def __init__(
        self, whole: Checkpoint, dtype: torch.dtype, shards: int, progress: Callable[[float, str], None]
    ) -> None:
        self._config = whole.config
        self._dtype = dtype
        self._shards_left = shards
        self._total = sum(is_language(name) for name in whole.tensors)
        self._done = 0
        self._progress = progress

    def read(self, shard: list[Source]) -> Iterator[tuple[str, torch.Tensor]]:
        for file, sources in groupby(shard, key=lambda source: source.file):
            with safe_open(str(file), framework="pt") as tensors:
                for source in sources:
                    yield from self._converted(tensors, source)
        self._shards_left -= 1
        if not self._shards_left:
            yield from zero_biases(self._config.decoder, self._dtype).items()

    def _converted(self, tensors: safe_open, source: Source) -> Iterator[tuple[str, torch.Tensor]]:
        try:
            tensor: torch.Tensor = tensors.get_tensor(source.name)  # type: ignore[no-untyped-call]
        except SafetensorError as exc:
            raise CheckpointError(f"{source.file}: {source.name}: {exc}") from exc
        plain = plain_name(self._config.layout, source.name)
        for name, part in llama_tensors(plain, tensor, self._config.decoder):
            yield name, part.to(self._dtype).contiguous()
        self._done += 1
        self._progress(self._done / self._total, source.file.name)


def _sources(whole: Checkpoint, dtype: str) -> Iterator[Source]:
    for file in whole.files:
        for name, tensor in stored_tensors(file).items():
            if is_language(plain_name(whole.config.layout, name)):
                yield Source(file, name, tensor.elements * DTYPES[dtype].itemsize)


def _stored_dtype(whole: Checkpoint) -> str:
    """The one dtype of the language model's tensors."""
    found = sorted({tensor.dtype for name, tensor in whole.tensors.items() if is_language(name)})
    if len(found) > 1 or found[0] not in _STORED:
        raise ExportError(f"the language model is stored as {', '.join(found)}; name one: --dtype {'|'.join(DTYPES)}")
    return _STORED[found[0]]


def _text_config(checkpoint: Path, layout: Layout) -> dict[str, object]:
    root = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    text: dict[str, object] = root["llm_config" if layout is Layout.ORIGINAL else "text_config"]
    return text
