"""`python -m tools.audit constraints.txt`: asks the advisory service of pip-audit about every pinned package.

Ends with 1 when one has a known vulnerability, naming package and advisory. Where the service cannot be reached it says
that the audit was skipped, and ends with 0: a machine without a way out must still be able to check the code.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

CONNECT_S = 5
"""For one answer of the service."""
LIMIT_S = 120
_UNREACHABLE = re.compile(r"^(requests\.exceptions\.|.*\bServiceError\b|.*Could not connect)")


def audit(pins: Path, service_url: str, accepted: Sequence[str], limit_s: float) -> tuple[int, str]:
    """The exit status and what to say."""
    command = [
        *(sys.executable, "-m", "pip_audit", "--requirement", str(pins), "--no-deps", "--disable-pip"),
        *("--vulnerability-service", "osv", "--timeout", str(CONNECT_S), "--format", "json"),
        *("--progress-spinner", "off", "--desc", "off"),
        *(("--osv-url", service_url) if service_url else ()),
        *(word for name in accepted for word in ("--ignore-vuln", name)),
    ]
    with tempfile.TemporaryDirectory() as cache:
        try:
            done = subprocess.run(
                [*command, "--cache-dir", cache], capture_output=True, text=True, timeout=limit_s, check=False
            )
        except subprocess.TimeoutExpired:
            return 0, f"skipped: the advisory service has not answered for all packages within {limit_s:g} s"
    if done.returncode == 0:
        return 0, f"{len(pins.read_text().split())} packages of {pins.name}, no known vulnerability"
    if done.stdout.strip():
        return 1, "\n".join(["known vulnerabilities:", *_findings(done.stdout)])
    last = (done.stderr.strip().splitlines() or [""])[-1]
    if _UNREACHABLE.match(last):
        return 0, f"skipped: the advisory service cannot be reached: {last}"
    return 1, f"pip-audit failed:\n{done.stderr.strip()}"


def _findings(report: str) -> list[str]:
    return [
        f"  {package['name']} {package['version']}: {' = '.join([found['id'], *found['aliases']])}, "
        + (f"mended in {', '.join(found['fix_versions'])}" if found["fix_versions"] else "not mended yet")
        for package in json.loads(report)["dependencies"]
        for found in package.get("vulns", [])
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.audit", description=__doc__.splitlines()[0])
    parser.add_argument("pins", type=Path, help="a file of name==version lines")
    parser.add_argument("--accept", action="append", default=[], metavar="ID", help="an advisory to live with")
    parser.add_argument("--service-url", default="", help="another service of OSV's kind")
    parser.add_argument(
        "--limit", type=float, default=LIMIT_S, metavar="S", help="seconds in all (default: %(default)s)"
    )
    asked = parser.parse_args()
    status, said = audit(asked.pins, asked.service_url, asked.accept, asked.limit)
    print(f"audit: {said}", file=sys.stderr if status else sys.stdout)
    sys.exit(status)


if __name__ == "__main__":
    main()
