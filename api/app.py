"""The application: routes, error table, edge, and the backend's life. Wiring only."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from api import (
    batches,
    chat,
    errors,
    files,
    health,
    jobs,
    metrics,
    models,
    openapi,
    stored_completions,
    tokenize,
    webhook_deliveries,
    webhook_endpoints,
)
from api.backend import connect
from api.edge import Edge
from api.metrics import Metrics
from api.responses import input_routes as response_inputs
from api.responses import routes as responses
from api.settings import ApiSettings
from jobs.settings import ServiceSettings
from jobs.webhooks.settings import WebhookSettings

VERSION = "0.1.0"


def create_app(settings: ApiSettings, services: ServiceSettings, webhooks: WebhookSettings | None = None) -> FastAPI:
    """Nothing is connected before the application starts."""
    measure = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with connect(settings, services, measure, webhooks) as backend:
            app.state.backend = backend
            yield

    app = FastAPI(
        title="vlmq",
        summary="Durable inference jobs for InternVL, in OpenAI's shapes.",
        version=VERSION,
        lifespan=lifespan,
        redoc_url=None,
    )
    errors.install(app)
    for part in (chat, stored_completions, responses, response_inputs, jobs, files, batches):
        app.include_router(part.router)
    for part in (webhook_endpoints, webhook_deliveries, tokenize, models, health, metrics):
        app.include_router(part.router)
    openapi.install(app)
    app.add_middleware(Edge, metrics=measure)
    return app
