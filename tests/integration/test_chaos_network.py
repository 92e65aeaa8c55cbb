"""The network of the chaos runs' far host loses what it is told to lose, in one direction, and nothing else."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from tests.chaos.namespace import Namespace, NoNamespace
from tests.chaos.wire import Direction
from tests.fixtures.eventually import eventually

pytestmark = pytest.mark.integration

LOST_AFTER_S = 2


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    try:
        made = Namespace()
    except NoNamespace as exc:
        pytest.skip(f"needs a network namespace: {exc}")
    with contextlib.closing(made):
        yield made


@pytest.fixture
def ends(namespace: Namespace) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The client inside, the service here."""
    with socket.socket() as listener, namespace.inside(socket.socket) as client:
        listener.bind((namespace.near, 0))
        listener.listen()
        client.connect(listener.getsockname())
        service, _ = listener.accept()
        with service:
            yield client, service


def arrives(source: socket.socket, sink: socket.socket, what: bytes, within_s: float = 60) -> bool:
    source.send(what)
    sink.settimeout(within_s)
    try:
        return sink.recv(len(what)) == what
    except TimeoutError:
        return False


@pytest.mark.parametrize("cut", list(Direction))
def test_one_direction_is_lost_and_arrives_after_the_healing(
    namespace: Namespace, ends: tuple[socket.socket, socket.socket], cut: Direction
) -> None:
    client, service = ends
    out, back = (client, service), (service, client)
    lost, kept = (out, back) if cut is Direction.OUT else (back, out)
    assert arrives(*lost, b"before") and arrives(*kept, b"before")
    namespace.cut(cut)
    assert not arrives(*lost, b"meanwhile", LOST_AFTER_S)
    assert arrives(*kept, b"meanwhile")
    namespace.heal()
    lost[1].settimeout(60)
    assert lost[1].recv(100) == b"meanwhile"
    assert arrives(*lost, b"after") and arrives(*kept, b"after")


def test_nothing_is_reachable_from_inside_but_the_services(namespace: Namespace) -> None:
    with socket.socket() as elsewhere, namespace.inside(socket.socket) as client:
        elsewhere.bind(("127.0.0.1", 0))
        elsewhere.listen()
        with pytest.raises(OSError):
            client.connect(elsewhere.getsockname())


def test_namespace_that_is_closed_leaves_nothing(namespace: Namespace) -> None:
    names = {name for _, name in socket.if_nameindex()}
    assert namespace.cable in names
    namespace.close()
    eventually("the cable is gone", lambda: namespace.cable not in {name for _, name in socket.if_nameindex()})
