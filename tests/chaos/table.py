"""`python -m tests.chaos.table reports…`: recovery times of several runs, as the table of docs/reliability.md."""

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median


def table(reports: Sequence[Path]) -> str:
    """Faults by name, with how often each struck something, and median and worst of the seconds to recovery."""
    times: dict[str, list[float]] = defaultdict(list)
    for report in reports:
        for fault, seconds in json.loads(report.read_text())["recoveries"].items():
            times[fault] += seconds
    lines = ["| fault | times | recovery, s: median | worst |", "|---|---|---|---|"]
    lines += [f"| {fault} | {len(s)} | {median(s):.1f} | {max(s):.1f} |" for fault, s in sorted(times.items()) if s]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table([Path(name) for name in sys.argv[1:]]))
