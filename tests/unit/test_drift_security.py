"""The security page: every threat names tests that there are, and configuration in the repository holds no secret."""

import re
import tomllib
from pathlib import Path

import pytest

from api.settings import ApiSettings
from cli.settings import ROOT, CommandSettings
from jobs.settings import CONF, FileSettings, ServiceSettings

pytestmark = pytest.mark.unit

PAGE = (ROOT / "docs" / "security.md").read_text()
ROWS = re.findall(r"^\| (.*?) \| (.*) \| (.*) \|$", PAGE, re.MULTILINE)[1:]
FILES = {file.name: file for file in Path(ROOT / "tests").rglob("test_*.py")}
TESTS = {name for file in FILES.values() for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)}
SECRETS: dict[type[FileSettings], set[str]] = {
    ServiceSettings: {"database_url", "redis_url"},
    ApiSettings: {"metrics_token"},
    CommandSettings: {"key"},
}


@pytest.mark.parametrize(("threat", "defence", "tests"), ROWS, ids=[row[0][:60] for row in ROWS])
def test_every_threat_has_a_defence_and_tests_that_there_are(threat: str, defence: str, tests: str) -> None:
    named = re.findall(r"`(\w+(?:\.py)?)`", tests)
    assert defence and named, threat
    assert [name for name in named if name not in FILES and name not in TESTS] == []


@pytest.mark.parametrize("kind", SECRETS, ids=lambda kind: kind.__name__)
def test_secrets_have_no_default_and_no_place_in_files_and_errors(kind: type[FileSettings]) -> None:
    table = tomllib.loads((CONF / "server.toml").read_text()).get(kind.table, {})
    assert not SECRETS[kind] & table.keys()
    for name in SECRETS[kind]:
        field = kind.model_fields[name]
        assert (field.default, field.repr) == ("", False)


def test_every_setting_that_sounds_like_a_secret_is_treated_as_one() -> None:
    for kind in SECRETS:
        sounding = {name for name in kind.model_fields if re.search(r"(^|_)(key|token|secret|password)$", name)}
        assert sounding <= SECRETS[kind]
