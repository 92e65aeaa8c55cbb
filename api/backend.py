"""Everything that a route may use, put together once per process. Wiring only."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import Request
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from api.auth import Auth
from api.backpressure import Backpressure
from api.conversation import Limits
from api.idempotency import Once
from api.media import MediaLimits
from api.metrics import Metrics
from api.pictures import Pictures
from api.queue_watch import QueueWatch
from api.settings import ApiSettings
from api.settling import Settling
from api.streams import StreamReader
from api.submission import Submission
from api.threads import Threads
from api.tool_use import ToolLimits
from api.webhook_parts import WebhookParts, webhook_parts
from jobs import connect as connecting
from jobs.batch_store import PostgresBatchStore
from jobs.counting import RedisCounting
from jobs.database import Database
from jobs.events import Event
from jobs.files import FileStore
from jobs.limits import KeyUsage
from jobs.ports import Blobs, EventLog, JobStore, Queue
from jobs.settings import ServiceSettings, load
from jobs.store import PostgresJobStore
from jobs.tool_format import tool_format_of
from jobs.tools import ToolFormat
from jobs.webhooks.destination import Destinations
from jobs.webhooks.settings import WebhookSettings


@dataclass(frozen=True, slots=True)
class Backend:
    settings: ApiSettings
    services: ServiceSettings
    store: JobStore
    events: EventLog
    blobs: Blobs
    files: FileStore
    batches: PostgresBatchStore
    submission: Submission
    once: Once
    settling: Settling
    auth: Auth
    usage: KeyUsage
    threads: Threads
    file_threads: Threads
    counting: RedisCounting
    counting_threads: Threads
    reader: StreamReader
    metrics: Metrics
    webhooks: WebhookParts


@asynccontextmanager
async def connect(
    settings: ApiSettings, services: ServiceSettings, metrics: Metrics, webhooks: WebhookSettings | None = None
) -> AsyncIterator[Backend]:
    """Builds the adapters and runs the stream reader while the context lasts. A service that is away is no error
    here: /readyz says so, and requests get 503."""
    database = connecting.database(services, pool_size=settings.store_threads)
    store = PostgresJobStore(database)
    client = connecting.redis_client(services)
    events = connecting.event_log(services, client)
    settling = Settling(store, events, connecting.control(services, client), services.stream_ttl_s)
    queue = connecting.queue(services)
    webhooks = webhooks or load(WebhookSettings)
    submission = submission_of(settings, services, database, queue, webhooks)
    threads = Threads(settings.store_threads)
    redis = reader_client(services.redis_url)

    async def look(job_ids: Sequence[str]) -> Mapping[str, Sequence[Event]]:
        return await threads.call(settling.look, job_ids)

    reader = StreamReader(redis, services.redis_prefix, look, settings.stream_buffer)
    reader.start()
    try:
        yield Backend(
            settings=settings,
            services=services,
            store=store,
            events=events,
            blobs=submission.blobs,
            files=submission.files,
            batches=connecting.batch_store(database),
            submission=submission,
            once=Once(connecting.idempotency_keys(database)),
            settling=settling,
            auth=Auth(connecting.api_keys(database), open_without_keys=settings.loopback, cache_s=settings.key_cache_s),
            usage=connecting.key_usage(database),
            threads=threads,
            # Their own, too: files may be large, and their disk slow.
            file_threads=Threads(settings.file_threads),
            counting=connecting.counting(services, client),
            # Their own: a question may wait for a worker for seconds.
            counting_threads=Threads(settings.count_threads),
            reader=reader,
            metrics=metrics,
            webhooks=webhook_parts(database, webhooks, submission.destinations),
        )
    finally:
        await reader.stop()
        await redis.aclose()
        queue.close()
        client.close()
        database.close()


def submission_of(
    settings: ApiSettings,
    services: ServiceSettings,
    database: Database,
    queue: Queue,
    webhooks: WebhookSettings | None = None,
) -> Submission:
    store, blobs = PostgresJobStore(database), connecting.blobs(services)
    return Submission(
        store=store,
        queue=queue,
        blobs=blobs,
        pictures=Pictures(blobs),
        files=connecting.file_store(database),
        destinations=Destinations.of(webhooks or load(WebhookSettings)),
        backpressure=Backpressure(QueueWatch(store, services.lease_s), settings.max_queued),
        models=services.models,
        limits=Limits(
            max_messages=settings.max_messages,
            max_images=settings.max_images,
            max_videos=settings.max_videos,
            max_video_segments=settings.max_video_segments,
            max_text_chars=settings.max_text_chars,
            media=MediaLimits(settings.max_image_bytes, settings.max_video_bytes, settings.image_schemes),
            tools=ToolLimits(_tool_formats(services.models), settings.max_tools, settings.max_tool_bytes),
        ),
        max_deadline_s=settings.max_deadline_s,
        max_attempts=services.max_attempts,
        max_choices=settings.max_choices,
    )


def _tool_formats(models: Sequence[str]) -> dict[str, ToolFormat]:
    """Of those that can call. Raises SettingsError."""
    return {model: format for model in models if (format := tool_format_of(model)) is not None}


def reader_client(url: str) -> Redis:
    """The stream reader's connections: it has its own back-off, and must notice a dead peer soon after it blocked."""
    return Redis.from_url(url, socket_timeout=5.0, socket_connect_timeout=2.0, retry=Retry(NoBackoff(), 0), protocol=2)


def check_addresses(services: ServiceSettings) -> None:
    """Raises SettingsError for an address of a service that is missing or none, before anything is connected."""
    connecting.database(services).close()
    connecting.redis_client(services).close()
    connecting.blobs(services)


def there_are_keys(services: ServiceSettings) -> bool:
    """Raises SettingsError, StoreUnavailable."""
    database = connecting.database(services, pool_size=1)
    try:
        return connecting.api_keys(database).any_keys()
    finally:
        database.close()


def backend_of(request: Request) -> Backend:
    """The process's backend; it exists while the application runs."""
    backend: Backend = request.app.state.backend
    return backend
