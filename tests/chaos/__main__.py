"""`python -m tests.chaos --seed N`: load, faults, audit. Prints the schedule first and what it found last."""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.faults import FAULTS
from tests.chaos.run import Plan, run


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--faults", type=int, default=len(FAULTS), help="how many, one after another")
    options.add_argument("--only", action="append", default=[], help="name of a fault; may be repeated")
    options.add_argument("--kinds", action="append", default=[], help="kind of operation; may be repeated")
    options.add_argument("--clients", type=int, default=12)
    options.add_argument("--lease", type=float, default=10.0)
    options.add_argument("--report", type=Path, help="a file for the recovery times, as JSON")
    asked = options.parse_args()
    plan = Plan(asked.seed, asked.faults, asked.clients, asked.lease, tuple(asked.only), tuple(asked.kinds))
    folder = Path(tempfile.mkdtemp(prefix="vlmq-chaos-logs-"))
    result = run(plan, folder, lambda line: print(line, flush=True))
    if result.findings:
        print(f"the logs of all processes are in {folder}")
    else:
        shutil.rmtree(folder)
    if asked.report:
        asked.report.write_text(json.dumps({"seed": asked.seed, "recoveries": result.recoveries}, indent=1))
    return 1 if result.findings else 0


if __name__ == "__main__":
    sys.exit(main())
