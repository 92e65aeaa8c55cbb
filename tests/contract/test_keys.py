"""What every ApiKeys does."""

from collections.abc import Iterator

import pytest

from jobs.database import Database
from jobs.errors import KeyNotFound
from jobs.keys import ApiKeys, PostgresApiKeys
from tests.fakes.keys import FakeApiKeys

pytestmark = pytest.mark.contract


@pytest.fixture(params=["postgres", "fake"])
def keys(request: pytest.FixtureRequest) -> Iterator[ApiKeys]:
    if request.param == "fake":
        yield FakeApiKeys()
        return
    database = Database(request.getfixturevalue("database_url"))
    yield PostgresApiKeys(database)
    database.close()


def test_a_new_key_opens_the_door_of_its_tenant(keys: ApiKeys) -> None:
    assert not keys.any_keys()
    key, secret = keys.create("acme", "laptop")
    assert secret.startswith("vlmq_sk_")
    assert (key.tenant, key.name, key.revoked_at) == ("acme", "laptop", None)
    assert secret.endswith(key.hint)
    assert keys.authenticate(secret) == key
    assert keys.any_keys()


def test_secrets_differ_and_are_not_kept(keys: ApiKeys) -> None:
    secrets = {keys.create("acme", "laptop")[1] for _ in range(5)}
    assert len(secrets) == 5
    assert not any(secret in repr(keys.list()) for secret in secrets)


@pytest.mark.parametrize("secret", ["", "vlmq_sk_", "vlmq_sk_wrong", "\ud800", "a" * 10_000, "\x00"])
def test_a_wrong_secret_opens_nothing(keys: ApiKeys, secret: str) -> None:
    keys.create("acme", "laptop")
    assert keys.authenticate(secret) is None


def test_a_revoked_key_opens_nothing_and_stays_listed(keys: ApiKeys) -> None:
    key, secret = keys.create("acme", "laptop")
    revoked = keys.revoke(key.id)
    assert revoked.revoked_at is not None
    assert keys.revoke(key.id) == revoked
    assert keys.authenticate(secret) is None
    assert keys.list() == [revoked]
    assert keys.any_keys()


def test_revoke_of_an_unknown_key_raises(keys: ApiKeys) -> None:
    with pytest.raises(KeyNotFound, match="key_unknown"):
        keys.revoke("key_unknown")


def test_list_shows_one_tenant_or_all(keys: ApiKeys) -> None:
    first, _ = keys.create("acme", "laptop")
    second, _ = keys.create("other", "phone")
    assert keys.list() == [first, second]
    assert keys.list("acme") == [first]
