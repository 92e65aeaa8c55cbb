"""`python -m tools.tokenizer_json CHECKPOINT`."""

import argparse
import sys
from pathlib import Path

from tools.tokenizer_json.added import ConversionError
from tools.tokenizer_json.conversion import convert


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.tokenizer_json", description="Writes tokenizer.json.")
    parser.add_argument("checkpoint", type=Path, help="folder with vocab.json and merges.txt, or tokenizer.model")
    try:
        written = convert(parser.parse_args().checkpoint)
    except ConversionError as exc:
        sys.exit(f"tokenizer_json: {exc}")
    print(f"wrote {written}")


if __name__ == "__main__":
    main()
