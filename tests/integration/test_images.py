"""Each image's programs start with the packages that its image has."""

import subprocess
import sys
import tomllib
from typing import Any

import pytest
import yaml

from cli.settings import ROOT, environment

pytestmark = pytest.mark.integration

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
MODULES = {"pillow": "PIL", "uvicorn[standard]": "uvicorn", "prometheus-client": "prometheus_client"}
MISSING = {
    "api": set(EXTRAS["worker"]) - set(EXTRAS["cli"]) - set(EXTRAS["api"]),
    "worker": set(EXTRAS["api"]) - set(EXTRAS["worker"]),
}
COMMANDS = [
    (service["build"]["target"], name, service["command"]) for name, service in SERVICES.items() if "build" in service
]


@pytest.mark.parametrize(("image", "name", "command"), COMMANDS, ids=[name for _, name, _ in COMMANDS])
def test_program_imports_without_what_its_image_lacks(image: str, name: str, command: list[str]) -> None:
    module = command[command.index("-m" if "-m" in command else "-A") + 1]
    blocked = sorted(MODULES.get(package, package) for package in MISSING[image])
    entry = f"{module}.__main__" if module in ("api", "worker", "tools.tiny_model") else module
    source = f"import sys\nfor name in {blocked}: sys.modules[name] = None\nimport {entry}"
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{name}: {done.stderr}"
