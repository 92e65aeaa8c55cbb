"""`python -m tests.chaos --seed N`: load, faults, audit. Prints the schedule first and what it found last."""

import os
import sys
from dataclasses import asdict
from pathlib import Path

from tests.chaos.entry import Report, options, reported
from tests.chaos.faults import FAULTS
from tests.chaos.load import WEIGHTS
from tests.chaos.requests import all_requests
from tests.chaos.run import Plan, run
from tests.fixtures.tensorrt_llm import BACKENDS, DEMO, DEMO_ORDER, build_engines, served_by


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--faults", type=int, default=0, help="how many, one after another; all once by default")
    parser.add_argument("--only", action="append", default=[], choices=FAULTS, metavar="FAULT", help="may be repeated")
    parser.add_argument("--kinds", action="append", default=[], choices=WEIGHTS, metavar="OPERATION")
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--lease", type=float, default=10.0)
    parser.add_argument("--engine", choices=BACKENDS, default="torch", help="of the workers; TensorRT-LLM is its fake")
    asked = parser.parse_args()
    over_fake = asked.engine == "tensorrt_llm"
    plan = Plan(
        asked.seed,
        asked.faults or len(asked.only or FAULTS),
        asked.clients,
        asked.lease,
        tuple(asked.only),
        tuple(asked.kinds),
        tuple(request.name for request in all_requests() if not request.options["temperature"]) if over_fake else (),
        device=asked.device,
    )
    report = Report("chaos")
    with reported(report, asked) as folder:
        if over_fake:
            _serve_by_fake(folder / "engines")
        result = run(plan, folder, lambda line: print(line, flush=True))
        report.findings += [*result.findings, *result.late()]
        report.values |= {name: value for name, value in asdict(result).items() if name != "findings"}
        report.values |= {"clients": plan.clients, "lease_s": plan.lease_s}
    return 1 if report.findings else 0


def _serve_by_fake(engines: Path) -> None:
    """For all processes that are started from here. What is drawn at random begins anew with each of the executor's
    requests: the load asks for what is greedy alone, which goes on over a death as without one."""
    told = served_by(build_engines(DEMO, engines, DEMO_ORDER))
    found = [path for path in (os.environ.get("PYTHONPATH"), told["PYTHONPATH"]) if path]
    os.environ.update(told | {"PYTHONPATH": os.pathsep.join(found)})


if __name__ == "__main__":
    sys.exit(main())
