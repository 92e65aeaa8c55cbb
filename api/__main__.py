"""`python -m api`: serves until SIGTERM, then ends streams so that their clients can go on elsewhere."""

import logging
import socket
import sys

import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.backend import Backend, check_addresses, there_are_keys
from api.http_head import BoundedHead
from api.settings import ApiSettings
from jobs import log_lines
from jobs.errors import StoreUnavailable
from jobs.settings import ServiceSettings, SettingsError, load

log = logging.getLogger("api")


class Server(uvicorn.Server):
    """Waits for open requests only after their streams were told to end: a stream would otherwise never."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self.app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            for server in self.servers:
                for listening in server.sockets:
                    log.info("ready on %s", _url(listening), extra={"action": "api.ready"})

    async def on_tick(self, counter: int) -> bool:
        # A new process reads on where a broken one cannot: whoever started this one starts another.
        return await super().on_tick(counter) or self.broken

    @property
    def broken(self) -> bool:
        backend: Backend | None = getattr(self.app.state, "backend", None)
        return backend is not None and backend.reader.broken

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        backend: Backend | None = getattr(self.app.state, "backend", None)
        if backend is not None:
            backend.reader.close_followers()
        await super().shutdown(sockets)


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def main() -> int:
    log_lines.configure()
    try:
        settings, services = load(ApiSettings), load(ServiceSettings)
        check_addresses(services)
        refuse_open_door(settings, services)
    except (SettingsError, StoreUnavailable) as exc:
        print(exc, file=sys.stderr)
        return 2
    app = create_app(settings, services)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=BoundedHead,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_s,
    )
    server = Server(config, app)
    server.run()
    return 0 if server.started and not server.broken else 3


def refuse_open_door(settings: ApiSettings, services: ServiceSettings) -> None:
    """Raises SettingsError when other machines could reach a server that asks nobody for a key."""
    if not settings.loopback and not there_are_keys(services):
        raise SettingsError(
            f"wrong settings:\n  host (environment VLMQ_API_HOST) = {settings.host!r}: without any API key the server "
            "listens on loopback only. Make a key first: vlmq keys create"
        )


if __name__ == "__main__":
    sys.exit(main())
