"""A short name for a checkpoint's content, cheap enough for every start. Reads no whole tensor, needs no torch.

It tells checkpoints apart, sharded in any way; it does not guard against someone who means to deceive.
"""

import hashlib
from pathlib import Path

from worker.engine.checkpoint_files import shard_files, stored_tensors, tensor_offsets
from worker.engine.config import CheckpointError

# Of each tensor: training that changes a tensor changes its beginning too.
_SAMPLE_BYTES = 4096


def fingerprint(checkpoint: Path) -> str:
    """`sha256:…` over `config.json` and every tensor's name, dtype, shape and first 4 KiB, in order of the names.
    Raises CheckpointError."""
    digest = hashlib.sha256()
    try:
        digest.update((checkpoint / "config.json").read_bytes())
        for line in sorted(line for file in shard_files(checkpoint) for line in _tensors(file)):
            digest.update(line)
    except OSError as exc:
        raise CheckpointError(f"{checkpoint}: {exc}") from exc
    return f"sha256:{digest.hexdigest()}"


def _tensors(file: Path) -> list[bytes]:
    """A line per tensor that ends in the digest of its sample."""
    lines = []
    offsets = tensor_offsets(file)
    with file.open("rb") as content:
        for name, tensor in stored_tensors(file).items():
            start, end = offsets[name]
            content.seek(start)
            sample = content.read(min(end - start, _SAMPLE_BYTES))
            line = f"{name} {tensor.dtype} {tensor.shape} {hashlib.sha256(sample).hexdigest()}\n"
            lines.append(line.encode())
    return lines
