"""`vlmq keys` and `vlmq tenants` on a real database, in this process."""

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from cli.main import main
from jobs.database import Database
from jobs.keys import PostgresApiKeys
from jobs.limits import KeyLimits
from jobs.tenants import PostgresTenants

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Vlmq = Callable[..., Said]


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url, pool_size=1)
    yield opened
    opened.close()


@pytest.fixture
def keys(database: Database) -> PostgresApiKeys:
    return PostgresApiKeys(database)


@pytest.fixture
def vlmq(database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Vlmq:
    monkeypatch.setenv("VLMQ_DATABASE_URL", database_url)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["vlmq", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Said(int(ended.value.code or 0), said.out, said.err)

    return run


def created(vlmq: Vlmq, keys: PostgresApiKeys, *options: str) -> tuple[str, str]:
    secret = vlmq("keys", "create", "laptop", *options).out.strip()
    key = keys.authenticate(secret)
    assert key is not None
    return key.id, secret


def test_create_makes_a_key_with_the_limits_that_are_named(vlmq: Vlmq, keys: PostgresApiKeys) -> None:
    options = ("--requests-per-minute", "60", "--tokens-per-minute", "100000", "--jobs-in-flight", "8")
    key_id, secret = created(vlmq, keys, "--tenant", "acme", *options)
    assert keys.get(key_id).limits == KeyLimits(60, 100_000, None, 8)
    assert keys.get(key_id).tenant == "acme"
    listed = vlmq("keys", "list").out
    assert "60 requests per minute, 100000 tokens per minute, 8 jobs in flight" in listed
    assert secret not in listed


def test_limit_changes_what_is_named_and_leaves_the_rest(vlmq: Vlmq, keys: PostgresApiKeys) -> None:
    key_id, _ = created(vlmq, keys, "--requests-per-minute", "60", "--queued-jobs", "5")
    said = vlmq("keys", "limit", key_id, "--requests-per-minute", "none", "--tokens-per-minute", "9")
    assert said.out.strip() == f"{key_id}: 9 tokens per minute, 5 queued jobs"
    assert keys.get(key_id).limits == KeyLimits(None, 9, 5, None)
    assert vlmq("keys", "limit", key_id, "--tokens-per-minute", "none", "--queued-jobs", "none").out.endswith("none\n")


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", "", "²", str(2**31)])
def test_a_limit_that_is_no_number_is_refused_by_name_and_value(vlmq: Vlmq, value: str) -> None:
    said = vlmq("keys", "create", "laptop", f"--queued-jobs={value}")
    assert said.code == 2
    assert "--queued-jobs" in said.err and repr(value) in said.err
    assert "no keys" in vlmq("keys", "list").out


def test_limit_without_a_limit_says_how(vlmq: Vlmq) -> None:
    said = vlmq("keys", "limit", "key_1")
    assert (said.code, "no limit was named" in said.err) == (2, True)


def test_rotate_prints_a_new_secret_beside_which_the_old_one_goes_on(vlmq: Vlmq, keys: PostgresApiKeys) -> None:
    key_id, old = created(vlmq, keys)
    said = vlmq("keys", "rotate", key_id)
    new = said.out.strip()
    assert "24 h" in said.err
    assert [key.id for secret in (old, new) if (key := keys.authenticate(secret))] == [key_id, key_id]
    assert re.search(r"valid, old secret until \d\d-\d\d \d\d:\d\d", vlmq("keys", "list").out)
    last = vlmq("keys", "rotate", key_id, "--overlap-hours", "0").out.strip()
    assert [keys.authenticate(secret) is None for secret in (old, new, last)] == [True, True, False]


@pytest.mark.parametrize("words", [("rotate",), ("limit", "--queued-jobs", "1"), ("revoke",)])
def test_an_unknown_key_is_said_to_be_unknown(vlmq: Vlmq, words: tuple[str, ...]) -> None:
    said = vlmq("keys", words[0], "key_nobody", *words[1:])
    assert (said.code, "'key_nobody'" in said.err) == (1, True)


def test_a_revoked_key_is_not_rotated(vlmq: Vlmq, keys: PostgresApiKeys) -> None:
    key_id, _ = created(vlmq, keys)
    vlmq("keys", "revoke", key_id)
    said = vlmq("keys", "rotate", key_id)
    assert (said.code, "is revoked" in said.err, said.out) == (1, True, "")


def test_a_tenant_without_a_name_gets_no_key(vlmq: Vlmq) -> None:
    assert vlmq("keys", "create", "laptop", "--tenant", "").code == 2


def test_tenants_are_listed_with_weights_and_keys(vlmq: Vlmq, keys: PostgresApiKeys, database: Database) -> None:
    assert "no tenants" in vlmq("tenants", "list").out
    created(vlmq, keys, "--tenant", "acme")
    created(vlmq, keys, "--tenant", "acme")
    assert vlmq("tenants", "set", "other", "--weight", "2.5").out.strip() == "other has the weight 2.5"
    rows = [line.split() for line in vlmq("tenants", "list").out.splitlines()]
    assert rows == [["tenant", "weight", "keys"], ["acme", "1", "2"], ["other", "2.5", "0"]]
    assert PostgresTenants(database).get("other").weight == 2.5


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf", "1e9"])
def test_a_weight_out_of_range_is_refused_with_its_range(vlmq: Vlmq, weight: str) -> None:
    said = vlmq("tenants", "set", "acme", "--weight", weight)
    assert (said.code, "weight = " in said.err) == (2, True)
