"""The suite again, under the older official client."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cli.settings import ROOT
from tests.clients.live import Live
from tests.clients.suite.lacking import LACKING

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

SUITE = Path(__file__).parent / "suite"
PINNED = Path(__file__).parent / "openai-1.txt"
FOLDER = Path(sys.prefix) / "clients" / "openai-1"


def test_older_client_passes_the_same_suite(live: Live, tmp_path: Path) -> None:
    assert FOLDER.is_dir(), f"{FOLDER} is missing; `make setup` installs it"
    version = dict(re.findall(r"^(\w+)==(\S+)", PINNED.read_text(), re.MULTILINE))["openai"]
    told = live.environment() | {"PYTHONPATH": str(FOLDER), "VLMQ_TEST_OPENAI": version}
    suite = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--basetemp={tmp_path / 'suite'}",
            str(SUITE),
        ],
        cwd=ROOT,
        env=os.environ | told,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert suite.returncode == 0, suite.stdout[-20000:] + suite.stderr[-2000:]
    skipped = set(re.findall(rf"openai {re.escape(version)} lacks (\S+)", suite.stdout))
    assert skipped == LACKING[version]
