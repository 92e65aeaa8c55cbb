"""Messages that somebody else put into Redis: read strictly, dropped when they are no bells; nobody dies of them."""

import base64
import json
import pickle
import uuid
from pathlib import Path
from typing import Any

import pytest
import redis

from jobs import connect
from jobs.control import control_channel
from jobs.job import Origin, Webhook
from jobs.settings import ServiceSettings
from jobs.webhooks.bells import QUEUE, TASK_DELIVER
from tests.acceptance.system import eventually, system
from tests.fixtures.jobs import new_job
from tests.fixtures.receiver import receiving
from worker.bells import NoBell, bell_of
from worker.control_listener import ControlListener

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


class Evil:
    def __reduce__(self) -> Any:
        return print, ("pickle was read",)


def message(body: bytes | None = None, subject: Any = "del_unknown", headers: Any = None, **top: Any) -> dict[str, Any]:
    number = str(uuid.uuid4())
    plain = json.dumps([[subject], {}, dict.fromkeys(("callbacks", "errbacks", "chain", "chord"))]).encode()
    properties = {
        "correlation_id": number,
        "delivery_info": {"exchange": "", "routing_key": QUEUE},
        "delivery_tag": number,
        "body_encoding": "base64",
    }
    return {
        "body": base64.b64encode(plain if body is None else body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": TASK_DELIVER, "id": number, **(headers or {})},
        "properties": properties,
    } | top


FORGED: dict[str, Any] = {
    "pickle": message(pickle.dumps(Evil()), **{"content-type": "application/x-python-serialize"}),
    "pickle that says json": message(pickle.dumps(Evil())),
    "yaml": message(b"!!python/object/apply:os.system [x]", **{"content-type": "application/x-yaml"}),
    "no content type": message(**{"content-type": None}),
    "another task": message(headers={"task": "os.system"}),
    "a task of Celery's": message(headers={"task": "celery.starmap"}),
    "a task that is a list": message(headers={"task": ["x"]}),
    "an id that is an object": message(headers={"id": {}}),
    "a number": message(subject=5),
    "an object": message(subject={"a": 1}),
    "a line break": message(subject="del_1\r\n2026-01-01 INFO forged"),
    "a path": message(subject="../../etc/passwd"),
    "too long": message(subject="x" * 1_000_000),
    "two arguments": message(json.dumps([["a", "b"], {}, {}]).encode()),
    "no list": message(b"{}"),
    "too short": message(b'[["x"]]'),
    "too deep": message(b"[" * 100_000),
    "no JSON": message(b"\xff\xfe"),
    "no base64": message() | {"body": "!!!"},
    "no headers": message() | {"headers": None},
    "nothing": {},
    "null": None,
    "a text": "x",
}
TRASH = (b"", b"not json", b"\xff\xfe\x00", b"[" * 100_000, b"5")


@pytest.mark.parametrize("name", FORGED)
def test_message_that_is_no_bell_is_refused(name: str) -> None:
    with pytest.raises(NoBell):
        bell_of(FORGED[name], QUEUE)


def test_bell_keeps_nothing_of_its_message_but_task_and_ids() -> None:
    extras = {"eta": "9999-12-31T00:00:00", "timelimit": 5, "stamps": 5, "retries": "x", "argsrepr": "a\r\nb"}
    given = message(subject="job_1", headers=extras, properties=None)
    written = bell_of(given, "jobs.m")
    assert json.loads(base64.b64decode(written["body"]))[0] == ["job_1"]
    assert written["headers"]["eta"] is None and written["headers"]["retries"] == 0
    assert "stamps" not in written["headers"] and "\r" not in json.dumps(written)
    assert written["properties"]["delivery_info"] == {"exchange": "", "routing_key": "jobs.m"}


def test_deliverer_outlives_forged_messages_and_delivers(service_settings: ServiceSettings, tmp_path: Path) -> None:
    client = redis.Redis.from_url(service_settings.redis_url)
    queue = service_settings.redis_prefix + QUEUE
    with (
        receiving() as receiver,
        system(service_settings, tmp_path, VLMQ_WEBHOOKS_ALLOWED_HOSTS=receiver.place) as running,
    ):
        deliverer = running.start_deliveries()
        for forged in (*TRASH, *(json.dumps(one).encode() for one in FORGED.values())):
            client.lpush(queue, forged)
        eventually("all were read", lambda: not client.llen(queue))
        database = connect.database(service_settings, pool_size=1)
        store = connect.job_store(database)
        job_id = store.insert(new_job(origin=Origin(webhook=Webhook(receiver.url)))).id
        store.cancel(job_id)
        assert not receiver.received
        client.lpush(queue, json.dumps(message(subject="del_unknown")))
        eventually("the bell is answered", lambda: len(receiver.received) == 1)
        assert deliverer.terminate() == 0
        database.close()
    client.close()


def test_worker_hears_what_to_stop_after_words_that_are_no_text(service_settings: ServiceSettings) -> None:
    client = connect.redis_client(service_settings)
    channel = control_channel(service_settings.redis_prefix, "w")
    heard: list[str] = []
    listener = ControlListener(client, channel, heard.append)
    listener.start()
    eventually("it listens", lambda: client.publish(channel, b"\xff\xfe"))
    client.publish(channel, "job_1")
    eventually("it heard", lambda: "job_1" in heard)
    listener.close()
    client.close()
