"""The outermost layer of a request: its id, its measure, what its key may still use, and an answer when everything else
failed."""

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import as_api_error, error_response
from api.metrics import Metrics
from api.sse import ClientGone

log = logging.getLogger(__name__)

SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Edge:
    """Plain ASGI, because a stream must pass through unbuffered."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope))
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0
        began = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                if (allowance := scope["state"].get("allowance")) is not None:
                    headers.update(allowance.headers())
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientGone:
            status = status or 499
        except Exception as exc:
            log.exception("request failed", extra={"action": "request.failed", "request_id": request_id})
            if not status:
                await error_response(as_api_error(exc))(scope, receive, send_with_id)
        finally:
            self._metrics.request(_route(scope), scope["method"], status, time.perf_counter() - began)


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if SANE_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"


def _route(scope: Scope) -> str:
    # The template, never the path: ids would make a time series each.
    return str(getattr(scope.get("route"), "path", "unmatched"))
