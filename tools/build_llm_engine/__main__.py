"""`python -m tools.build_llm_engine CHECKPOINT OUT [--quantization int8] [--tensor-parallel 2] [--dry-run]`."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from tools.build_llm_engine.package import PackageError, find_package
from tools.build_llm_engine.plan import Order, Plan, PlanError, Quantization, make_plan
from tools.build_llm_engine.report import report
from tools.progress import Progress
from worker.engine.config import CheckpointError, load_config


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.build_llm_engine", description="Builds the language model's engine of a checkpoint."
    )
    parser.add_argument("checkpoint", type=Path, help="folder of an InternVL checkpoint, either layout")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--dtype", choices=("bfloat16", "float16"), default="bfloat16")
    parser.add_argument("--quantization", type=Quantization, choices=list(Quantization), default=Quantization.NONE)
    parser.add_argument("--calibration", help="texts for fp8: the name of a data set, or its folder")
    parser.add_argument("--tensor-parallel", type=int, default=1, metavar="N", help="GPUs to spread the model over")
    parser.add_argument("--max-batch-size", type=int, default=16, help="requests at once (default 16)")
    parser.add_argument("--tiles", type=int, default=13, help="the most tiles of one request (default 13)")
    parser.add_argument("--max-input-len", type=int, help="tokens of a prompt; left out: the tiles and 2,048")
    parser.add_argument("--max-seq-len", type=int, help="tokens of prompt and answer; left out: 2,048 more")
    parser.add_argument("--max-num-tokens", type=int, help="tokens of one step; left out: 8,192 or the longest prompt")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and its memory; needs config.json alone")
    return parser


def main() -> None:
    options = _parser().parse_args()
    names = [name for name in Order.__dataclass_fields__ if getattr(options, name) is not None]
    order = Order(**{name: getattr(options, name) for name in names})
    try:
        plan = make_plan(load_config(options.checkpoint), order)
        print(report(plan))
        if options.dry_run:
            print(f"dry run: nothing was built, {options.out} is as it was")
        else:
            _build(options.checkpoint, options.out, plan)
    except (CheckpointError, PackageError, PlanError) as exc:
        sys.exit(f"build_llm_engine: {exc}")


def _build(checkpoint: Path, out: Path, plan: Plan) -> None:
    package = find_package()
    # Late: a dry run needs no torch.
    from tools.build_llm_engine.folder import EngineError, build_folder
    from tools.export_llm import ExportError
    from tools.gpu import find_gpu

    gpu = find_gpu()
    if gpu is None:
        raise PackageError("there is no NVIDIA GPU here; an engine is built on the kind of GPU that it will run on")
    try:
        manifest = build_folder(checkpoint, out, plan, package, gpu, _tell)
    except (EngineError, ExportError) as exc:
        sys.exit(f"build_llm_engine: {exc}")
    size = sum(manifest.files.values()) / (1 << 30)
    print(f"wrote {out}: {size:.2f} GiB, for {plan.order.tensor_parallel} × {manifest.gpu}")


def _tell(step: str) -> Callable[[float, str], None]:
    return Progress(f"engine: {step}").tell


if __name__ == "__main__":
    main()
