"""Whether the process lives, and whether what it needs does."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from api.backend import Backend, backend_of
from jobs.errors import StoreUnavailable

router = APIRouter(tags=["operation"])

PATIENCE_S = 3.0


@router.get("/healthz", summary="The process lives")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz", summary="PostgreSQL, Redis and a worker for every served model answer")
async def readyz(request: Request, scope: str = "all") -> JSONResponse:
    """503 lists what is missing. `?scope=api` leaves the workers out: jobs are accepted and kept without them, so that
    is what a load balancer should ask."""
    backend = backend_of(request)
    missing: list[str] = []
    workers = await _live_workers(backend)
    if workers is None:
        missing.append("postgres")
    if not await backend.reader.ping(PATIENCE_S):
        missing.append("redis")
    if scope != "api":
        missing += [f"worker:{model}" for model in backend.services.models if not (workers or {}).get(model)]
    body: dict[str, Any] = {"status": "missing" if missing else "ready", "missing": missing, "workers": workers or {}}
    return JSONResponse(body, 503 if missing else 200, {"retry-after": "2"} if missing else None)


async def _live_workers(backend: Backend) -> dict[str, int] | None:
    """How many workers of each served model live; None when the database does not answer in time."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            statuses = await backend.threads.call(backend.store.workers, backend.services.lease_s)
    except (StoreUnavailable, TimeoutError):
        return None
    alive = [status.record.model for status in statuses if status.alive]
    return {model: alive.count(model) for model in backend.services.models}
