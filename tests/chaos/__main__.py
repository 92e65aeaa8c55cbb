"""`python -m tests.chaos --seed N`: load, faults, audit. Prints the schedule first and what it found last."""

import sys
from dataclasses import asdict

from tests.chaos.entry import Report, options, reported
from tests.chaos.faults import FAULTS
from tests.chaos.load import WEIGHTS
from tests.chaos.run import Plan, run


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--faults", type=int, default=0, help="how many, one after another; all once by default")
    parser.add_argument("--only", action="append", default=[], choices=FAULTS, metavar="FAULT", help="may be repeated")
    parser.add_argument("--kinds", action="append", default=[], choices=WEIGHTS, metavar="OPERATION")
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--lease", type=float, default=10.0)
    asked = parser.parse_args()
    plan = Plan(
        asked.seed,
        asked.faults or len(asked.only or FAULTS),
        asked.clients,
        asked.lease,
        tuple(asked.only),
        tuple(asked.kinds),
        device=asked.device,
    )
    report = Report("chaos")
    with reported(report, asked) as folder:
        result = run(plan, folder, lambda line: print(line, flush=True))
        report.findings += result.findings
        report.values |= {name: value for name, value in asdict(result).items() if name != "findings"}
        report.values |= {"clients": plan.clients, "lease_s": plan.lease_s}
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
