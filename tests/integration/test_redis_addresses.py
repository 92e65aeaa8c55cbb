"""Both clients of Redis, ours and Celery's, reach the same database of a real server by every form of its address."""

import socket
from collections.abc import Iterator
from urllib.parse import quote

import pytest
import redis

from cli.valkey import EmbeddedValkey
from jobs import connect
from jobs.queue import producer, queue_name
from jobs.settings import ServiceSettings

pytestmark = pytest.mark.integration

PASSWORD = "p@ss;w/rd %?#"
FORMS = {
    "unix": ("unix://{user}{socket}", 0),
    "unix, database": ("unix://{user}{socket}?db=2", 2),
    "tcp": ("redis://{user}127.0.0.1:{port}", 0),
    "tcp, path": ("redis://{user}127.0.0.1:{port}/2", 2),
    "tcp, option": ("redis://{user}127.0.0.1:{port}?db=2", 2),
    "tcp, both": ("redis://{user}127.0.0.1:{port}/1?db=2", 2),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    folder = tmp_path_factory.mktemp("a;b@c d%20")
    made = EmbeddedValkey(folder, folder / "run")
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def port(server: EmbeddedValkey) -> int:
    """Of the server on loopback, which from here on asks for a password, also of a user of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = int(free.getsockname()[1])
    with redis.Redis.from_url(server.url) as client:
        client.acl_setuser("u:1", enabled=True, passwords=[f"+{PASSWORD}"], keys="*", channels="*", commands=["+@all"])
        client.config_set("bind", "127.0.0.1")
        client.config_set("port", number)
        client.config_set("requirepass", PASSWORD)
    return number


@pytest.mark.parametrize("user", ["", "u:1"])
@pytest.mark.parametrize(("form", "database"), FORMS.values(), ids=FORMS.keys())
def test_bell_is_rung_counted_and_taken_with_a_password(
    server: EmbeddedValkey, port: int, form: str, database: int, user: str, redis_prefix: str
) -> None:
    told = f"{quote(user, safe='')}:{quote(PASSWORD, safe='')}@"
    url = form.format(user=told, socket=server.url.removeprefix("unix://"), port=port)
    settings = ServiceSettings(redis_url=url, redis_prefix=redis_prefix)
    queue = connect.queue(settings)
    assert queue.ring("tiny", "job_1")
    assert queue.waiting("tiny") == 1
    with redis.Redis(port=port, password=PASSWORD, db=database) as client:
        assert client.llen(redis_prefix + queue_name("tiny")) == 1
    with producer(settings) as app, app.connection() as taking:
        assert taking.channel().basic_get(queue_name("tiny")) is not None
        assert PASSWORD not in taking.as_uri() and quote(PASSWORD, safe="") not in taking.as_uri()
        assert queue.waiting("tiny") == 0
    queue.close()


def test_wrong_password_rings_nothing(server: EmbeddedValkey, port: int, redis_prefix: str) -> None:
    url = f"unix://:wrong@{server.url.removeprefix('unix://')}"
    queue = connect.queue(ServiceSettings(redis_url=url, redis_prefix=redis_prefix))
    assert queue.ring("tiny", "job_1") is False
    assert queue.waiting("tiny") is None
    queue.close()
