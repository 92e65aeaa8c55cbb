"""docs/api.md does what it says: its commands and its Python run against the live server, and what it shows has the
shape of what comes."""

import contextlib
import io
import json
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from api.app import create_app
from api.settings import ApiSettings
from cli.settings import ROOT
from jobs.settings import ServiceSettings
from tests.acceptance.system import MODEL
from tests.clients.live import Live
from tests.fixtures.receiver import Receiver, receiving

pytestmark = pytest.mark.acceptance

PAGE = (ROOT / "docs" / "api.md").read_text()
HEAD, *PARTS = re.split(r"^## (?=[A-Z]+ /)", PAGE, flags=re.MULTILINE)
SECTIONS = dict(part.split("\n", 1) for part in PARTS)
VARIABLES = {
    "job_": "JOB",
    "resp_": "RESPONSE",
    "file-": "FILE",
    "batch_": "BATCH",
    "we_": "ENDPOINT",
    "whd_": "DELIVERY",
    "chatcmpl-": "ANSWER",
}
"""Which variable of the page stands for an id, by the id's beginning."""
REST = "…"


def blocks(section: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", section, re.DOTALL | re.MULTILINE)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as it:
        yield it


def here(text: str, live: Live, receiver: Receiver) -> str:
    """With the addresses and the model of this test."""
    for shown, real in (
        ("http://127.0.0.1:8700", live.url),
        ("https://example.com/hook", receiver.url),
        ("vlmq-demo", MODEL),
    ):
        text = text.replace(shown, real)
    return text


def test_page_has_a_section_for_every_route_and_no_other() -> None:
    paths = create_app(ApiSettings(), ServiceSettings()).openapi()["paths"]
    assert SECTIONS.keys() == {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


@pytest.mark.parametrize("route", SECTIONS)
def test_every_section_has_a_command_and_python(route: str) -> None:
    method, path = route.split()
    (command,), (code,) = blocks(SECTIONS[route], "console"), blocks(SECTIONS[route], "python")
    assert "curl " in command and code
    own = command.rpartition("$ curl ")[2]
    assert re.sub(r"\{\w+\}", "", path).split("/")[-1] in own
    sends = " -d '" in own or " -F " in own
    assert f"-X {method} " in own or method == ("POST" if sends else "GET")


def test_commands_run_and_answer_in_the_shape_that_is_shown(live: Live, receiver: Receiver) -> None:
    known = {"VLMQ": live.url, "AUTH": f"authorization: Bearer {live.key}"}
    for route, section in SECTIONS.items():
        (command,) = blocks(section, "console")
        ran = subprocess.run(
            ["bash", "-euc", here(re.sub(r"^\$ ", "", command, flags=re.MULTILINE), live, receiver)],
            cwd=ROOT,
            env=os.environ | known,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert ran.returncode == 0, f"{route}: {ran.stderr}"
        for shown in blocks(section, "json"):
            came = json.loads(ran.stdout)
            assert_alike(route, parsed(here(shown, live, receiver)), came)
            remember(known, came)


def remember(known: dict[str, str], came: dict[str, Any]) -> None:
    one = came if "id" in came else next(iter(came.get("data", [])), None)
    for beginning, name in VARIABLES.items():
        if isinstance(one, dict) and str(one["id"]).startswith(beginning) and (one is came or name not in known):
            known[name] = one["id"]


def parsed(shown: str) -> Any:
    """JSON in which `…` behind an object's fields stands for more of them."""
    return json.loads(re.sub(rf",\s*{REST}\}}", f', "{REST}": 0}}', shown))


def assert_alike(where: str, shown: Any, came: Any) -> None:
    """The same fields, of the same types; null is like anything."""
    if shown is None or came is None:
        return
    assert type(shown) is type(came), f"{where}: {came!r} is not like {shown!r}"
    if isinstance(shown, dict):
        whole = REST not in shown
        missing = shown.keys() - came.keys() - {REST}
        assert not missing and (not whole or shown.keys() == came.keys()), f"{where}: {sorted(came)}"
        for name in shown.keys() - {REST}:
            assert_alike(f"{where}.{name}", shown[name], came[name])
    elif isinstance(shown, list) and shown:
        assert came, f"{where}: nothing came"
        assert_alike(f"{where}[0]", shown[0], came[0])


def test_python_runs_from_top_to_bottom(live: Live, receiver: Receiver) -> None:
    names: dict[str, Any] = {"KEY": live.key}
    with contextlib.chdir(ROOT), contextlib.redirect_stdout(io.StringIO()), contextlib.ExitStack() as stack:
        for section in (HEAD, *SECTIONS.values()):
            for code in blocks(section, "python"):
                exec(compile(here(code, live, receiver), "docs/api.md", "exec"), names)
                if section is HEAD:
                    stack.callback(names["client"].close)
                    stack.callback(names["http"].close)
