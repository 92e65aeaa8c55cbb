"""Running systems: one for the tests that only use it, one of its own for each test that kills."""

import contextlib
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from cli.services import Services
from cli.valkey import EmbeddedValkey
from jobs.settings import ServiceSettings
from tests.acceptance.system import System, system
from tests.fixtures.pictures import picture
from tests.fixtures.services import fresh_database, fresh_prefix, settings_for
from tests.fixtures.tensorrt_llm import Serving


@pytest.fixture
def own_system(
    service_settings: ServiceSettings, serving: Serving, tiny_model: Path, tmp_path: Path
) -> Iterator[System]:
    """A system of this test's own. Nothing runs yet."""
    with system(service_settings, tmp_path, VLMQ_WORKER_PATH=str(tiny_model), **serving.tiny) as it:
        yield it


@pytest.fixture
def running(own_system: System) -> System:
    """API, worker and maintenance run, for a test to kill. A stopping worker gives its jobs back soon."""
    own_system.start_api()
    own_system.start_maintenance()
    own_system.start_worker(VLMQ_WORKER_GRACE_S="0.2")
    return own_system


@pytest.fixture
def on_private_redis(
    service_settings: ServiceSettings,
    private_redis: EmbeddedValkey,
    serving: Serving,
    tiny_model: Path,
    tmp_path: Path,
) -> Iterator[System]:
    """A system whose Redis the test may kill. Nothing runs yet."""
    settings = service_settings.model_copy(update={"redis_url": private_redis.url})
    with system(settings, tmp_path, VLMQ_WORKER_PATH=str(tiny_model), **serving.tiny) as it:
        yield it


class _Media(BaseHTTPRequestHandler):
    """A media host: one picture, redirects, errors."""

    redirects = {
        "/to-metadata.png": "http://169.254.169.254/latest/",
        "/to-loopback.png": "http://127.0.0.1:1/x.png",
        "/to-picture.png": "/picture.png",
    }

    def do_GET(self) -> None:
        body = picture() if self.path == "/picture.png" else b""
        self.send_response(302 if self.path in self.redirects else 200 if body else 404)
        if self.path in self.redirects:
            self.send_header("location", self.redirects[self.path])
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None: ...


class Neighbourhood:
    """What pictures may come from: a media host, a host that takes connections and never answers, an allowed folder."""

    def __init__(self, media: str, silent: str, root: Path) -> None:
        self.media = media
        self.silent = silent
        self.root = root


@pytest.fixture(scope="session")
def neighbourhood(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbourhood]:
    """Both hosts are on the operator's list of private hosts; the folder holds a picture and a link out of it."""
    root = tmp_path_factory.mktemp("media")
    (root / "allowed").mkdir()
    (root / "allowed" / "picture.png").write_bytes(picture())
    (root / "outside.png").write_bytes(picture())
    (root / "allowed" / "link.png").symlink_to(root / "outside.png")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), _Media))
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield Neighbourhood(f"127.0.0.1:{server.server_port}", f"127.0.0.1:{silent.getsockname()[1]}", root / "allowed")
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def shared(
    services: Services,
    serving: Serving,
    tiny_model: Path,
    neighbourhood: Neighbourhood,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[System]:
    """API, maintenance and one worker of 32 slots for every test that leaves them as they are."""
    folder = tmp_path_factory.mktemp("shared")
    with fresh_database(services) as url:
        settings = settings_for(url, services.redis_url, fresh_prefix(), folder)
        environment = serving.tiny | {
            "VLMQ_WORKER_PATH": str(tiny_model),
            "VLMQ_WORKER_ALLOWED_PRIVATE_HOSTS": f"{neighbourhood.media},{neighbourhood.silent}",
            "VLMQ_WORKER_ALLOWED_FILE_ROOTS": str(neighbourhood.root),
            "VLMQ_WORKER_READ_TIMEOUT_S": "1",
            "VLMQ_WORKER_FETCH_TIMEOUT_S": "2",
            "VLMQ_WORKER_MEDIA_BACKOFF_S": "0.1",
        }
        with system(settings, folder, **environment) as it:
            it.start_api()
            it.start_maintenance()
            it.start_worker()
            yield it
