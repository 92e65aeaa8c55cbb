"""The audit of packages against an advisory service on this machine: each of its outcomes, by the real pip-audit."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cli.settings import ROOT

pytestmark = pytest.mark.integration

PINS = "celery==5.7.0\nleaky_pkg==1.0\npillow==13.0.0\n"
ADVISORY = {
    "id": "PYSEC-2026-1",
    "aliases": ["CVE-2026-0001"],
    "summary": "It leaks.",
    "affected": [
        {
            "package": {"name": "leaky-pkg", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
        }
    ],
}


class Service(BaseHTTPRequestHandler):
    """Knows one advisory. `status` and `pause_s` are those of every answer."""

    asked: list[dict[str, object]]
    status: int
    pause_s: float

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append(question)
        time.sleep(self.pause_s)
        known = question == {"package": {"name": "leaky-pkg", "ecosystem": "PyPI"}, "version": "1.0"}
        body = json.dumps({"vulns": [ADVISORY]} if known else {}).encode()
        # Whoever asked may have given up.
        with suppress(OSError):
            self.send_response(self.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def service(status: int = 200, pause_s: float = 0.0) -> Iterator[tuple[str, list[dict[str, object]]]]:
    asked: list[dict[str, object]] = []
    kind = type("Told", (Service,), {"asked": asked, "status": status, "pause_s": pause_s})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", asked
    server.shutdown()
    server.server_close()
    thread.join()


def audited(folder: Path, pins: str, url: str, *more: str) -> tuple[int, str]:
    file = folder / "pins.txt"
    file.write_text(pins)
    done = subprocess.run(
        [sys.executable, "-m", "tools.audit", str(file), "--service-url", url, *more],
        cwd=ROOT,
        env=os.environ | {"no_proxy": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_package_with_an_advisory_fails_the_audit_by_name(tmp_path: Path) -> None:
    with service() as (url, asked):
        status, said = audited(tmp_path, PINS, url)
    assert status == 1
    assert "leaky-pkg 1.0: PYSEC-2026-1 = CVE-2026-0001, mended in 1.1" in said
    assert "celery" not in said and "pillow" not in said
    assert len(asked) == 3


def test_advisory_that_is_accepted_fails_nothing(tmp_path: Path) -> None:
    with service() as (url, _):
        assert audited(tmp_path, PINS, url, "--accept", "CVE-2026-0001")[0] == 0


def test_packages_without_advisories_pass_and_are_counted(tmp_path: Path) -> None:
    with service() as (url, _):
        status, said = audited(tmp_path, "celery==5.7.0\npillow==13.0.0\n", url)
    assert (status, said.strip()) == (0, "audit: 2 packages of pins.txt, no known vulnerability")


def test_every_pin_of_the_project_is_asked_about(tmp_path: Path) -> None:
    pins = (ROOT / "constraints.txt").read_text()
    with service() as (url, asked):
        status, said = audited(tmp_path, pins, url)
    assert status == 0, said
    assert len(asked) == len(pins.split()) > 100


def test_service_that_nobody_runs_is_told_of_and_fails_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    status, said = audited(tmp_path, PINS, f"http://127.0.0.1:{port}/")
    assert status == 0
    assert said.startswith("audit: skipped: the advisory service cannot be reached")


def test_service_that_is_ill_is_told_of_and_fails_nothing(tmp_path: Path) -> None:
    with service(status=503) as (url, _):
        status, said = audited(tmp_path, PINS, url)
    assert (status, said.partition(":")[2].partition(":")[0]) == (0, " skipped")


def test_service_that_is_slow_is_given_up(tmp_path: Path) -> None:
    with service(pause_s=4) as (url, _):
        status, said = audited(tmp_path, PINS, url, "--limit", "3")
    assert (status, said) == (
        0,
        "audit: skipped: the advisory service has not answered for all packages within 3 s\n",
    )


def test_pins_that_cannot_be_read_fail_the_audit(tmp_path: Path) -> None:
    with service() as (url, _):
        status, said = audited(tmp_path, "celery>=5\n", url)
    assert status == 1
    assert "pip-audit failed" in said and "celery" in said
