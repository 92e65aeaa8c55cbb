"""Settings that both sides need, and what is built from them."""

from pathlib import Path

import pytest

from jobs import connect
from jobs.blobs import FolderBlobs
from jobs.queue import broker_url, celery_config, queue_name
from jobs.settings import FileSettings, ServiceSettings, SettingsError, load
from worker.settings import WorkerSettings

pytestmark = pytest.mark.unit


def test_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMQ_MODELS", "one, two")
    monkeypatch.setenv("VLMQ_LEASE_S", "7.5")
    settings = load(ServiceSettings)
    assert (settings.models, settings.lease_s) == (("one", "two"), 7.5)


@pytest.mark.parametrize(
    ("key", "value"),
    [("VLMQ_LEASE_S", "soon"), ("VLMQ_MAX_ATTEMPTS", "0"), ("VLMQ_STREAM_TTL_S", "-1"), ("VLMQ_MODELS", "")],
)
def test_a_wrong_value_is_refused_naming_key_and_value(monkeypatch: pytest.MonkeyPatch, key: str, value: str) -> None:
    monkeypatch.setenv(key, value)
    with pytest.raises(SettingsError) as caught:
        load(ServiceSettings)
    assert key in str(caught.value)
    assert repr(value) in str(caught.value) or value == ""


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(SettingsError, match="lease"):
        load(ServiceSettings, lease=3)


@pytest.mark.parametrize(
    ("kind", "name", "hint"),
    [
        (ServiceSettings, "VLMQ_LEASES_S", "did you mean VLMQ_LEASE_S"),
        (WorkerSettings, "VLMQ_WORKER_GRACE", "did you mean VLMQ_WORKER_GRACE_S"),
        (WorkerSettings, "VLMQ_WORKER_COLOUR", "there are: VLMQ_WORKER_MODEL"),
    ],
)
def test_an_unknown_variable_is_refused_with_what_it_may_have_meant(
    monkeypatch: pytest.MonkeyPatch, kind: type[FileSettings], name: str, hint: str
) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(SettingsError, match=hint) as caught:
        load(kind)
    assert name in str(caught.value)


def test_variables_of_other_tables_and_of_compose_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMQ_WORKER_MODEL", "vlmq-tiny")
    monkeypatch.setenv("VLMQ_FLOWER_PASSWORD", "secret")
    load(ServiceSettings)


def test_without_addresses_the_error_names_the_setting() -> None:
    settings = ServiceSettings(database_url="", redis_url="")
    with pytest.raises(SettingsError, match="VLMQ_DATABASE_URL"):
        connect.database(settings)
    for build in (connect.redis_client, connect.queue):
        with pytest.raises(SettingsError, match="VLMQ_REDIS_URL"):
            build(settings)


def test_a_redis_address_of_another_kind_is_refused() -> None:
    with pytest.raises(SettingsError, match="VLMQ_REDIS_URL"):
        load(ServiceSettings, redis_url="http://host")


def test_a_blob_store_that_is_not_installed_is_refused() -> None:
    with pytest.raises(SettingsError, match="VLMQ_BLOB_URL"):
        connect.blobs(ServiceSettings(blob_url="nosuch://bucket"))


@pytest.mark.parametrize("url", ["blobs", "file:///{}/blobs"])
def test_a_folder_of_blobs_may_be_a_path_or_a_url(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blobs = connect.blobs(ServiceSettings(blob_url=url.format(str(tmp_path).lstrip("/"))))
    assert isinstance(blobs, FolderBlobs)
    digest = blobs.put(b"x")
    assert (tmp_path / "blobs" / digest[:2] / digest).read_bytes() == b"x"


@pytest.mark.parametrize(
    ("redis_url", "broker"),
    [
        ("redis://host:6379/1", "redis://host:6379/1"),
        ("rediss://user:secret@host/0", "rediss://user:secret@host/0"),
        ("unix:///run/valkey.sock", "redis+socket:///run/valkey.sock"),
        ("unix:///run/valkey.sock?db=2", "redis+socket:///run/valkey.sock?virtual_host=2"),
        ("unix://u:p%40@/run/valkey.sock", "redis+socket://u:p%40@/run/valkey.sock"),
    ],
)
def test_the_broker_has_the_address_of_redis_in_celerys_spelling(redis_url: str, broker: str) -> None:
    assert broker_url(redis_url) == broker


def test_messages_are_json_acknowledged_early_and_never_fetched_ahead() -> None:
    config = celery_config(ServiceSettings(redis_url="redis://host", redis_prefix="p:"))
    assert config["accept_content"] == ["json"]
    assert config["task_acks_late"] is False
    assert config["worker_disable_prefetch"] is True
    assert config["result_backend"] is None
    assert config["broker_transport_options"]["global_keyprefix"] == "p:"
    assert config["broker_transport_options"]["socket_timeout"] == 10
    assert queue_name("tiny") == "jobs.tiny"
