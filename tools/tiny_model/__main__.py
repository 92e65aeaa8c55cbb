"""`python -m tools.tiny_model --out DIR [--layout original|native] [--seed N] [--<geometry field> VALUE …]`."""

import argparse
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tools.tiny_model.checkpoint import Layout, write_checkpoint
from tools.tiny_model.families import MODELS, scaled
from tools.tiny_model.geometry import BENCH, TINY, Geometry


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.tiny_model", description="A tiny InternVL, random weights.")
    parser.add_argument("--out", type=Path, default=Path("var/models/vlmq-tiny"), help="folder to write into")
    parser.add_argument("--layout", type=Layout, choices=list(Layout), default=Layout.ORIGINAL)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shards", type=int, default=1, help="safetensors files to spread the weights over")
    parser.add_argument("--bench", action="store_true", help="start from the bench's geometry, about 10 M parameters")
    parser.add_argument("--like", choices=MODELS, help="start from this published model, scaled down")
    for field in fields(Geometry):
        kind: Any = argparse.BooleanOptionalAction if field.type is bool else None
        name = "--" + field.name.replace("_", "-")
        if kind is None:
            parse = float if field.default is None else type(field.default)
            parser.add_argument(name, type=parse, default=None, help=f"default {field.default}")
        else:
            parser.add_argument(name, action=kind, default=None)
    return parser


def main() -> None:
    options = vars(_parser().parse_args())
    chosen = {f.name: options[f.name] for f in fields(Geometry) if options[f.name] is not None}
    start = scaled(options["like"]) if options["like"] else BENCH if options["bench"] else TINY
    geometry = replace(start, **chosen)
    folder = write_checkpoint(options["out"], geometry, options["layout"], options["seed"], options["shards"])
    print(f"wrote {folder}")


if __name__ == "__main__":
    main()
