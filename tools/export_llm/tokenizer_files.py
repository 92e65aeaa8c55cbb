"""The tokenizer's files of a checkpoint, copied so that transformers reads them without the checkpoint's code."""

import json
import shutil
from pathlib import Path
from typing import Any

from worker.engine.config import CheckpointError

_COPIED = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
)
_CONFIG = "tokenizer_config.json"


def copy_tokenizer(source: Path, target: Path) -> None:
    """Raises CheckpointError when there is no `tokenizer.json`. A tokenizer that is a class of the checkpoint's own
    code becomes the plain one that `tokenizer.json` describes; its ids are the same."""
    if not (source / "tokenizer.json").exists():
        raise CheckpointError(f"{source}: no tokenizer.json; python -m tools.tokenizer_json {source} writes it")
    for name in _COPIED:
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
    if (source / _CONFIG).exists():
        (target / _CONFIG).write_text(json.dumps(_plain(source / _CONFIG), indent=2, ensure_ascii=False) + "\n")


def _plain(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise CheckpointError(f"{path}: {exc}") from exc
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    if config.pop("auto_map", None) is not None:
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    return config
