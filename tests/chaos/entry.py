"""What the commands of this package share: options, an orderly end on SIGTERM, the report, the exit status."""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def options(doc: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="of the workers' engines: cpu, cuda or cuda:<n>")
    parser.add_argument("--report", type=Path, help="a file for what came of it, as JSON")
    return parser


@dataclass
class Report:
    """`findings` decide over the exit status; `values` are what docs/reliability.md is made of."""

    kind: str
    findings: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)


@contextlib.contextmanager
def reported(report: Report, asked: argparse.Namespace) -> Iterator[Path]:
    """A folder for the logs of all processes, kept when there are findings; afterwards the findings are printed and
    the report is written. What breaks the harness itself is a finding."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    folder = Path(tempfile.mkdtemp(prefix=f"vlmq-{report.kind}-"))
    began, load = time.monotonic(), os.getloadavg()[0]
    try:
        yield folder
    except Exception as exc:  # noqa: BLE001  the edge of a command
        traceback.print_exc()
        report.findings.append(f"the harness broke: {type(exc).__name__}: {exc}")
    except BaseException as exc:
        report.findings.append(f"broken off: {type(exc).__name__} {exc}")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
        machine = {"cores": os.cpu_count(), "load_before": load, "load_after": os.getloadavg()[0]}
        told = {"seed": asked.seed, "device": asked.device, "took_s": time.monotonic() - began, "machine": machine}
        _conclude(report, told, asked.report, folder)


def _conclude(report: Report, told: dict[str, Any], file: Path | None, folder: Path) -> None:
    for finding in report.findings:
        print(f"FOUND {finding}", flush=True)
    if report.findings:
        print(f"{len(report.findings)} findings; the logs of all processes are in {folder}", flush=True)
    else:
        print("the audit is clean", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
    if file is not None:
        told = {"kind": report.kind, **told, "findings": report.findings, **report.values}
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(file.name + ".new")
        unfinished.write_text(json.dumps(told, indent=1) + "\n")
        unfinished.replace(file)
