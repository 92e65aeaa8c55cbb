"""A webhook receiver that is as unreliable as real ones: it refuses, dawdles and hangs up, and keeps a log of all that
came. For each delivery it asks the database at once whether the job had ended."""

import json
import random
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.chaos.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Delivery:
    webhook_id: str
    event_type: str
    job_id: str
    state: str
    """Of the job's row when the delivery came."""
    accepted: bool


class Receiver:
    """Listens on loopback while the context lasts."""

    def __init__(self, seed: int) -> None:
        self.deliveries: list[Delivery] = []
        self.ledger: Ledger | None = None
        """Where it asks; nothing is delivered before there is one."""
        self._dice = random.Random(seed)
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.receive(self)

            def log_message(self, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def __enter__(self) -> "Receiver":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def receive(self, request: BaseHTTPRequestHandler) -> None:
        event = json.loads(request.rfile.read(int(request.headers["content-length"])))
        job_id = event["data"]["id"]
        assert self.ledger is not None
        rows = self.ledger.patiently("SELECT state FROM jobs WHERE id = %s", job_id)
        mood = self._dice.random()
        accepted = mood < 0.8
        state = rows[0]["state"] if rows else "absent"
        self.deliveries.append(Delivery(request.headers["webhook-id"], event["type"], job_id, state, accepted))
        if mood > 0.95:
            time.sleep(1)
        if mood > 0.9:
            # Hangs up without an answer.
            request.close_connection = True
            return
        request.send_response(200 if accepted else 500)
        request.send_header("content-length", "0")
        request.end_headers()
