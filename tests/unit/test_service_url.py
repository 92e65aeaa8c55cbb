"""What is shown of a URL, and what a URL over TLS says of certificates once it is a setting."""

import logging

import pytest

from jobs import connect
from jobs.service_url import shown
from jobs.settings import ServiceSettings, SettingsError, load
from worker.settings import WorkerSettings

pytestmark = pytest.mark.unit

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://vlmq:hunter2@db:5432/vlmq?sslmode=require", "postgresql://vlmq:…@db:5432/vlmq?sslmode=require"),
        ("postgresql:///vlmq?password=hunter2&host=/run", "postgresql:/vlmq?password=…&host=/run"),
        ("redis://:hunter2@cache/0", "redis://:…@cache/0"),
        ("redis://u:hunter2@[::1]:6379/0", "redis://u:…@[::1]:6379/0"),
        ("s3://id:hunter2@bucket/path", "s3://id:…@bucket/path"),
        (
            "s3://bucket/path?aws_secret_access_key=hunter2&region=eu",
            "s3://bucket/path?aws_secret_access_key=…&region=eu",
        ),
        ("unix:///run/valkey.sock?db=2", "unix:/run/valkey.sock?db=2"),
        ("nosuch://bucket", "nosuch://bucket"),
    ],
)
def test_url_is_shown_without_its_password(url: str, expected: str) -> None:
    assert shown(url) == expected


@pytest.mark.parametrize("mark", "/?#@:")
def test_password_that_cuts_the_url_in_the_wrong_place_is_not_shown(mark: str) -> None:
    for password in (f"hun{mark}ter2", f"123{mark}hunter2", f"hunter2{mark}5"):
        for user in ("", "vlmq"):
            seen = shown(f"redis://{user}:{password}@cache:6379/0")
            assert not any(piece in seen for piece in ("hun", "ter2", "123")), seen


def test_misspelt_variable_is_told_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMQ_REDIS_URI", f"redis://:{SECRET}@host")
    with pytest.raises(SettingsError, match=r"VLMQ_REDIS_URI.*did you mean VLMQ_REDIS_URL") as caught:
        load(ServiceSettings)
    assert SECRET not in str(caught.value)


def test_unknown_key_of_a_file_is_told_without_its_value() -> None:
    with pytest.raises(SettingsError, match="redis_password") as caught:
        load(ServiceSettings, redis_password=SECRET)
    assert SECRET not in str(caught.value)


def test_wrong_secret_is_told_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMQ_REDIS_URL", f"rediss://:{SECRET}@host/0?ssl_cert_reqs=perhaps")
    with pytest.raises(SettingsError, match=r"VLMQ_REDIS_URL.*perhaps: may be required, optional, none") as caught:
        load(ServiceSettings)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_settings_do_not_show_secrets_when_they_are_printed() -> None:
    settings = ServiceSettings(
        database_url=f"postgresql://u:{SECRET}@h/d",
        redis_url=f"redis://:{SECRET}@h",
        blob_url=f"s3://k:{SECRET}@b",
    )
    assert SECRET not in repr(settings) + str(settings)


def test_settings_that_contradict_each_other_are_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMQ_WORKER_VIDEO_SEGMENTS", "64")
    with pytest.raises(SettingsError, match="video_segments = 64 is more than max_video_segments = 32"):
        load(WorkerSettings)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hun/ter2@host/0",
        "redis://:hunter2@host:port/0",
        "https://:hunter2@host",
        "hunter2",
        "redis://:hunter2@host/0?socket_timeout=hunter2",
    ],
)
def test_address_of_redis_that_is_none_is_told_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match="VLMQ_REDIS_URL") as caught:
        connect.redis_client(load(ServiceSettings, redis_url=url))
    assert "hun" not in str(caught.value) and "ter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["postgresql://u:hunter2@host:port/d", "hunter2"])
def test_address_of_the_database_that_is_none_is_told_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match="VLMQ_DATABASE_URL") as caught:
        connect.database(ServiceSettings(database_url=url))
    assert "hun" not in str(caught.value) and "ter2" not in str(caught.value)


