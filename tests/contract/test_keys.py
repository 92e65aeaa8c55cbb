"""What every ApiKeys does."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from jobs.database import Database
from jobs.errors import KeyNotFound, KeyRevoked
from jobs.keys import ApiKeys, PostgresApiKeys
from jobs.limits import UNLIMITED, KeyLimits
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


LIMITS = KeyLimits(requests_per_minute=60, tokens_per_minute=100_000, queued_jobs=5, jobs_in_flight=8)


def test_a_key_is_read_with_its_limits(keys: ApiKeys) -> None:
    key, secret = keys.create("acme", "laptop", LIMITS)
    assert key.limits == LIMITS
    assert keys.get(key.id) == keys.authenticate(secret) == key
    free, _ = keys.create("acme", "server")
    assert (free.limits, free.limits.any) == (UNLIMITED, False)


def test_limit_replaces_all_limits(keys: ApiKeys) -> None:
    key, secret = keys.create("acme", "laptop", LIMITS)
    changed = keys.limit(key.id, KeyLimits(jobs_in_flight=1))
    assert changed == replace(key, limits=KeyLimits(jobs_in_flight=1))
    assert keys.authenticate(secret) == changed


def test_after_a_rotation_both_secrets_open_the_door_until_the_overlap_ends(keys: ApiKeys) -> None:
    key, old = keys.create("acme", "laptop", LIMITS)
    rotated, new = keys.rotate(key.id, overlap_s=3600)
    assert new != old and new.endswith(rotated.hint)
    assert (rotated.id, rotated.tenant, rotated.limits) == (key.id, "acme", LIMITS)
    assert rotated.old_secret_until is not None and rotated.old_secret_until > rotated.created_at
    assert keys.authenticate(old) == keys.authenticate(new) == rotated
    assert keys.list() == [rotated]


def test_a_rotation_without_overlap_shuts_the_old_secret_out_at_once(keys: ApiKeys) -> None:
    key, old = keys.create("acme", "laptop")
    rotated, new = keys.rotate(key.id, overlap_s=0)
    assert keys.authenticate(old) is None
    assert keys.authenticate(new) == rotated


def test_of_two_rotations_the_first_secret_is_good_no_longer(keys: ApiKeys) -> None:
    key, first = keys.create("acme", "laptop")
    _, second = keys.rotate(key.id, overlap_s=3600)
    rotated, third = keys.rotate(key.id, overlap_s=3600)
    assert [keys.authenticate(secret) for secret in (first, second, third)] == [None, rotated, rotated]


def test_revoking_shuts_both_secrets_out(keys: ApiKeys) -> None:
    key, old = keys.create("acme", "laptop")
    _, new = keys.rotate(key.id, overlap_s=3600)
    keys.revoke(key.id)
    assert (keys.authenticate(old), keys.authenticate(new)) == (None, None)


def test_a_revoked_or_unknown_key_is_neither_rotated_nor_limited(keys: ApiKeys) -> None:
    key, _ = keys.create("acme", "laptop")
    keys.revoke(key.id)
    for change in (lambda key_id: keys.rotate(key_id, 0), lambda key_id: keys.limit(key_id, LIMITS)):
        with pytest.raises(KeyRevoked, match=key.id):
            change(key.id)
        with pytest.raises(KeyNotFound, match="key_unknown"):
            change("key_unknown")
    with pytest.raises(KeyNotFound, match="key_unknown"):
        keys.get("key_unknown")
