"""What comes out of the broker is a bell or nothing: a task's name and the id of what is due, however it was put there.

Celery believes its messages: one of a wrong shape ends its worker. So each is read strictly here, and written anew from
its id alone before Celery sees it; the others are dropped. Knows no jobs.
"""

import base64
import binascii
import json
import logging
import re
import uuid
from queue import Empty
from typing import Any

import msgspec
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport.redis import Channel, Transport

from jobs.queue import TASK_RUN_JOB, queue_name
from jobs.webhooks.bells import QUEUE, TASK_DELIVER

log = logging.getLogger(__name__)

TASKS = frozenset({TASK_RUN_JOB, TASK_DELIVER})
_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_EMBED: dict[str, None] = dict.fromkeys(("callbacks", "errbacks", "chain", "chord"))
_PLAIN = {
    "lang": "py",
    "retries": 0,
    "timelimit": [None, None],
    "kwargsrepr": "{}",
    "origin": "",
    "ignore_result": True,
}
_EMPTY = dict.fromkeys(("shadow", "eta", "expires", "group", "parent_id"))


class NoBell(ValueError):
    """A message that is none of ours; it says why."""


class _Headers(msgspec.Struct):
    task: str
    id: str


class _Message(msgspec.Struct):
    body: str
    headers: _Headers
    kind: str = msgspec.field(name="content-type")


def bell_of(message: Any, queue: str) -> dict[str, Any]:
    """A message of Celery's protocol 2 with nothing of the given one but its task and its two ids. Raises NoBell."""
    try:
        given = msgspec.convert(message, _Message)
        if given.kind != "application/json":
            raise NoBell(f"content type {given.kind[:60]!r}")
        (subject,), *_ = msgspec.json.decode(
            base64.b64decode(given.body, validate=True), type=tuple[tuple[str], Any, Any]
        )
        number = str(uuid.UUID(given.headers.id))
    except (msgspec.MsgspecError, binascii.Error, ValueError, RecursionError) as exc:
        raise NoBell(f"{exc!s:.200}") from exc
    if given.headers.task not in TASKS:
        raise NoBell(f"task {given.headers.task[:60]!r}")
    if _ID.fullmatch(subject) is None:
        raise NoBell(f"id {subject[:60]!r}")
    return _written(given.headers.task, number, subject, queue)


def _written(task: str, number: str, subject: str, queue: str) -> dict[str, Any]:
    body = base64.b64encode(json.dumps([[subject], {}, _EMBED]).encode()).decode()
    headers = {"task": task, "id": number, "root_id": number, "argsrepr": f"({subject!r},)", **_PLAIN, **_EMPTY}
    properties = {
        "correlation_id": number,
        "reply_to": "",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": queue},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": str(uuid.uuid4()),
    }
    return {
        "body": body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": properties,
    }


class BellChannel(Channel):
    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]  # not in the stubs
        except (ValueError, RecursionError) as exc:
            # It is out of the queue already, so dropping it needs no more.
            log.warning("a message that is no bell was dropped: %r", f"{exc!s:.200}", extra={"action": "no_bell"})
            raise Empty from exc


class BellTransport(Transport):
    Channel = BellChannel

    def _deliver(self, message: Any, queue: str | None) -> None:
        # What comes by broadcast are the events that Flower reads; workers listen to none.
        rings = queue is not None and (queue == QUEUE or queue.startswith(queue_name("")))
        super()._deliver(bell_of(message, str(queue)) if rings else message, queue)


def reading_strictly() -> dict[str, Any]:
    """No setting, but the last moment before kombu looks for a transport by the scheme of a URL: from now on this
    process finds BellTransport."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{BellTransport.__name__}"
    return {}