def test_address_of_blobs_that_is_none_is_told_without_its_password() -> None:
    with pytest.raises(SettingsError, match="VLMQ_BLOB_URL") as caught:
        connect.blobs(ServiceSettings(blob_url=f"nosuch://key:{SECRET}@bucket"))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ("rediss://host/0", "rediss://host/0?ssl_cert_reqs=required"),
        ("rediss://host/0?db=3", "rediss://host/3?ssl_cert_reqs=required"),
        ("rediss://host/0?ssl_cert_reqs=none", "rediss://host/0?ssl_cert_reqs=none"),
        ("redis://host/0", "redis://host/0"),
        ("unix:///run/valkey.sock", "unix:///run/valkey.sock"),
    ],
)
def test_url_over_tls_that_says_nothing_requires_certificates(given: str, becomes: str) -> None:
    assert ServiceSettings(redis_url=given).redis_url == becomes


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ("redis://host", "redis://host"),
        ("redis://host/0?db=3", "redis://host/3"),
        ("redis://host?db=3", "redis://host/3"),
        ("redis://host/3/", "redis://host/3"),
        ("redis://u:a;b@[::1]:6379/3", "redis://u:a%3Bb@[::1]:6379/3"),
        ("unix://:a;b@/run/valkey.sock?db=3", "unix://:a%3Bb@/run/valkey.sock?db=3"),
        (
            "rediss://host?ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=false",
            "rediss://host?ssl_ca_certs=%2Fetc%2Fca.pem&ssl_check_hostname=false&ssl_cert_reqs=required",
        ),
    ],
)
def test_address_of_redis_has_one_spelling_which_stays(given: str, becomes: str) -> None:
    assert ServiceSettings(redis_url=given).redis_url == becomes
    assert ServiceSettings(redis_url=becomes).redis_url == becomes


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://host?password=hunter2", "has password behind its ?: it is written in front, as in redis://user:pass"),
        ("unix:///run/s?username=hunter2", "has username behind its ?: it is written in front, as in unix://user:pass"),
        ("redis://host?socket_timeout=hunter2", "has socket_timeout behind its ?: with redis:// may be db"),
        ("redis://host?ssl_cert_reqs=none", "has ssl_cert_reqs behind its ?: with redis:// may be db"),
        ("rediss://host?protocol=3", "has protocol behind its ?: with rediss:// may be db, ssl_cert_reqs"),
        ("rediss://host?ssl_cert_reqs=none&ssl_cert_reqs=required", "has ssl_cert_reqs twice behind its ?"),
        ("rediss://host?ssl_check_hostname=0", "has ssl_check_hostname=0: may be true, false"),
        ("redis://host/first", "names the database 'first', which is no number, as in redis://host/1"),
        ("redis://host/0?db=-1", "names the database '-1', which is no number"),
        ("unix:///run/s?db=x", "names the database 'x', which is no number"),
        ("unix://run/valkey.sock", "names no socket: its path begins with a third /"),
        ("unix://", "names no socket"),
        ("redis://u:123?hunter2@host", "an @ is in the wrong place; in a password / ? # @ :"),
    ],
)
def test_address_that_the_two_clients_of_redis_read_differently_is_refused_by_name(url: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(ServiceSettings, redis_url=url)
    assert "VLMQ_REDIS_URL" in str(caught.value) and said in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("off", ["ssl_cert_reqs=none", "ssl_check_hostname=false"])
def test_check_of_certificates_that_is_turned_off_is_told_in_the_log(
    off: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        connect.redis_client(ServiceSettings(redis_url=f"rediss://:{SECRET}@host/0?{off}")).close()
    assert off in caplog.text and "VLMQ_REDIS_URL" in caplog.text
    assert SECRET not in caplog.text
    caplog.clear()
    connect.redis_client(ServiceSettings(redis_url="rediss://host/0")).close()
    assert not caplog.records
