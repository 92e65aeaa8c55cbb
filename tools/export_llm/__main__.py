"""`python -m tools.export_llm CHECKPOINT OUT [--dtype bfloat16] [--shard-gib 5]`."""

import argparse
import sys
from pathlib import Path

from tools.export_llm.folder import DTYPES, ExportError, export_llm
from tools.progress import Progress
from worker.engine.config import CheckpointError


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.export_llm", description="Writes the language model alone.")
    parser.add_argument("checkpoint", type=Path, help="folder of an InternVL checkpoint, either layout")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--dtype", choices=list(DTYPES), help="of the weights; left out: as they are stored")
    parser.add_argument("--shard-gib", type=float, default=5.0, help="the most of one safetensors file, GiB")
    options = parser.parse_args()
    progress = Progress("export")
    try:
        export_llm(options.checkpoint, options.out, options.dtype, int(options.shard_gib * (1 << 30)), progress.tell)
    except (CheckpointError, ExportError) as exc:
        sys.exit(f"export_llm: {exc}")
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
